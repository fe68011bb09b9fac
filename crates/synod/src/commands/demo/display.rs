//! What the audience sees: one line per happening, in the order it is known.
//!
//! For people, aligned and coloured; for programs, one JSON object per line, of
//! which the last is the verdict.

use std::io::{Write, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use synod_sim::{Call, Moment, Operation, Outcome, Saw};

use super::verdict::Findings;
use crate::cluster::call::Done;
use crate::cluster::judge::State;
use crate::output::table::{self, Side};
use crate::output::{Reader, emit_to, json};

/// An answer that took this long is worth a colour.
const SLOW: Duration = Duration::from_millis(100);

/// Where the story is told.
pub(super) struct Screen {
    as_json: bool,
    quiet: bool,
    colour: bool,
    /// The reader closed the pipe. The run goes on: its exit code is wanted still.
    gone: AtomicBool,
    /// Lines of several tasks must not mix.
    line: Mutex<()>,
}

/// Something that befell a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Incident {
    pub(super) at: Moment,
    pub(super) kind: Kind,
    pub(super) node: String,
    pub(super) text: String,
}

/// What kind of thing befell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Fault,
    Back,
    Voter,
    Leader,
    Other,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Fault => "FAULT",
            Kind::Back => "BACK",
            Kind::Voter => "VOTER",
            Kind::Leader => "LEADER",
            Kind::Other => "EVENT",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Kind::Fault => Colour::Red,
            Kind::Back | Kind::Voter => Colour::Green,
            Kind::Leader => Colour::Yellow,
            Kind::Other => Colour::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    None,
    Red,
    Green,
    Yellow,
}

/// A line for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Note { text: &'a str },
    Operation { took_micros: u64, error: Option<&'a str>, operation: &'a Operation },
    Incident(&'a Incident),
    Verdict(&'a Findings),
}

impl Screen {
    pub(super) fn new(as_json: bool, quiet: bool, colour: bool) -> Self {
        Self { as_json, quiet, colour, gone: AtomicBool::new(false), line: Mutex::default() }
    }

    /// A sentence between happenings.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.tell(Line::Note { text }, || format!("{text}\n"));
        }
    }

    /// An operation that ended.
    pub(super) fn operation(&self, done: &Done) {
        if !self.quiet {
            let Done { operation, took, error } = done;
            let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let line = Line::Operation { took_micros, error: error.as_deref(), operation };
            self.tell(line, || self.operation_line(done));
        }
    }

    /// Something that befell a replica.
    pub(super) fn incident(&self, incident: &Incident) {
        if !self.quiet {
            self.tell(Line::Incident(incident), || {
                let Incident { at, kind, node, text } = incident;
                let line = format!("{}  {:<8}  {node} {text}", seconds(*at), kind.word());
                format!("{}\n", self.painted(kind.colour(), line))
            });
        }
    }

    /// The end of the story; shown even if the rest was not wanted.
    pub(super) fn findings(&self, findings: &Findings) {
        self.tell(Line::Verdict(findings), || self.findings_text(findings));
    }

    fn tell(&self, line: Line<'_>, text: impl FnOnce() -> String) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let text = if self.as_json { json::line(&line) } else { text() };
        let _line = self.line.lock().expect("nobody panics while printing");
        let mut out = stdout().lock();
        // A terminal that cannot be written to is no reason to stop judging.
        let told = emit_to(&mut out, text.as_bytes())
            .and_then(|reader| out.flush().map(|()| reader).or(Ok(Reader::Gone)));
        if !matches!(told, Ok(Reader::Listening)) {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    fn operation_line(&self, Done { operation, took, error }: &Done) -> String {
        let ended = Moment(operation.invoked.0 + u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let who = match operation.client.0 {
            0 => "set-up".to_owned(),
            number => format!("client {number}"),
        };
        let via = operation.via.as_deref().unwrap_or("?");
        let what = in_words(operation);
        let millis = took.as_millis();
        let (result, colour) = match (&operation.outcome, error) {
            (Outcome::Answered(answer), _) => (
                format!("ok  rev {:<5}", answer.revision.0),
                if *took >= SLOW { Colour::Yellow } else { Colour::None },
            ),
            (Outcome::NotApplied, _) => ("failed       ".to_owned(), Colour::Red),
            (Outcome::Unknown, _) => ("unknown      ".to_owned(), Colour::Red),
        };
        let mut line =
            format!("{}  {who:<8}  {what:<36}  {result}  {millis:>5} ms  via {via}", seconds(ended));
        if let Some(error) = error {
            line.push_str(&format!("  {error}"));
        }
        format!("{}\n", self.painted(colour, line))
    }

    fn findings_text(&self, findings: &Findings) -> String {
        const TITLES: [(&str, Side); 6] = [
            ("", Side::Left),
            ("OK", Side::Right),
            ("FAILED", Side::Right),
            ("UNKNOWN", Side::Right),
            ("MEDIAN", Side::Right),
            ("LONGEST", Side::Right),
        ];
        let millis = |time: Option<u64>| {
            time.map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros as f64 / 1_000.0))
        };
        let rows: Vec<Vec<String>> = findings
            .operations
            .iter()
            .map(|row| {
                vec![
                    row.kind.to_owned(),
                    row.ok.to_string(),
                    row.failed.to_string(),
                    row.unknown.to_string(),
                    millis(row.median_micros),
                    millis(row.longest_micros),
                ]
            })
            .collect();
        let mut text = format!("\n{}\n", table::columns(&TITLES, &rows));
        text.push_str(&format!(
            "faults {}, {} of them while requests were open; changes of leader {}\n",
            findings.faults, findings.struck, findings.leaders
        ));
        for check in &findings.checks {
            let (mark, colour) = match check.state {
                State::Right => ("ok     ", Colour::Green),
                State::Wrong => ("WRONG  ", Colour::Red),
                State::Unknown => ("?      ", Colour::Yellow),
            };
            let mut lines = check.text.lines();
            let first = lines.next().unwrap_or_default();
            text.push_str(&format!("{}{first}\n", self.painted(colour, mark.to_owned())));
            lines.for_each(|line| text.push_str(&format!("       {line}\n")));
        }
        let colour = match findings.state() {
            State::Right => Colour::Green,
            State::Wrong => Colour::Red,
            State::Unknown => Colour::Yellow,
        };
        let verdict = self.painted(colour, findings.verdict.clone());
        text.push_str(&format!("{verdict}          again: {}\n", findings.again));
        text
    }

    fn painted(&self, colour: Colour, text: String) -> String {
        let code = match colour {
            _ if !self.colour => return text,
            Colour::None => return text,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn seconds(moment: Moment) -> String {
    format!("{:>6.2} s", moment.0 as f64 / 1e6)
}

fn in_words(operation: &Operation) -> String {
    let saw = operation.answer().map(|answer| &answer.saw);
    match (&operation.call, saw) {
        (Call::Put { key, value }, _) => format!("put {key} = {value}"),
        (Call::Get { key }, Some(Saw::Was(entry))) => format!("get {key} -> {}", entry.value),
        (Call::Get { key }, Some(_)) => format!("get {key} -> (no such key)"),
        (Call::Get { key }, None) => format!("get {key}"),
        (Call::Delete { key }, Some(Saw::Absent)) => format!("del {key} (there was none)"),
        (Call::Delete { key }, _) => format!("del {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Row;
    use super::*;
    use crate::cluster::judge::Check;
    use synod_sim::{Answer, ClientId, Revision};

    fn plain() -> Screen {
        Screen::new(false, false, false)
    }

    fn put(outcome: Outcome, error: Option<&str>) -> Done {
        Done {
            operation: Operation {
                client: ClientId(1),
                via: Some("n2".to_owned()),
                invoked: Moment(596_000),
                call: Call::Put { key: "fruit/kiwi".into(), value: "green 1.4".into() },
                outcome,
            },
            took: Duration::from_millis(4),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn an_operation_is_a_line() {
        let answer = Answer { returned: Moment(600_000), revision: Revision(12), saw: Saw::NotAsked };
        assert_eq!(
            plain().operation_line(&put(Outcome::Answered(answer), None)),
            "  0.60 s  client 1  put fruit/kiwi = green 1.4            ok  rev 12         4 ms  via n2\n"
        );
    }

    #[test]
    fn an_unknown_outcome_is_never_called_a_failure() {
        let line = plain().operation_line(&put(Outcome::Unknown, Some("connection lost")));
        assert!(line.contains("unknown") && !line.contains("failed"), "{line}");
        assert!(line.ends_with("via n2  connection lost\n"), "{line}");
    }

    #[test]
    fn the_summary_ends_with_the_verdict_and_how_to_see_it_again() {
        let findings = Findings {
            operations: vec![Row {
                kind: "puts",
                ok: 14,
                failed: 0,
                unknown: 1,
                median_micros: Some(4_100),
                longest_micros: Some(88_000),
            }],
            faults: 9,
            struck: 5,
            leaders: 3,
            checks: vec![
                Check { name: "linearizable", state: State::Right, text: "history is fine".to_owned() },
                Check { name: "replicas", state: State::Wrong, text: "they differ\nn1 a\nn2 b".to_owned() },
            ],
            verdict: "THE STORE IS WRONG".to_owned(),
            seed: 7,
            again: "synod demo --seed 7".to_owned(),
        };
        assert_eq!(
            plain().findings_text(&findings),
            "
      OK  FAILED  UNKNOWN  MEDIAN  LONGEST
puts  14       0        1  4.1 ms  88.0 ms

faults 9, 5 of them while requests were open; changes of leader 3
ok     history is fine
WRONG  they differ
       n1 a
       n2 b
THE STORE IS WRONG          again: synod demo --seed 7
"
        );
        let line = json::line(&Line::Verdict(&findings));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["event"], &line["checks"][1]["state"]), (&"verdict".into(), &"wrong".into()));
    }

    #[test]
    fn colours_are_for_terminals() {
        let colourful = Screen::new(false, false, true);
        assert_eq!(colourful.painted(Colour::Red, "x".to_owned()), "\x1b[31mx\x1b[0m");
        assert_eq!(plain().painted(Colour::Red, "x".to_owned()), "x");
    }
}
