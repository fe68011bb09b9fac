//! What peers bring, and what they may ask for beside the protocol's messages.

use super::checkpoint::{PIECE_BYTES, Snapshot};
use super::forming::Forming;
use super::learner;
use super::shared::Shared;
use super::{CoreInput, State};
use crate::peers::{CheckpointSource, CheckpointStream, FormationAnswers, FormationHandler, Inbox};
use std::io;
use std::sync::Arc;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::Message;
use synod_paxos::types::NodeId;

/// The core's side of the links.
pub(crate) struct Doorman {
    pub(crate) shared: Arc<Shared>,
    pub(crate) forming: Forming,
}

impl Inbox for Doorman {
    fn deliver(&self, from: NodeId, messages: Vec<Message>) {
        self.shared.core.offer(CoreInput::Peer { from, messages });
    }

    fn connected(&self, node: NodeId) {
        self.shared.core.push(CoreInput::Connected(node));
    }

    fn disconnected(&self, node: NodeId) {
        self.shared.core.push(CoreInput::Disconnected(node));
    }
}

impl CheckpointSource for Doorman {
    /// The state as it is applied: newer than any file, and as safe to give away, because what is applied is
    /// chosen.
    fn open(&self) -> io::Result<Option<CheckpointStream>> {
        Ok(Snapshot::take(&self.shared).map(|snapshot| CheckpointStream {
            covered: snapshot.covered,
            state: snapshot.machine,
            blocks: Box::new(snapshot.store.chunks(PIECE_BYTES).map(|piece| piece.map_err(io::Error::other))),
        }))
    }
}

impl FormationHandler for Doorman {
    fn hear(&self, message: FormationMessage) -> FormationAnswers {
        let (forming, shared) = (self.forming.clone(), Arc::clone(&self.shared));
        // Formation writes to disk a few times in a cluster's life; off the core's thread all the same.
        let heard = tokio::task::spawn_blocking(move || forming.on_asked(&shared, message));
        Box::pin(async move { heard.await.unwrap_or_default() })
    }
}

/// Gets a checkpoint from `from` for the learner, in the background.
pub(crate) fn fetch_checkpoint(shared: &Arc<Shared>, from: NodeId) {
    let Some(links) = shared.links.get() else { return };
    let shared = Arc::clone(shared);
    let arrived = move |state: Result<State, String>| {
        let name = shared.config.plan_name(from);
        let state = match state {
            Ok(state) => {
                let applied = state.machine.applied();
                shared.event("checkpoint", format!("took the checkpoint of {name}, slots {applied}"));
                Some(Box::new(state))
            }
            Err(error) => {
                tracing::warn!(peer = name, error, "no checkpoint could be had");
                None
            }
        };
        shared.tell_learner_surely(learner::Input::Arrived(state));
    };
    links.fetch(from, Box::new(arrived));
}
