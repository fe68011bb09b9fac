//! A write that only a bare majority has, one of whom forgets and starts first.
//!
//! This is the run in which etcd loses an acknowledged write (end of section 4 of the fault catalogue): a wiped
//! server asks its peers whether it has been somebody, and takes no answer for "no". It may then make up a majority
//! with those who were away.

use std::time::{Duration, Instant};

use synod_client::requests;
use synod_sim::{Call, ClientId, Key, Saw, Value};
use tokio::time::sleep;

use super::super::health::{Expect, WELL_WITHIN};
use super::super::plan::minority;
use super::{Field, POLL, Struck};
use crate::cluster::call::perform;
use crate::cluster::judge::Check;

/// The name of this check.
const WIPED_FIRST: &str = "wiped-first";
/// Who writes: not one of the clients.
const WITNESS: ClientId = ClientId(999);

/// Where the write goes: each time to another key, so that being there at all means something.
fn witness_key(number: usize) -> Key {
    Key(format!("witness/{number}").into_bytes())
}

impl Field<'_> {
    /// A bare majority acknowledges a write while the rest is down; the first of them forgets; all are stopped, and
    /// that one starts first, when no peer can tell it that it has been somebody. Then come those that were away.
    pub(super) async fn wiped_first(&self, number: usize, order: &[usize], lasts: Duration) -> Struck {
        let quorum = order.len() - minority(order.len());
        let (acknowledge, away) = order.split_at(quorum);
        let wiped = acknowledge[0];
        let former = self.incarnation(wiped).await?;
        for &place in away {
            self.kill(place).await?;
        }
        self.write_witness(number, acknowledge[1]).await?;
        self.kill_all().await?;
        self.forget(wiped)?;
        self.start(wiped).await?;
        sleep(lasts).await;
        let node = &self.stage.nodes[wiped];
        if let Ok(answer) = node.admin.range(requests::get(witness_key(number).0)).await {
            let found = answer.kvs.len();
            let text =
                format!("{} forgot everything, is alone, and answers a read with {found} keys", node.name);
            self.stage.breaks(Check::wrong(WIPED_FIRST, text));
        }
        // With those that were away it would be a majority that never saw the write.
        for &place in away {
            self.start(place).await?;
        }
        sleep(lasts).await;
        for &place in &acknowledge[1..] {
            self.start(place).await?;
        }
        Ok(Expect { not: Some((wiped, former)) })
    }

    /// Writes until a write is acknowledged: with servers down, that may take a new leader.
    async fn write_witness(&self, number: usize, place: usize) -> Result<(), String> {
        let deadline = Instant::now() + WELL_WITHIN;
        for serial in 1_u64.. {
            let value = Value(format!("witness.{}.{serial}", self.stage.recorder.now().0).into_bytes());
            let call = Call::Put { key: witness_key(number), value };
            let done = perform(&self.stage.recorder, &self.stage.nodes[place], WITNESS, call).await;
            match done.error {
                None => return Ok(()),
                Some(error) if Instant::now() >= deadline => {
                    return Err(format!("a bare majority writes nothing: {error}"));
                }
                Some(_) => sleep(POLL).await,
            }
        }
        Ok(())
    }

    /// Reads the write back through every server. The judges see these reads too; this one says at once what is
    /// wrong.
    pub(super) async fn witness_is_there(&self, number: usize) {
        for node in &self.stage.nodes {
            let call = Call::Get { key: witness_key(number) };
            let done = perform(&self.stage.recorder, node, WITNESS, call).await;
            match done.operation.answer().map(|answer| &answer.saw) {
                Some(Saw::Was(_)) => {}
                Some(_) => {
                    let text = format!("a write acknowledged by a bare majority is lost\n{}", done.operation);
                    self.stage.breaks(Check::wrong(WIPED_FIRST, text));
                }
                None => {
                    let error = done.error.unwrap_or_default();
                    let text = format!("cannot read the write of a bare majority on {}: {error}", node.name);
                    self.stage.breaks(Check::unknown(WIPED_FIRST, text));
                }
            }
        }
    }
}
