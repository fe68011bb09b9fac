//! Writes a server's trace to a file, beside the protocol and never in its way.
//!
//! ```text
//!   core, acceptor, learner ──try_send──> bounded queue ──> thread "trace" ──> file
//! ```
//!
//! A replica that observes something makes an [`Event`] of it and puts it into a bounded queue. When the disk
//! cannot keep up, the queue is full, and events are counted instead of kept: where they are missing, the file
//! says how many. A file that exists is continued, so that a server that was killed and started again leaves
//! one story. A line that its last life had begun is cut off first.

use super::{Event, Names, What};
use crate::replica::Observation;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_paxos::types::NodeId;

/// How many events may wait for the file.
const WAITING: usize = 1 << 15;

/// How many bytes are written at once, at most by a line more.
const CHUNK: usize = 64 << 10;

/// Why there is no trace. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened, read or continued.
    #[error("cannot write the trace {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no trace, and is left alone; name another file, or one that does not exist", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
}

/// Takes what a replica observes, and has it written. Clones share one file.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: NodeId,
    names: Names,
    clock: Clock,
    queue: SyncSender<Input>,
    /// Events that found the queue full, since the last that did not.
    dropped: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Input {
    Event(Box<Event>),
    /// Nothing comes behind this.
    End,
}

/// The wall clock when it was made, and steady from then on: a trace never goes back in time because somebody
/// sets the clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    unix: Duration,
    started: Instant,
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from((self.unix + self.started.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Recorder {
    /// Begins or continues the trace of `node` in the file at `path`.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn open(path: &Path, node: NodeId, names: Names) -> Result<Recorder, TraceError> {
        let failed = |source| TraceError::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        // Only regular files have a past; a pipe or /dev/stderr is written to as it is.
        if file.metadata().map_err(failed)?.is_file() && !cut_torn_line(&mut file).map_err(failed)? {
            return Err(TraceError::Foreign { path: path.to_owned() });
        }
        Recorder::to(file, node, names, WAITING).map_err(failed)
    }

    fn to(
        sink: impl Write + Send + 'static,
        node: NodeId,
        names: Names,
        waiting: usize,
    ) -> io::Result<Recorder> {
        let (queue, events) = sync_channel(waiting);
        let clock = Clock {
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            started: Instant::now(),
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            sink: Some(sink),
            lines: Vec::new(),
            dropped: Arc::clone(&dropped),
            names: names.clone(),
            node,
            clock,
        };
        let thread = Builder::new().name("trace".into()).spawn(move || writer.run(&events))?;
        let thread = Mutex::new(Some(thread));
        Ok(Recorder(Arc::new(Shared { node, names, clock, queue, dropped, thread })))
    }

    /// Has it written that the replica observed this, if it is worth a line. Never waits.
    pub fn observe(&self, observation: &Observation<'_>) {
        let shared = &self.0;
        if let Some(event) = Event::of(shared.clock.now(), shared.node, &shared.names, observation) {
            self.put(event);
        }
    }

    /// Has it written that this happened to the replica. Never waits.
    pub fn record(&self, what: What) {
        self.put(Event::at(self.0.clock.now(), self.0.names.place(self.0.node), what));
    }

    fn put(&self, event: Event) {
        match self.0.queue.try_send(Input::Event(Box::new(event))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => {} // the trace was closed
        }
    }

    /// Waits until everything is in the file. What comes later is not written any more.
    pub fn close(&self) {
        let thread = self.0.thread.lock().expect("nobody panics while holding it").take();
        if let Some(thread) = thread {
            let _ = self.0.queue.send(Input::End); // it is gone if it panicked, which join says, too
            let _ = thread.join();
        }
    }
}

/// Cuts off what stands behind the last line's end. Is it a trace, or empty?
fn cut_torn_line(file: &mut File) -> io::Result<bool> {
    let len = file.seek(SeekFrom::End(0))?;
    if len == 0 {
        return Ok(true);
    }
    // A line is far shorter than this, so both ends of the file suffice.
    let window = len.min(1 << 20);
    let mut head = vec![0; usize::try_from(window).expect("at most a mebibyte")];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let one_torn_line = first.len() as u64 == len && first.starts_with(br#"{"v":"#);
    if !one_torn_line && serde_json::from_slice::<Event>(first).is_err() {
        return Ok(false);
    }
    let mut tail = head;
    file.seek(SeekFrom::Start(len - window))?;
    file.read_exact(&mut tail)?;
    let end = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1);
    let torn = (tail.len() - end) as u64;
    if torn > 0 && (end > 0 || one_torn_line) {
        file.set_len(len - torn)?;
    }
    Ok(true)
}

/// The thread's side.
struct Writer<W> {
    /// Gone once it refused something.
    sink: Option<W>,
    lines: Vec<u8>,
    dropped: Arc<AtomicU64>,
    node: NodeId,
    names: Names,
    clock: Clock,
}

impl<W: Write> Writer<W> {
    fn run(&mut self, events: &Receiver<Input>) {
        while let Ok(Input::Event(event)) = events.recv() {
            self.line(&event);
            let mut open = true;
            // Whatever waits goes out together; nothing is kept back for more to come.
            while self.lines.len() < CHUNK
                && let Ok(input) = events.try_recv()
            {
                match input {
                    Input::Event(event) => self.line(&event),
                    Input::End => {
                        open = false;
                        break;
                    }
                }
            }
            self.missing();
            self.flush();
            if !open {
                return;
            }
        }
        self.missing();
        self.flush();
    }

    fn line(&mut self, event: &Event) {
        serde_json::to_writer(&mut self.lines, event).expect("a vector takes all, and keys are strings");
        self.lines.push(b'\n');
    }

    /// Says what was dropped, if anything was. It stands behind events that waited when that happened.
    fn missing(&mut self) {
        let events = self.dropped.swap(0, Ordering::Relaxed);
        if events > 0 {
            let place = self.names.place(self.node);
            self.line(&Event::at(self.clock.now(), place, What::Dropped { events }));
        }
    }

    fn flush(&mut self) {
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.write_all(&self.lines).and_then(|()| sink.flush())
        {
            tracing::error!(%error, "the trace cannot be written any more; the server goes on without");
            self.sink = None;
        }
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn names() -> Names {
        Names::from_iter([(NodeId(1), "n1".to_owned())])
    }

    fn note(text: &str) -> What {
        What::Note { kind: "test".into(), text: text.into() }
    }

    fn read(path: &Path) -> Vec<What> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().what).collect()
    }

    #[test]
    fn everything_is_in_the_file_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.jsonl");
        let recorder = Recorder::open(&path, NodeId(1), names()).unwrap();
        let expected: Vec<What> = (0..1000).map(|number| note(&number.to_string())).collect();
        expected.iter().for_each(|what| recorder.record(what.clone()));
        recorder.close();
        assert_eq!(read(&path), expected);
        recorder.record(note("too late"));
        recorder.close();
        assert_eq!(read(&path), expected);
    }

    #[test]
    fn a_trace_is_continued_and_a_torn_line_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.jsonl");
        for (torn, text) in [("", "one"), (r#"{"v":1,"at":17"#, "two"), ("{", "three")] {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            file.write_all(torn.as_bytes()).unwrap();
            let recorder = Recorder::open(&path, NodeId(1), names()).unwrap();
            recorder.record(note(text));
            recorder.close();
        }
        assert_eq!(read(&path), [note("one"), note("two"), note("three")]);
    }

    #[test]
    fn a_file_of_one_torn_line_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.jsonl");
        std::fs::write(&path, r#"{"v":1,"at":17"#).unwrap();
        let recorder = Recorder::open(&path, NodeId(1), names()).unwrap();
        recorder.record(note("one"));
        recorder.close();
        assert_eq!(read(&path), [note("one")]);
    }

    #[test]
    fn what_is_no_trace_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        for precious in ["root:x:0:0\n", "{}\n", "{", "\n"] {
            std::fs::write(&path, precious).unwrap();
            let refused = Recorder::open(&path, NodeId(1), names()).unwrap_err();
            assert!(matches!(refused, TraceError::Foreign { .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), precious);
        }
        let nowhere = folder.path().join("no/folder");
        assert!(matches!(Recorder::open(&nowhere, NodeId(1), names()), Err(TraceError::File { .. })));
    }

    /// A sink that says when a write begins, and lets it go on when told to.
    struct Slow {
        begins: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begins.send(bytes.to_vec()).unwrap();
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_disk_costs_events_and_the_file_says_how_many() {
        let (begins, begun) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let recorder = Recorder::to(Slow { begins, go_on }, NodeId(1), names(), 2).unwrap();
        recorder.record(note("first"));
        let mut written = begun.recv().unwrap(); // the thread is in its write now, and the queue is empty
        for number in 0..5 {
            recorder.record(note(&number.to_string()));
        }
        drop(go);
        recorder.close();
        written.extend(begun.iter().flatten());
        let events: Vec<What> = written
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Event>(line).unwrap().what)
            .collect();
        assert_eq!(events, [note("first"), note("0"), note("1"), What::Dropped { events: 3 }]);
    }

    #[test]
    fn a_disk_that_fails_stops_the_trace_and_nobody_else() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = Recorder::to(Full, NodeId(1), names(), 2).unwrap();
        for number in 0..100 {
            recorder.record(note(&number.to_string()));
        }
        recorder.close();
    }

    #[test]
    fn time_never_goes_back() {
        let clock = Clock { unix: Duration::from_secs(5), started: Instant::now() };
        let (one, other) = (clock.now(), clock.now());
        assert!((5_000_000..=other).contains(&one));
    }
}
