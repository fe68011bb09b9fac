//! The verdict: was anything lost, and do the replicas agree?
//!
//! Asked after the faults, of every replica, in four ways that trust different
//! things:
//!
//! 1. each acknowledged write is still there, at the revision it was told;
//! 2. all replicas have the same state hash after the same slot;
//! 3. the history is linearizable, trusting values and times alone;
//! 4. its revisions order all writes, field by field, and respect time.
//!
//! The history includes a last read of every key through every replica, so that
//! a write that went missing after its last ordinary read is missed now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use synod_client::ClientError;
use synod_client::requests;
use synod_client::rpc::etcdserverpb::RangeRequest;
use synod_client::rpc::synodpb::InspectResponse;
use synod_sim::linearizable::{self, Effort, Verdict};
use synod_sim::{Call, ClientId, History, Key, Operation, Revision, revisions};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::call::{entry, perform};
use super::look::takes_part;
use super::record::Recorder;
use super::{Cluster, Node};

/// How long all replicas may take to be equal once nothing is asked of them.
const EQUAL_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(25);
/// Who reads at the end: not one of the clients.
const JUDGE: ClientId = ClientId(u32::MAX);

/// One way of asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// The first line says it, the others show it.
    pub(crate) text: String,
}

/// What came of it. From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Right,
    /// It could not be found out: the run failed, which says nothing about the store.
    Unknown,
    Wrong,
}

/// One sentence for all checks.
pub(crate) fn in_a_sentence(checks: &[Check]) -> &'static str {
    match worst(checks) {
        State::Right => "nothing was lost, and all replicas agree",
        State::Unknown => "NO VERDICT: the run itself failed",
        State::Wrong => "THE STORE IS WRONG",
    }
}

pub(crate) fn worst(checks: &[Check]) -> State {
    // Nothing checked is nothing known.
    checks.iter().map(|check| check.state).max().unwrap_or(State::Unknown)
}

impl Check {
    pub(crate) fn right(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Right, text: text.into() }
    }

    pub(crate) fn wrong(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Wrong, text: text.into() }
    }

    /// Something that went wrong with the run.
    pub(crate) fn unknown(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Unknown, text: text.into() }
    }
}

/// Asks everything, once the faults have ended.
pub(crate) async fn examine(recorder: &Arc<Recorder>, cluster: &Cluster, keys: &[Key]) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = read_everything(recorder, cluster, keys).await {
        checks.push(Check::unknown("reads", format!("a last read failed: {error}")));
    }
    checks.push(match until_equal(cluster).await {
        Ok(seen) => compare_states(cluster, &seen).await,
        Err(why) => Check::unknown("replicas", why),
    });
    let history = recorder.history();
    checks.push(find_writes(&cluster.nodes, &history).await);
    // The judges compute for a while: not on a thread that serves connections.
    let judged = tokio::task::spawn_blocking(move || [linearizable(&history), revisions(&history)]).await;
    match judged {
        Ok(judged) => checks.extend(judged),
        Err(error) => checks.push(Check::unknown("judges", format!("a judge panicked: {error}"))),
    }
    checks
}

/// Reads every key through every replica, into the history.
async fn read_everything(recorder: &Arc<Recorder>, cluster: &Cluster, keys: &[Key]) -> Result<(), String> {
    let mut readers = JoinSet::new();
    for node in &cluster.nodes {
        let (recorder, node, keys) = (Arc::clone(recorder), Arc::clone(node), keys.to_vec());
        readers.spawn(async move {
            for key in keys {
                let done = perform(&recorder, &node, JUDGE, Call::Get { key }).await;
                if let Some(error) = done.error {
                    return Err(format!("{error} ({})", node.name));
                }
            }
            Ok(())
        });
    }
    let mut all = Ok(());
    while let Some(reader) = readers.join_next().await {
        all = all.and(reader.expect("reading does not panic"));
    }
    all
}

/// Waits until every replica takes full part and has applied the same slots.
async fn until_equal(cluster: &Cluster) -> Result<Vec<InspectResponse>, String> {
    let deadline = Instant::now() + EQUAL_WITHIN;
    loop {
        let looks = cluster.look().await;
        let seen: Vec<InspectResponse> = looks.iter().flatten().cloned().collect();
        let all = seen.len() == cluster.nodes.len() && seen.iter().all(takes_part);
        if all && seen.iter().all(|one| one.applied_slot == seen[0].applied_slot) {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            let places: Vec<String> = cluster
                .nodes
                .iter()
                .zip(&looks)
                .map(|(node, seen)| match seen {
                    None => format!("{} does not answer", node.name),
                    Some(seen) if !takes_part(seen) => format!("{} does not take part", node.name),
                    Some(seen) => format!("{} has applied {}", node.name, seen.applied_slot),
                })
                .collect();
            let seconds = EQUAL_WITHIN.as_secs();
            return Err(format!("the replicas are not equally far after {seconds} s: {}", places.join(", ")));
        }
        sleep(POLL).await;
    }
}

async fn compare_states(cluster: &Cluster, seen: &[InspectResponse]) -> Check {
    let slot = seen[0].applied_slot;
    let mut hashes = Vec::with_capacity(seen.len());
    for node in &cluster.nodes {
        let hash = match node.admin.state_at(slot).await {
            Ok(answer) => answer.hash,
            Err(error) => {
                return Check::unknown("replicas", format!("cannot look at {}: {error}", node.name));
            }
        };
        match hash {
            Some(hash) => hashes.push((node.name.clone(), hash)),
            None => {
                let text = format!("{} does not remember its state after slot {slot}", node.name);
                return Check::unknown("replicas", text);
            }
        }
    }
    judge_states(slot, seen[0].revision, &hashes)
}

fn judge_states(slot: u64, revision: i64, hashes: &[(String, String)]) -> Check {
    let all = hashes.len();
    match hashes.iter().all(|(_, hash)| *hash == hashes[0].1) {
        true => Check::right(
            "replicas",
            format!(
                "state after slot {slot}, revision {revision}, is identical on {all} of {all} replicas (hash {})",
                hashes[0].1
            ),
        ),
        false => {
            let each: String = hashes.iter().map(|(name, hash)| format!("\n{name} {hash}")).collect();
            Check::wrong("replicas", format!("state after slot {slot} differs between replicas{each}"))
        }
    }
}

/// How many writes are looked for at once, at each replica: a long run has some hundred thousand of them.
const SEARCHERS: usize = 16;

/// Looks for every acknowledged write at the revision it was told.
async fn find_writes(nodes: &[Arc<Node>], history: &History) -> Check {
    const NAME: &str = "writes";
    let writes = history.operations().iter().filter(|operation| operation.made_revision());
    let writes: Arc<[Operation]> = writes.cloned().collect();
    let searchers = nodes.len() * SEARCHERS;
    let mut search = JoinSet::new();
    for first in 0..searchers {
        let (node, writes) = (Arc::clone(&nodes[first % nodes.len()]), Arc::clone(&writes));
        search.spawn(async move {
            for write in writes.iter().skip(first).step_by(searchers) {
                match is_there(&node, write).await {
                    Ok(true) => {}
                    Ok(false) => {
                        let text = format!("an acknowledged write is missing on {}\n{write}", node.name);
                        return Some(Check::wrong(NAME, text));
                    }
                    Err(error) => {
                        let text = format!("cannot look for a write on {}: {error}", node.name);
                        return Some(Check::unknown(NAME, text));
                    }
                }
            }
            None
        });
    }
    let mut worst: Option<Check> = None;
    while let Some(found) = search.join_next().await {
        let found = found.expect("searching does not panic");
        worst = [worst, found].into_iter().flatten().max_by_key(|check| check.state);
    }
    worst.unwrap_or_else(|| {
        Check::right(NAME, format!("{} acknowledged writes are all there, at their revisions", writes.len()))
    })
}

async fn is_there(node: &Node, write: &Operation) -> Result<bool, ClientError> {
    let Some(told) = write.answer().map(|answer| answer.revision) else { return Ok(true) };
    let at = async |revision: Revision| {
        let key = write.call.key().0.clone();
        // No client can have asked for a revision beyond etcd's 63 bits.
        let revision = i64::try_from(revision.0).unwrap_or(i64::MAX);
        let found = node.replica.range(RangeRequest { revision, ..requests::get(key) }).await?;
        Ok::<_, ClientError>(found.kvs.first().map(entry))
    };
    Ok(match &write.call {
        Call::Put { value, .. } => {
            at(told).await?.is_some_and(|found| found.value == *value && found.modified == told)
        }
        Call::Delete { .. } => at(told).await?.is_none() && at(Revision(told.0 - 1)).await?.is_some(),
        Call::Get { .. } => true,
    })
}

fn linearizable(history: &History) -> Check {
    const NAME: &str = "linearizable";
    let count = history.operations().len();
    match linearizable::check(history, Effort::default()) {
        Verdict::Linearizable => Check::right(NAME, format!("history of {count} operations is linearizable")),
        Verdict::Contradiction(contradiction) => {
            Check::wrong(NAME, format!("the history is not linearizable\n{contradiction}"))
        }
        Verdict::Undecided { key, .. } => {
            Check::unknown(NAME, format!("the search for an order of what happened to {key} took too long"))
        }
    }
}

fn revisions(history: &History) -> Check {
    const NAME: &str = "revisions";
    match revisions::check(history, Revision::NEW_STORE) {
        Ok(order) => {
            let fate = match (order.found, order.unresolved) {
                (0, 0) => String::new(),
                (found, unseen) => {
                    format!(" (of unknown outcome: {found} took effect, {unseen} left no trace)")
                }
            };
            Check::right(NAME, format!("revisions put {} writes into one order{fate}", order.writes))
        }
        Err(violation) => Check::wrong(NAME, format!("revisions and answers disagree\n{violation}")),
    }
}

/// One key's operations, for tests.
#[cfg(test)]
pub(crate) mod stories {
    use synod_sim::{Answer, Call, ClientId, Moment, Operation, Outcome, Revision, Saw};

    pub(crate) fn operation(invoked: u64, call: Call, outcome: Outcome) -> Operation {
        Operation { client: ClientId(1), via: None, invoked: Moment(invoked), call, outcome }
    }

    pub(crate) fn answered(returned: u64, revision: u64, saw: Saw) -> Outcome {
        Outcome::Answered(Answer { returned: Moment(returned), revision: Revision(revision), saw })
    }

    pub(crate) fn put() -> Call {
        Call::Put { key: "a".into(), value: "1".into() }
    }

    pub(crate) fn get() -> Call {
        Call::Get { key: "a".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::stories::{answered, get, operation, put};
    use super::*;
    use synod_sim::{Outcome, Saw};

    #[test]
    fn the_worst_check_decides() {
        let right = Check::right("a", "");
        let unknown = Check::unknown("b", "");
        let wrong = Check::wrong("c", "");
        assert_eq!(worst(&[]), State::Unknown);
        assert_eq!(worst(std::slice::from_ref(&right)), State::Right);
        assert_eq!(worst(&[right.clone(), unknown.clone()]), State::Unknown);
        assert_eq!(worst(&[wrong, unknown, right]), State::Wrong);
    }

    #[test]
    fn a_lost_write_fails_both_judges() {
        let history = History::from_operations([
            operation(0, put(), answered(5, 2, Saw::Absent)),
            operation(6, get(), answered(9, 2, Saw::Absent)),
        ])
        .unwrap();
        for check in [linearizable(&history), revisions(&history)] {
            assert_eq!(check.state, State::Wrong, "{}", check.text);
            assert!(check.text.contains("get a -> (no such key)"), "{}", check.text);
        }
    }

    #[test]
    fn an_honest_history_passes_both_judges() {
        let history = History::from_operations([
            operation(0, put(), answered(5, 2, Saw::Absent)),
            operation(0, put(), Outcome::Unknown),
            operation(0, get(), answered(9, 1, Saw::Absent)),
        ])
        .unwrap();
        assert_eq!(linearizable(&history).text, "history of 3 operations is linearizable");
        assert_eq!(
            revisions(&history).text,
            "revisions put 1 writes into one order (of unknown outcome: 0 took effect, 1 left no trace)"
        );
    }

    #[test]
    fn replicas_that_differ_are_shown() {
        let hashes = |last: &str| [("n1".to_owned(), "aa".to_owned()), ("n2".to_owned(), last.to_owned())];
        let check = judge_states(9, 4, &hashes("aa"));
        assert_eq!(check.state, State::Right);
        assert_eq!(check.text, "state after slot 9, revision 4, is identical on 2 of 2 replicas (hash aa)");
        let check = judge_states(9, 4, &hashes("ab"));
        assert_eq!(check.state, State::Wrong);
        assert!(check.text.ends_with("\nn1 aa\nn2 ab"), "{}", check.text);
    }
}
