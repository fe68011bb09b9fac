//! What a process has used so far, as Linux tells it in `/proc` (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use crate::failed::Failed;

/// Where fields begin to be counted in `/proc/PID/stat`, behind the name: this is field 3.
const FIRST_FIELD: usize = 3;
const UTIME: usize = 14;
const STIME: usize = 15;

/// What some processes have used since they began, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all threads, also those that have ended; in steps of a clock tick, which is 10 ms.
    pub(crate) cpu: Duration,
    /// In memory now, in bytes.
    pub(crate) resident: u64,
    /// Caused to be written to a disk, in bytes.
    pub(crate) written: u64,
}

/// Looks at all of them.
///
/// # Errors
/// If one has ended, or is not for us to look at.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage, Failed> {
    let mut sum = Usage::default();
    for pid in pids {
        let one = look(*pid).map_err(|error| {
            Failed::new(format!("cannot see what process {pid} uses: {error}"))
                .hint("Is it still running, and does it run as the same user?")
        })?;
        sum.cpu += one.cpu;
        sum.resident += one.resident;
        sum.written += one.written;
    }
    Ok(sum)
}

/// The CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What this process has in memory now, in bytes.
pub(crate) fn own_resident() -> io::Result<u64> {
    resident(&fs::read_to_string("/proc/self/statm")?, page_size() as u64)
        .ok_or_else(|| malformed("self", "statm"))
}

fn look(pid: u32) -> io::Result<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let malformed = |file| malformed(&pid.to_string(), file);
    let (stat, statm, io) = (read("stat")?, read("statm")?, read("io")?);
    Ok(Usage {
        cpu: cpu(&stat, clock_ticks_per_second()).ok_or_else(|| malformed("stat"))?,
        resident: resident(&statm, page_size() as u64).ok_or_else(|| malformed("statm"))?,
        written: written(&io).ok_or_else(|| malformed("io"))?,
    })
}

fn malformed(process: &str, file: &str) -> io::Error {
    io::Error::other(format!("/proc/{process}/{file} is not as expected"))
}

fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The name is in parentheses and may hold anything, blanks and parentheses too.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let field = |number: usize| behind_name.split_whitespace().nth(number - FIRST_FIELD)?.parse::<u64>().ok();
    let ticks = field(UTIME)? + field(STIME)?;
    Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64))
}

fn resident(statm: &str, page_size: u64) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * page_size)
}

fn written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "7 (a) S 1 (b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 123 456 789";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(cpu("7 (a) S 1", 100), None);
        assert_eq!(cpu("", 100), None);
    }

    #[test]
    fn memory_and_disk_are_in_bytes() {
        assert_eq!(resident("900 300 20 1 0 80 0", 4_096), Some(1_228_800));
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 4096\n";
        assert_eq!(written(io), Some(4_096));
        assert_eq!((resident("", 1), written("")), (None, None));
    }

    #[test]
    fn this_process_uses_something_and_a_dead_one_nothing() {
        let own = usage(&[std::process::id()]).unwrap();
        assert!(own.resident > 0 && own_resident().unwrap() > 0);
        assert!(own_cpu() > Duration::ZERO);
        // Linux gives no process an id above 2^22.
        assert!(usage(&[1 << 23]).unwrap_err().to_string().contains("process 8388608"));
    }
}
