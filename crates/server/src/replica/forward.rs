//! Telling the leader what clients want, from the clients' own threads.
//!
//! The core would have to be woken for it, and adds nothing: the desk knows who leads and what it was not told. So
//! whoever takes something in sends it on. But calls come in bunches, and each alone would make a message: so the
//! first lets all others go first that are ready, and then one message says everything.

use super::shared::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use synod_paxos::message::Outgoing;

/// Is somebody about to tell the leader?
#[derive(Debug, Default)]
pub(crate) struct Forwarding(AtomicBool);

/// Whoever does so, does it when this is dropped: also if its own client gives up before.
struct Turn<'a>(&'a Shared);

impl Shared {
    /// Has what was taken in told to the leader, if another replica leads. Otherwise it is the core's.
    pub(crate) async fn forward(&self) {
        if !self.forwarding.0.swap(true, Ordering::AcqRel) {
            let _turn = Turn(self);
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        // First: what is taken in from here on may come too late for this turn, and needs another.
        shared.forwarding.0.store(false, Ordering::Release);
        let mut desk = shared.desk();
        if desk.front.leader() == Some(shared.node) {
            drop(desk);
            return shared.core.wake();
        }
        let told = desk.front.flush();
        drop(desk);
        shared.send_all(told.into_iter().map(|(to, message)| Outgoing { to, message }).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::Home;
    use super::super::host::{Arrived, Heard, Host, Links};
    use super::super::system::System;
    use super::super::{LinkFault, Place, ProtocolLimits, ReplicaConfig};
    use super::*;
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Waker};
    use std::time::Duration;
    use synod_paxos::election;
    use synod_paxos::formation::{FormationMessage, Founder, Plan};
    use synod_paxos::message::Message;
    use synod_paxos::types::{Ballot, ClusterId, Generation, NodeId, Window};
    use synod_paxos::value::Action;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    /// How many commands each message held, and to whom it went.
    #[derive(Default)]
    struct Sent(Mutex<Vec<(NodeId, usize)>>);

    impl Links for Sent {
        fn send(&self, to: &[NodeId], message: &Message) {
            let Message::Submit { commands } = message else { panic!("{message:?}") };
            self.0.lock().unwrap().extend(to.iter().map(|&to| (to, commands.len())));
        }

        fn set_peers(&self, _: BTreeMap<NodeId, Vec<String>>) {}
        fn set_cluster(&self, _: ClusterId) {}
        fn health(&self, _: NodeId) -> (bool, Option<Duration>) {
            (true, None)
        }
        fn disturb(&self, _: NodeId, _: Option<LinkFault>) {}
        fn form(&self, _: NodeId, _: FormationMessage, _: Heard) {}
        fn fetch(&self, _: NodeId, _: Arrived) {}
    }

    fn replica() -> (Shared, Arc<Sent>) {
        let founder = Founder { name: "n1".into(), peer_urls: vec!["http://h1".into()] };
        let config = ReplicaConfig {
            name: "n1".into(),
            node: ME,
            place: Place::Memory,
            plan: Plan::new(Window::new(4), [(ME, founder)]),
            client_urls: Vec::new(),
            peer_addrs: Vec::new(),
            allow_faults: false,
            patience: election::Options::default(),
            request_timeout: Duration::from_secs(1),
            checkpoint_bytes: 4096,
            segment_bytes: 4096,
            limits: ProtocolLimits::default(),
        };
        let host: Arc<dyn Host> = Arc::new(System::new(None));
        let home =
            Home::open(&config.place, &config.name, ME, config.segment_bytes, Arc::clone(&host)).unwrap();
        let shared = Shared::new(config, home, host);
        let sent = Arc::new(Sent::default());
        assert!(shared.links.set(sent.clone()).is_ok());
        (shared, sent)
    }

    fn leads(shared: &Shared, node: NodeId) {
        shared.desk().front.on_leader(Ballot { round: 1, node, generation: Generation(1) });
    }

    /// A command, and one look at who brings it.
    fn bring(shared: &Shared) -> impl Future<Output = ()> {
        shared.desk().submit(Action::App(vec![1].into()), None, shared.now()).unwrap();
        shared.forward()
    }

    fn is_done(future: std::pin::Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_comes_first_waits_for_the_others_and_says_everything() {
        let (shared, sent) = replica();
        leads(&shared, OTHER);
        let mut first = pin!(bring(&shared));
        assert!(!is_done(first.as_mut()));
        assert!(is_done(pin!(bring(&shared))) && is_done(pin!(bring(&shared))), "the first speaks for them");
        assert_eq!(*sent.0.lock().unwrap(), []);
        assert!(is_done(first));
        assert_eq!(*sent.0.lock().unwrap(), [(OTHER, 3)]);
        assert!(!shared.core.is_ready(), "nothing for the core to do");
    }

    #[test]
    fn who_gives_up_has_spoken_all_the_same() {
        let (shared, sent) = replica();
        leads(&shared, OTHER);
        {
            let mut first = pin!(bring(&shared));
            assert!(!is_done(first.as_mut()));
            assert!(is_done(pin!(bring(&shared))));
        }
        assert_eq!(*sent.0.lock().unwrap(), [(OTHER, 2)]);
        assert!(!is_done(pin!(bring(&shared))), "the next takes a turn of its own");
        assert_eq!(*sent.0.lock().unwrap(), [(OTHER, 2), (OTHER, 1)]);
    }

    #[test]
    fn a_leaders_own_commands_are_for_its_core() {
        let (shared, sent) = replica();
        leads(&shared, ME);
        let mut first = pin!(bring(&shared));
        assert!(!is_done(first.as_mut()) && is_done(first));
        assert!(shared.core.is_ready());
        assert_eq!(*sent.0.lock().unwrap(), []);
        assert_eq!(shared.desk().front.flush().len(), 1, "still to be told");
    }
}
