//! What is said again and again takes one line.
//!
//! The protocol repeats whatever is not answered, so a replica that is gone is told the same thing ten times a
//! second. The first line says so; the others are left out until something happens that changes who is there.
//! And what is said to several replicas one after the other leaves together.

use super::flights::{Head, Row};
use super::lanes::Lane;
use std::collections::{BTreeMap, HashMap};
use synod_server::trace::{Message, What};

/// A line of the picture.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The place of its event.
    pub(super) place: usize,
    pub(super) row: Row<'a>,
    /// How often the same was said, and the place of the last time; none for what happened once.
    pub(super) again: Option<(usize, usize)>,
}

/// Two messages that look alike on the page.
#[derive(PartialEq, Eq, Hash)]
struct Look<'a> {
    from: Lane,
    /// Where it ends, and whether it arrives there.
    ends: Vec<(Lane, bool)>,
    message: &'a Message,
}

/// Puts repetitions into the lines of what they repeat: those of messages that did not arrive wherever they
/// are, others only where one follows the other.
pub(super) fn fold<'a>(rows: BTreeMap<usize, Row<'a>>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::with_capacity(rows.len());
    let mut in_vain: HashMap<Look<'a>, usize> = HashMap::new();
    for (place, row) in rows {
        let Some(row) = join(lines.last_mut(), row) else {
            let joined = lines.len() - 1;
            in_vain.retain(|_, line| *line != joined); // it looks otherwise now
            continue;
        };
        let first = match &row {
            Row::Mark(event) => {
                if matches!(event.what, What::Process { .. } | What::Fault { .. } | What::Leads { .. }) {
                    in_vain.clear();
                }
                None
            }
            Row::Arrow { .. } | Row::Late { .. } => {
                let look = look(&row);
                if lines.last().is_some_and(|line| look.is_some() && self::look(&line.row) == look) {
                    Some(lines.len() - 1)
                } else {
                    look.filter(|look| look.ends.iter().all(|(_, arrives)| !arrives)).and_then(|look| {
                        let here = lines.len();
                        let first = *in_vain.entry(look).or_insert(here);
                        (first != here).then_some(first)
                    })
                }
            }
        };
        match first {
            Some(first) => {
                let (times, _) = lines[first].again.unwrap_or((1, place));
                lines[first].again = Some((times + 1, place));
            }
            None => lines.push(Line { place, row, again: None }),
        }
    }
    lines
}

/// Lets a message leave with the line before, if that is the same one to somebody else; returns the row if not.
fn join<'a>(before: Option<&mut Line<'a>>, row: Row<'a>) -> Option<Row<'a>> {
    if let Some(Line { row: Row::Arrow { from, heads, message }, again: None, .. }) = before
        && let Row::Arrow { from: too, heads: more, message: same } = &row
        && from == too
        && message == same
        && more.iter().all(|(to, _)| heads.iter().all(|(known, _)| known != to))
    {
        heads.extend(more);
        return None;
    }
    Some(row)
}

fn look<'a>(row: &Row<'a>) -> Option<Look<'a>> {
    match row {
        Row::Mark(_) => None,
        Row::Arrow { from, heads, message } => {
            let ends = heads.iter().map(|(to, head)| (*to, matches!(head, Head::Arrives { .. }))).collect();
            Some(Look { from: *from, ends, message })
        }
        Row::Late { from, to, message, .. } => Some(Look { from: *from, ends: vec![(*to, true)], message }),
    }
}
