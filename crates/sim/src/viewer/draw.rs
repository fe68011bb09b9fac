//! Puts rows on the page.

use super::filter::{Filter, is_routine};
use super::flights::{self, Head, Row};
use super::lanes::{Lane, Lanes, State};
use super::repeats::{self, Line};
use super::{Diagram, words};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;
use synod_paxos::types::Slot;
use synod_server::trace::{Event, Message, What};

/// The names of the lanes are repeated after so many lines.
const HEADER_EVERY: usize = 40;

/// Texts get at least so many columns, however narrow the page.
const TEXT_MIN: usize = 30;

/// Delays below this are not told, in microseconds.
const DELAY_TOLD: u64 = 1_000;

/// The width of a time: a quarter of an hour in milliseconds, with three decimals.
const TIME: usize = 11;

const LEGEND: &str = "\
● says  ▶ hears  x lost  ◌ still on its way  ○ it arrives   ║ leads  │ follows  ┊ not recorded
■ on disk  ◆ applied  ★ leads  ☆ no longer  △ role begins  ▽ ends  » client asks  « is told  ! fault
";

/// ANSI colours, of a whole line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colour {
    None,
    Dim,
    Red,
    Green,
    Yellow,
    Magenta,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::None => "",
            Colour::Dim => "\x1b[2m",
            Colour::Red => "\x1b[31m",
            Colour::Green => "\x1b[32m",
            Colour::Yellow => "\x1b[33m",
            Colour::Magenta => "\x1b[35m",
        }
    }
}

/// What is needed to draw a line.
struct Page<'a> {
    lanes: &'a Lanes,
    /// Columns from one lane to the next.
    step: usize,
    text_width: usize,
    /// The one slot of interest, if there is one.
    slot: Option<Slot>,
    colour: bool,
}

impl Display for Diagram {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Diagram { events, lanes, options } = self;
        let Some(first) = events.first() else { return writeln!(f, "nothing happened") };
        let mut rows = flights::rows(events, lanes, &mut Filter::new(options, lanes));
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let shown = options.from.map_or(0, micros)..=options.to.map_or(u64::MAX, micros);
        rows.retain(|&place, _| shown.contains(&(events[place].at - first.at)));
        let once = |(place, row)| Line { place, row, again: None };
        let mut lines = if options.all { rows.into_iter().map(once).collect() } else { repeats::fold(rows) };
        if let Some(last) = options.last {
            lines.drain(..lines.len().saturating_sub(last));
        }
        let page = Page::new(self);
        page.write(f, LEGEND.trim_end(), Colour::Dim)?;
        page.lines(f, events, &lines)?;
        self.footer(f, &page, lines.is_empty())
    }
}

impl Diagram {
    /// What is left to say below the picture.
    fn footer(&self, f: &mut Formatter<'_>, page: &Page<'_>, empty: bool) -> fmt::Result {
        if empty {
            writeln!(f, "nothing that was asked for happened")?;
        }
        let routine =
            |event: &&Event| matches!(&event.what, What::Sent { message, .. } if is_routine(message));
        let hidden = if self.options.all { 0 } else { self.events.iter().filter(routine).count() };
        if hidden > 0 {
            page.write(f, &format!("heartbeats and progress reports, not shown: {hidden}"), Colour::Dim)?;
        }
        let start = self.events.first().map_or(0, |event| event.at);
        for event in &self.events {
            if let What::Broken { invariant, clause, why } = &event.what {
                let title = format!("BROKEN at {} ms: {invariant} ({clause})", time(event.at - start));
                page.boxed(f, &title, why, self.options.width)?;
            }
        }
        Ok(())
    }
}

impl<'a> Page<'a> {
    fn new(diagram: &'a Diagram) -> Page<'a> {
        let lanes = &diagram.lanes;
        let count = lanes.names().count();
        let longest = lanes.names().map(|name| name.chars().count()).max().unwrap_or(0);
        let step = if count > 5 { 6 } else { 8 }.max(longest + 2);
        let before_text = TIME + 2 + count.saturating_sub(1) * step + 1 + 2;
        let text_width = diagram.options.width.saturating_sub(before_text).max(TEXT_MIN);
        Page { lanes, step, text_width, slot: diagram.options.slot, colour: diagram.options.colour }
    }

    fn lines(&self, f: &mut Formatter<'_>, events: &[Event], lines: &[Line<'_>]) -> fmt::Result {
        let start = events.first().map_or(0, |event| event.at);
        let mut states = self.lanes.beginning();
        let mut passed = 0;
        for (count, Line { place, row, again }) in lines.iter().enumerate() {
            if count % HEADER_EVERY == 0 {
                self.header(f)?;
            }
            // Lanes change also where nothing is shown.
            for event in &events[passed..*place] {
                self.pass(&mut states, event);
            }
            passed = *place;
            let mut more = String::new();
            if matches!(events[*place].what, What::Duplicated { .. }) {
                more.push_str("  a copy");
            }
            if let Some((times, last)) = again {
                more.push_str(&format!("  {times} times until {}", time(events[*last].at - start)));
            }
            self.row(f, &time(events[*place].at - start), &states, row, &more)?;
        }
        Ok(())
    }

    fn pass(&self, states: &mut [State], event: &Event) {
        if let Some(lane) = self.lanes.of_event(event) {
            states[lane.0] = Lanes::after(states[lane.0], &event.what);
        }
    }

    fn header(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut names = String::new();
        for (lane, name) in self.lanes.names().enumerate() {
            let column = lane * self.step;
            names.push_str(&" ".repeat(column.saturating_sub(names.chars().count())));
            names.push_str(name);
        }
        self.write(f, &format!("{:>TIME$}  {names}", "ms"), Colour::Dim)
    }

    fn row(
        &self,
        f: &mut Formatter<'_>,
        time: &str,
        states: &[State],
        row: &Row<'_>,
        more: &str,
    ) -> fmt::Result {
        let mut art = self.lifelines(states);
        let (text, colour) = match row {
            Row::Mark(event) => {
                let (glyph, text) = words::event(&event.what, self.slot);
                if let Some(lane) = self.lanes.of_event(event) {
                    art[lane.0 * self.step] = glyph;
                }
                (self.told_of(event, text), colour_of(&event.what))
            }
            Row::Arrow { from, heads, message } => {
                self.arrow(&mut art, *from, heads);
                let lost = heads.iter().any(|(_, head)| *head == Head::Lost);
                let colour = if lost { Colour::Red } else { colour_of_message(message) };
                (format!("{}{}", words::message(message, self.slot), self.delays(heads)), colour)
            }
            Row::Late { from, to, message, took } => {
                self.line(&mut art, *from, *to, '┄');
                art[from.0 * self.step] = '○';
                art[to.0 * self.step] = head_towards(*from, *to);
                let when = match took {
                    Some(took) => format!("  sent {} ms before", self::time(*took)),
                    None => "  nobody recorded when it was sent".into(),
                };
                (format!("{}{when}", words::message(message, self.slot)), colour_of_message(message))
            }
        };
        let mut lines = wrapped(&(text + more), self.text_width).into_iter();
        let art: String = art.into_iter().collect();
        let text = lines.next().unwrap_or_default();
        self.write(f, &format!("{time:>TIME$}  {art}  {text}"), colour)?;
        for line in lines {
            let art: String = self.lifelines(states).into_iter().collect();
            self.write(f, &format!("{:TIME$}  {art}    {line}", ""), colour)?;
        }
        Ok(())
    }

    /// Whose mark it is, where the lane does not say it.
    fn told_of(&self, event: &Event, text: String) -> String {
        match (&event.place, &event.what) {
            (Some(place), What::Fault { .. } | What::DiskFailed { .. } | What::Broken { .. }) => {
                format!("{text} [{}]", place.name)
            }
            _ => text,
        }
    }

    fn lifelines(&self, states: &[State]) -> Vec<char> {
        let mut art = vec![' '; states.len().saturating_sub(1) * self.step + 1];
        for (lane, state) in states.iter().enumerate() {
            art[lane * self.step] = match state {
                State::Unknown => '┊',
                State::Up => '│',
                State::Leads => '║',
                State::Down => ' ',
            };
        }
        art
    }

    fn arrow(&self, art: &mut [char], from: Lane, heads: &[(Lane, Head)]) {
        for (to, _) in heads {
            self.line(art, from, *to, '─');
        }
        for (to, head) in heads {
            art[to.0 * self.step] = match head {
                Head::Arrives { .. } => head_towards(from, *to),
                Head::Lost => 'x',
                Head::OnItsWay => '◌',
                Head::Unknown if from < *to => '▷',
                Head::Unknown => '◁',
            };
        }
        art[from.0 * self.step] = '●';
    }

    /// A line from lane to lane; those between are crossed.
    fn line(&self, art: &mut [char], from: Lane, to: Lane, stroke: char) {
        let (left, right) = (from.0.min(to.0) * self.step, from.0.max(to.0) * self.step);
        for cell in &mut art[left..=right] {
            *cell = match *cell {
                '│' | '┼' => '┼',
                '║' | '╫' => '╫',
                '┊' => '┊',
                _ => stroke,
            };
        }
    }

    /// What took long enough to be told.
    fn delays(&self, heads: &[(Lane, Head)]) -> String {
        let told: Vec<String> = heads
            .iter()
            .filter_map(|(to, head)| match head {
                Head::Arrives { took } if *took >= DELAY_TOLD => Some((to, time(*took))),
                _ => None,
            })
            .map(|(to, took)| match heads.len() {
                1 => format!("after {took} ms"),
                _ => format!("{} after {took} ms", self.lanes.name(*to)),
            })
            .collect();
        if told.is_empty() { String::new() } else { format!("  {}", told.join(", ")) }
    }

    fn boxed(&self, f: &mut Formatter<'_>, title: &str, text: &str, width: usize) -> fmt::Result {
        let inner = width.saturating_sub(4).max(TEXT_MIN);
        let mut lines = wrapped(title, inner);
        lines.extend(text.lines().flat_map(|line| wrapped(line, inner)));
        let inner = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let edge = "═".repeat(inner + 2);
        self.write(f, &format!("╔{edge}╗"), Colour::Red)?;
        for line in lines {
            self.write(f, &format!("║ {line:inner$} ║"), Colour::Red)?;
        }
        self.write(f, &format!("╚{edge}╝"), Colour::Red)
    }

    fn write(&self, f: &mut Formatter<'_>, line: &str, colour: Colour) -> fmt::Result {
        let line = line.trim_end();
        if self.colour && colour != Colour::None {
            writeln!(f, "{}{line}\x1b[0m", colour.code())
        } else {
            writeln!(f, "{line}")
        }
    }
}

fn head_towards(from: Lane, to: Lane) -> char {
    if from < to { '▶' } else { '◀' }
}

/// Microseconds as milliseconds with three decimals.
fn time(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

fn colour_of(what: &What) -> Colour {
    match what {
        What::Fault { healed: false, .. }
        | What::DiskFailed { .. }
        | What::Broken { .. }
        | What::Process { up: false, .. }
        | What::Dropped { .. }
        | What::Role { up: false, .. } => Colour::Red,
        What::Leads { .. } => Colour::Yellow,
        What::Applied { .. } | What::Answered { .. } => Colour::Green,
        _ => Colour::None,
    }
}

/// Phase 1 stands out: in the steady state there is none.
fn colour_of_message(message: &Message) -> Colour {
    match message {
        Message::Prepare { .. } | Message::Promise { .. } | Message::Refused { .. } => Colour::Magenta,
        _ => Colour::None,
    }
}

/// Breaks a text at spaces into lines of at most `width` characters; words that are longer are cut.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.replace('\n', " ").split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let Some(line) = lines.last_mut() else { break };
        if used > 0 && used + 1 + word.len() <= width {
            line.push(' ');
            line.extend(&word);
            used += 1 + word.len();
            continue;
        }
        if used > 0 {
            lines.push(String::new());
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.last_mut().into_iter().for_each(|line| line.extend(&word));
            lines.push(String::new());
            word = rest;
        }
        used = word.len();
        lines.last_mut().into_iter().for_each(|line| line.extend(&word));
    }
    lines
}
