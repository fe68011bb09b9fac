//! How an acceptor's records look in the log, and what all of them together amount to.

use bytes::{BufMut, Bytes};
use synod_paxos::acceptor::Record;
use synod_paxos::message::Chosen;
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{Ballot, Generation, NodeId, Prefix, Slot};
use synod_paxos::value::Value;
use synod_paxos::wire::{DecodeError, Reader};

const PROMISED: u8 = 1;
const ACCEPTED: u8 = 2;
const TRIMMED: u8 = 3;
const CHOSEN: u8 = 4;

const BALLOT_BYTES: usize = 24;

/// Appends `record`: its length in four bytes, its type in one, its fields.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    let len = 1 + match record {
        Record::Promised { .. } => BALLOT_BYTES,
        Record::Accepted { value, .. } => BALLOT_BYTES + 8 + 4 + value.len(),
        Record::Trimmed { .. } => 8,
        Record::Chosen(_) => BALLOT_BYTES + 16,
    };
    out.put_u32_le(u32::try_from(len).expect("the log refuses longer values"));
    match record {
        Record::Promised { ballot } => {
            out.put_u8(PROMISED);
            encode_ballot(*ballot, out);
        }
        Record::Accepted { ballot, slot, value } => {
            out.put_u8(ACCEPTED);
            encode_ballot(*ballot, out);
            out.put_u64_le(slot.0);
            out.put_u32_le(u32::try_from(value.len()).expect("the log refuses longer values"));
            out.put_slice(value.encoded());
        }
        Record::Trimmed { upto } => {
            out.put_u8(TRIMMED);
            out.put_u64_le(upto.0);
        }
        Record::Chosen(Chosen { ballot, from, upto }) => {
            out.put_u8(CHOSEN);
            encode_ballot(*ballot, out);
            out.put_u64_le(from.0);
            out.put_u64_le(upto.0);
        }
    }
}

/// Reads `count` records that fill `bytes`. Values are slices of it.
///
/// # Errors
/// When the bytes are anything else.
pub(crate) fn decode(bytes: Bytes, count: u32) -> Result<Vec<Record>, DecodeError> {
    let mut input = Reader::new(bytes);
    let records = (0..count)
        .map(|_| {
            let mut record = Reader::new(input.bytes()?);
            let decoded = decode_one(&mut record)?;
            record.end()?;
            Ok(decoded)
        })
        .collect::<Result<_, DecodeError>>()?;
    input.end()?;
    Ok(records)
}

fn decode_one(input: &mut Reader) -> Result<Record, DecodeError> {
    Ok(match input.u8()? {
        PROMISED => Record::Promised { ballot: decode_ballot(input)? },
        ACCEPTED => Record::Accepted {
            ballot: decode_ballot(input)?,
            slot: Slot(input.u64()?),
            value: Value::from_encoded(input.bytes()?),
        },
        TRIMMED => Record::Trimmed { upto: Prefix(input.u64()?) },
        CHOSEN => Record::Chosen(Chosen {
            ballot: decode_ballot(input)?,
            from: Slot(input.u64()?),
            upto: Prefix(input.u64()?),
        }),
        tag => return Err(DecodeError::Unknown { what: "type of record", tag }),
    })
}

fn encode_ballot(ballot: Ballot, out: &mut Vec<u8>) {
    out.put_u64_le(ballot.round);
    out.put_u64_le(ballot.node.0);
    out.put_u64_le(ballot.generation.0);
}

fn decode_ballot(input: &mut Reader) -> Result<Ballot, DecodeError> {
    let round = input.u64()?;
    let node = NodeId(input.u64()?);
    Ok(Ballot { round, node, generation: Generation(input.u64()?) })
}

/// What all records written so far say apart from the acceptances: the same as
/// [`Acceptor::summary`](synod_paxos::acceptor::Acceptor::summary) of the acceptor that they restore. The log
/// keeps its own, so that nobody can hand it one that is older than the segments it is about to drop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    promised: Option<Ballot>,
    pub(crate) trimmed: Prefix,
    chosen: Option<Chosen>,
}

impl Summary {
    /// Takes `record` into account.
    pub(crate) fn note(&mut self, record: &Record) {
        match *record {
            // Accepting is promising (PMS-11).
            Record::Promised { ballot } | Record::Accepted { ballot, .. } => {
                self.promised = self.promised.max(Some(ballot));
            }
            Record::Trimmed { upto } => self.trimmed = self.trimmed.max(upto),
            Record::Chosen(chosen) => self.chosen = Some(chosen),
        }
    }

    /// As records, for the head of a segment.
    pub(crate) fn records(&self) -> Vec<Record> {
        let promised = self.promised.filter(|_| !is(Mutant::SummaryForgetsPromise));
        let promised = promised.map(|ballot| Record::Promised { ballot });
        let trimmed = (self.trimmed != Prefix::EMPTY).then_some(Record::Trimmed { upto: self.trimmed });
        promised.into_iter().chain(trimmed).chain(self.chosen.map(Record::Chosen)).collect()
    }
}

/// The highest slot accepted among `records`.
pub(crate) fn highest_slot(records: &[Record]) -> Option<Slot> {
    records
        .iter()
        .filter_map(|record| match record {
            Record::Accepted { slot, .. } => Some(*slot),
            _ => None,
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use synod_paxos::acceptor::{Acceptor, Limits};
    use synod_paxos::types::{Incarnation, VoterId};

    fn ballots() -> impl Strategy<Value = Ballot> {
        (0..9u64, 1..4u64, 0..3u64).prop_map(|(round, node, generation)| Ballot {
            round,
            node: NodeId(node),
            generation: Generation(generation),
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            ballots().prop_map(|ballot| Record::Promised { ballot }),
            (ballots(), 1..30u64, bytes).prop_map(|(ballot, slot, bytes)| Record::Accepted {
                ballot,
                slot: Slot(slot),
                value: Value::from_encoded(bytes.into()),
            }),
            (1..30u64).prop_map(|upto| Record::Trimmed { upto: Prefix(upto) }),
            (ballots(), 1..30u64, 0..30u64).prop_map(|(ballot, from, upto)| {
                Record::Chosen(Chosen { ballot, from: Slot(from), upto: Prefix(upto) })
            }),
        ]
    }

    proptest! {
        #[test]
        fn records_survive_their_encoding(records in proptest::collection::vec(records(), 0..8)) {
            let mut out = Vec::new();
            records.iter().for_each(|record| encode(record, &mut out));
            let count = records.len() as u32;
            prop_assert_eq!(decode(out.clone().into(), count).unwrap(), records);
            prop_assert!(decode(out.clone().into(), count + 1).is_err());
            if let Some(short) = out.len().checked_sub(1) {
                prop_assert!(decode(out[..short].to_vec().into(), count).is_err());
            }
        }

        #[test]
        fn pms_16_the_summary_is_the_acceptors(records in proptest::collection::vec(records(), 0..30)) {
            let mut summary = Summary::default();
            records.iter().for_each(|record| summary.note(record));
            let id = VoterId { node: NodeId(1), incarnation: Incarnation(1) };
            prop_assert_eq!(summary.records(), Acceptor::restore(id, Limits::default(), records).summary());
        }
    }
}
