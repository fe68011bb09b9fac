//! The open loop: when requests are due, whatever became of those before.
//!
//! A client that waits for its answer before it sends again asks less of a server that is slow, and does not notice
//! how long it made others wait (*coordinated omission*). Here request `i` is due at `begin + i / rate`, and its
//! latency is counted from then: the time that it waits for a free client is part of it.
//!
//! A worker has a timer of the kernel's, because that of the runtime has a step of a whole millisecond. It opens a
//! gate for as many requests as are due, and clients that are free pass it. What still stands before the gate in
//! the end was due and never sent.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::course::Leave;

/// The shortest time the timer is set to: so late, at most, is a request sent because of it, and no more often is a
/// worker woken.
const FINEST: Duration = Duration::from_micros(50);

/// When the requests of one worker are due: of all, every so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// When request 0 is due.
    pub(super) begin: Instant,
    /// When it begins to count.
    pub(super) from: Instant,
    /// Nothing is due from here on.
    pub(super) until: Instant,
    /// Requests per second of all workers together.
    pub(super) rate: u32,
    /// How many workers there are.
    pub(super) workers: u64,
    /// Which one this is.
    pub(super) worker: u64,
}

impl Schedule {
    /// When this worker's request of this number is due.
    fn due(&self, number: u64) -> Instant {
        self.begin + at(number * self.workers + self.worker, self.rate)
    }

    /// How many of this worker's requests are due at `now`, that one included that is due just then.
    fn due_by(&self, now: Instant) -> u64 {
        let last = now.min(self.until - Duration::from_nanos(1));
        let Some(since) = last.checked_duration_since(self.begin) else { return 0 };
        // Of all workers, numbers up to since * rate; ours are those with number % workers = worker.
        let newest = since.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        let all = u64::try_from(newest).unwrap_or(u64::MAX).saturating_add(1);
        all.saturating_sub(self.worker).div_ceil(self.workers)
    }

    /// How many of this worker's requests count.
    pub(super) fn counted(&self) -> u64 {
        let before = self.due_by(self.from - Duration::from_nanos(1));
        self.due_by(self.until).saturating_sub(before)
    }

    /// The leave for the request of this number, and since when it is due.
    pub(super) fn leave(&self, number: u64) -> (Leave, Instant) {
        let due = self.due(number);
        (if due < self.from { Leave::WarmUp } else { Leave::Ticket(number) }, due)
    }
}

/// The time that so many requests take at this rate, to the nanosecond above.
fn at(number: u64, rate: u32) -> Duration {
    let nanos = (u128::from(number) * 1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What clients wait at until a request is due.
#[derive(Debug)]
pub(super) struct Gate {
    schedule: Schedule,
    places: Semaphore,
    passed: std::cell::Cell<u64>,
}

impl Gate {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self { schedule, places: Semaphore::new(0), passed: std::cell::Cell::new(0) }
    }

    /// Waits for the next request that is due and nobody else sends; `None` if it is over.
    pub(super) async fn pass(&self) -> Option<(Leave, Instant)> {
        self.places.acquire().await.ok()?.forget();
        let number = self.passed.get();
        self.passed.set(number + 1);
        Some(self.schedule.leave(number))
    }

    /// Opens the gate as requests become due, and closes it when it is over.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub(super) async fn open(&self) -> io::Result<()> {
        let timer = Timer::new()?;
        let mut opened = 0;
        loop {
            let now = Instant::now();
            if now >= self.schedule.until {
                self.places.close();
                return Ok(());
            }
            let due = self.schedule.due_by(now);
            self.places.add_permits(usize::try_from(due - opened).unwrap_or(usize::MAX));
            opened = due;
            // Where nothing more is due, the end is what we wait for.
            let next = self.schedule.due(opened).min(self.schedule.until);
            timer.sleep(next.saturating_duration_since(now).max(FINEST)).await?;
        }
    }

    /// How many requests that count were due, and how many of them were not sent. For when it is over.
    pub(super) fn due_and_not_sent(&self) -> (u64, u64) {
        let all = self.schedule.due_by(self.schedule.until);
        let counted = self.schedule.counted();
        (counted, (all - self.passed.get()).min(counted))
    }
}

/// A timer of the kernel's, to the nanosecond (timerfd_create(2)).
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for owners whose descriptor changes; this one keeps it"
        )]
        AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
    }

    /// Sleeps for so long, which is not zero: that would be for ever.
    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let once = Timespec::try_from(Duration::ZERO).map_err(io::Error::other)?;
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let times = Itimerspec { it_interval: once, it_value: time };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &times)?;
        // How often it fired does not matter: the clock says what is due.
        let mut fired = [0; size_of::<u64>()];
        self.0.async_io(Interest::READABLE, |timer| Ok(rustix::io::read(timer, &mut fired)?)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, workers: u64, worker: u64) -> Schedule {
        let begin = Instant::now();
        let from = begin + Duration::from_secs(1);
        Schedule { begin, from, until: from + Duration::from_secs(2), rate, workers, worker }
    }

    #[test]
    fn requests_are_due_at_fixed_times() {
        let schedule = schedule(4, 1, 0);
        let begin = schedule.begin;
        let quarter = Duration::from_millis(250);
        assert_eq!(
            [0, 1, 6].map(|number| schedule.due(number)),
            [begin, begin + quarter, begin + quarter * 6]
        );
        let due_by = |at: Duration| schedule.due_by(begin + at);
        assert_eq!(due_by(Duration::ZERO), 1);
        assert_eq!(due_by(quarter - Duration::from_nanos(1)), 1);
        assert_eq!(due_by(quarter), 2);
        assert_eq!(schedule.due_by(begin - quarter), 0);
        assert_eq!(due_by(Duration::from_secs(99)), 12, "nothing is due after the end");
        assert_eq!(schedule.counted(), 8);
        assert_eq!(schedule.leave(3), (Leave::WarmUp, begin + quarter * 3));
        assert_eq!(schedule.leave(4), (Leave::Ticket(4), begin + quarter * 4));
    }

    #[test]
    fn workers_take_turns_and_miss_none() {
        for rate in [3, 7, 1_000, 33_333] {
            let whole = schedule(rate, 1, 0);
            let parts: Vec<Schedule> =
                (0..3).map(|worker| Schedule { workers: 3, worker, ..whole }).collect();
            assert_eq!(parts.iter().map(Schedule::counted).sum::<u64>(), u64::from(rate) * 2, "{rate}");
            assert_eq!(parts[1].due(2), whole.due(7));
            for nanos in [0, 1, 333_333_333, 1_000_000_000, 2_999_999_999] {
                let now = whole.begin + Duration::from_nanos(nanos);
                let sum: u64 = parts.iter().map(|part| part.due_by(now)).sum();
                assert_eq!(sum, whole.due_by(now), "{rate} at {nanos}");
            }
        }
    }

    #[test]
    fn what_is_due_by_a_time_is_what_is_due_before() {
        for worker in 0..3 {
            let schedule = schedule(29_999, 3, worker);
            for number in [0, 1, 2, 9_998, 19_999] {
                let due = schedule.due(number);
                assert_eq!(schedule.due_by(due), number + 1, "{worker}: {number}");
                assert_eq!(schedule.due_by(due - Duration::from_nanos(1)), number, "{worker}: {number}");
            }
        }
    }

    #[tokio::test]
    async fn what_stands_before_the_gate_in_the_end_was_not_sent() {
        let schedule = schedule(10, 1, 0);
        let gate = Gate::new(schedule);
        gate.places.add_permits(30);
        for number in 0..25 {
            assert_eq!(gate.pass().await.unwrap().1, schedule.due(number));
        }
        gate.places.close();
        assert_eq!(gate.pass().await, None);
        assert_eq!(gate.due_and_not_sent(), (20, 5));
    }

    #[tokio::test]
    async fn the_gate_lets_all_pass_that_are_due_and_closes() {
        let begin = Instant::now();
        let (from, until) = (begin, begin + Duration::from_millis(20));
        let gate = Gate::new(Schedule { begin, from, until, rate: 1_000, workers: 1, worker: 0 });
        let pass_all = async {
            let mut last = None;
            while let Some((_, due)) = gate.pass().await {
                assert!(last < Some(due) && due <= Instant::now());
                last = Some(due);
            }
        };
        let (opened, ()) = tokio::join!(gate.open(), pass_all);
        opened.unwrap();
        let (due, not_sent) = gate.due_and_not_sent();
        assert_eq!(due, 20);
        assert_eq!(gate.passed.get() + not_sent, due);
    }
}
