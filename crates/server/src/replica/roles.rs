//! The supervisor: starts roles, notices when one ends, starts it again, and makes one fail on purpose.
//!
//! Each life of a role has a number, so that a word from a life that is over is not taken for one of the
//! present. A role begins its next life only after the last one's thread has ended: two lives never share a
//! file.

use super::acceptor::AcceptorRole;
use super::faults::{Memory, RandomFaults, RoleFault};
use super::learner::LearnerLife;
use super::mailbox::Mailbox;
use super::shared::{Board, Shared};
use super::status::{Role, RoleState, RoleStatus};
use super::{CoreInput, Observation};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use synod_paxos::types::{Time, VoterId};

/// How many bytes of messages a role's mailbox holds before more are lost: also the most that one group of the
/// log becomes.
const MAILBOX: usize = 64 << 20;

/// How long a role that failed by itself rests before its next life; doubles up to the second figure.
const REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A life that lasted this long is not held against the next.
const GOOD_LIFE: Duration = Duration::from_secs(20);

/// Where a role is.
#[derive(Debug)]
struct Post {
    life: u64,
    /// The thread of this life runs (also while it was told to stop and has not ended yet).
    threaded: bool,
    state: RoleState,
    up: bool,
    restart: Option<Time>,
    memory: Memory,
    restarts: u64,
    rest: Duration,
    began: Time,
}

/// All roles of one replica.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    posts: BTreeMap<Role, Post>,
    random: Option<Random>,
    /// The acceptor may speak: its incarnation belongs to a formed cluster.
    acceptor_allowed: bool,
}

struct Random {
    faults: RandomFaults,
    chance: ChaCha8Rng,
    next: BTreeMap<Role, Time>,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>) -> Supervisor {
        let post = || Post {
            life: 0,
            threaded: false,
            state: RoleState::Stopped,
            up: false,
            restart: None,
            memory: Memory::Keep,
            restarts: 0,
            rest: REST,
            began: Time::default(),
        };
        let posts = Role::ALL.into_iter().map(|role| (role, post())).collect();
        Supervisor { shared, posts, random: None, acceptor_allowed: false }
    }

    fn post(&mut self, role: Role) -> &mut Post {
        self.posts.get_mut(&role).expect("every role has a post")
    }

    /// Is the role at work, past its start?
    pub(crate) fn is_up(&self, role: Role) -> bool {
        self.posts[&role].up
    }

    /// Is `life` the role's present one?
    pub(crate) fn is_current(&self, role: Role, life: u64) -> bool {
        let post = &self.posts[&role];
        post.life == life && post.state == RoleState::Running
    }

    /// There is a cluster to take part in; whether as a voter, says `genesis` being durable here or not.
    pub(crate) fn on_cluster(&mut self, genesis: &super::forming::Belonging) {
        self.acceptor_allowed |= genesis.durable;
        for role in Role::ALL {
            if role == Role::Acceptor && !self.acceptor_allowed {
                continue;
            }
            let post = self.post(role);
            if post.life == 0 {
                self.start(role);
            }
        }
    }

    pub(crate) fn on_acceptor_up(&mut self, life: u64, voter: VoterId) {
        if self.is_current(Role::Acceptor, life) {
            self.came_up(Role::Acceptor, &format!("acceptor votes as incarnation {}", voter.incarnation));
        }
    }

    /// True if that life is the present one.
    pub(crate) fn on_learner_up(&mut self, life: u64) -> bool {
        let current = self.is_current(Role::Learner, life);
        if current {
            self.came_up(Role::Learner, "learner at work");
        }
        current
    }

    fn came_up(&mut self, role: Role, text: &str) {
        let post = self.post(role);
        post.up = true;
        self.shared.observe(&Observation::Role { role, up: true });
        self.shared.event("role-started", text.to_owned());
    }

    /// A thread ended.
    pub(crate) fn on_ended(&mut self, role: Role, life: u64, error: Option<String>) {
        let now = self.shared.now();
        let post = self.post(role);
        if post.life != life {
            return;
        }
        post.threaded = false;
        post.up = false;
        self.shared.observe(&Observation::Role { role, up: false });
        if role == Role::Acceptor {
            self.shared.show_acceptor(None); // its last turn may have shown it after it was told to stop
        }
        let post = self.post(role);
        if let Some(error) = error {
            // A role that was told to stop may meet an error on its way out; then it is stopped, not failed.
            if post.state == RoleState::Running {
                if now.since(post.began) >= GOOD_LIFE {
                    post.rest = REST;
                }
                post.restart = Some(now + post.rest);
                post.rest = (post.rest * 2).min(LONGEST_REST);
                post.memory = Memory::Keep;
                post.state = RoleState::Failed(error.clone());
                self.close(role);
                tracing::error!(role = role.name(), error, "role failed");
                self.shared.event("role-failed", format!("{} failed: {error}", role.name()));
            }
        }
    }

    /// The proposer role has no thread: the core tells that it panicked.
    pub(crate) fn on_proposer_panic(&mut self, now: Time) {
        self.shared.observe(&Observation::Role { role: Role::Proposer, up: false });
        let post = self.post(Role::Proposer);
        post.up = false;
        post.state = RoleState::Failed("it panicked; the log says where".into());
        post.restart = Some(now + post.rest);
        post.rest = (post.rest * 2).min(LONGEST_REST);
        self.shared.event("role-failed", "proposer panicked".into());
    }

    /// Makes a role fail, or come back.
    pub(crate) fn on_fault(&mut self, fault: RoleFault, now: Time) {
        match fault {
            RoleFault::Stop { role, memory, restart_after } => {
                let restart = restart_after.map(|after| now + after);
                self.stop(role, memory, restart);
            }
            RoleFault::Start { role } => {
                let post = self.post(role);
                if post.state != RoleState::Running && post.life > 0 {
                    post.restart = Some(now);
                }
            }
        }
    }

    fn stop(&mut self, role: Role, memory: Memory, restart: Option<Time>) {
        let post = self.post(role);
        if post.life == 0 {
            return; // nothing to stop yet
        }
        let was_up = post.state == RoleState::Running;
        post.state = RoleState::Stopped;
        post.up = false;
        post.restart = restart;
        if memory == Memory::Forget {
            post.memory = Memory::Forget; // once forgotten, a later gentler stop brings nothing back
        }
        self.close(role);
        if was_up && role == Role::Proposer {
            self.shared.observe(&Observation::Role { role, up: false }); // the others' threads tell it as they end
        }
        if was_up {
            let memory = if memory == Memory::Forget { ", memory lost" } else { "" };
            self.shared.event("role-stopped", format!("{} stopped{memory}", role.name()));
        }
    }

    /// Ends a role's life as a crash would: what waits in its mailbox is lost.
    fn close(&self, role: Role) {
        match role {
            Role::Acceptor => {
                self.shared.show_acceptor(None);
                close(&self.shared.acceptor);
            }
            Role::Learner => close(&self.shared.learner),
            Role::Proposer => {}
        }
    }

    /// Lets roles fail at random, or stops that.
    pub(crate) fn on_random(&mut self, faults: Option<RandomFaults>, now: Time) {
        self.random = faults.map(|faults| {
            let mut chance = ChaCha8Rng::seed_from_u64(faults.seed ^ self.shared.node.0);
            let next =
                faults.roles.iter().map(|&role| (role, now + exponential(&mut chance, faults.mean_up)));
            let next = next.collect();
            Random { faults, chance, next }
        });
    }

    /// Starts what is due, and fails what chance says.
    pub(crate) fn tick(&mut self, now: Time) {
        if let Some(mut random) = self.random.take() {
            for (&role, at) in &mut random.next {
                if now < *at {
                    continue;
                }
                let down = exponential(&mut random.chance, random.faults.mean_down);
                *at = now + down + exponential(&mut random.chance, random.faults.mean_up);
                self.stop(role, random.faults.memory, Some(now + down));
            }
            self.random = Some(random);
        }
        for role in Role::ALL {
            let post = self.post(role);
            if !post.threaded && post.restart.is_some_and(|at| at <= now) {
                post.restarts += 1;
                self.start(role);
            }
        }
    }

    fn start(&mut self, role: Role) {
        let shared = Arc::clone(&self.shared);
        let post = self.post(role);
        post.began = shared.now();
        post.life += 1;
        post.restart = None;
        post.state = RoleState::Running;
        let life = post.life;
        let forget = std::mem::replace(&mut post.memory, Memory::Keep) == Memory::Forget;
        let started = match role {
            Role::Proposer => {
                self.came_up(Role::Proposer, "proposer at work");
                return;
            }
            Role::Acceptor => {
                let mailbox = open(&shared.acceptor);
                let worker = AcceptorRole::new(Arc::clone(&shared), mailbox, life, forget);
                Life::begin(role, life, &shared, Box::new(worker))
            }
            Role::Learner => {
                let mailbox = open(&shared.learner);
                let worker = LearnerLife::new(Arc::clone(&shared), mailbox, life, forget);
                Life::begin(role, life, &shared, Box::new(worker))
            }
        };
        let post = self.post(role);
        match started {
            Ok(()) => post.threaded = true,
            Err(error) => self.on_ended(role, life, Some(format!("cannot start a thread: {error}"))),
        }
    }

    /// Ends every role cleanly; waits for their threads for a bounded time.
    pub(crate) async fn stop_all(&mut self) {
        self.shared.seal_acceptor();
        tokio::time::sleep(Duration::from_millis(20)).await; // a courtesy: sealing is not needed for safety
        for role in Role::ALL {
            self.stop(role, Memory::Keep, None);
        }
        for _ in 0..200 {
            if self.all_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            for input in self.shared.core.take() {
                if let CoreInput::Ended { role, life, error } = input {
                    self.on_ended(role, life, error);
                }
            }
        }
    }

    /// Has every thread ended?
    pub(crate) fn all_ended(&self) -> bool {
        self.posts.values().all(|post| !post.threaded)
    }

    /// Shows where the roles are.
    pub(crate) fn show(&self, board: &mut Board) {
        board.roles = self
            .posts
            .iter()
            .map(|(&role, post)| {
                (role, RoleStatus { role, state: post.state.clone(), restarts: post.restarts })
            })
            .collect();
    }
}

fn close<T>(way: &super::shared::Way<T>) {
    if let Some(mailbox) = way.lock().unwrap_or_else(PoisonError::into_inner).take() {
        mailbox.close();
    }
}

/// The way in to a new life.
fn open<T>(way: &super::shared::Way<T>) -> Arc<Mailbox<T>> {
    let mailbox = Arc::new(Mailbox::new(MAILBOX));
    *way.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&mailbox));
    mailbox
}

/// What a role does in one life.
pub(crate) trait Worker: Send {
    /// For how long nothing needs to arrive before a turn is due all the same.
    fn patience(&self) -> Duration;

    /// Did anything arrive?
    fn is_ready(&self) -> bool;

    /// Waits until something arrives or patience ends.
    fn wait(&self);

    /// Works on all that arrived; the first turn opens what the role needs. An error says what ended this life.
    fn turn(&mut self) -> Result<Next, String>;

    /// Takes nothing in any more.
    fn close(&self);
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another.
    Again,
    /// Nothing: the role was told to stop.
    Ended,
}

/// One life of a role, to be run by somebody: turn by turn, waiting in between.
pub struct Life {
    role: Role,
    life: u64,
    shared: Arc<Shared>,
    /// None once it ended.
    worker: Option<Box<dyn Worker>>,
}

impl Life {
    fn begin(role: Role, life: u64, shared: &Arc<Shared>, worker: Box<dyn Worker>) -> io::Result<()> {
        shared.host.run(Life { role, life, shared: Arc::clone(shared), worker: Some(worker) })
    }

    /// Whose.
    pub fn role(&self) -> Role {
        self.role
    }

    /// For how long nothing needs to arrive before a turn is due all the same.
    pub fn patience(&self) -> Duration {
        self.worker.as_ref().map_or(Duration::ZERO, |worker| worker.patience())
    }

    /// Did anything arrive?
    pub fn is_ready(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.is_ready())
    }

    /// Waits until something arrives or patience ends.
    pub fn wait(&self) {
        if let Some(worker) = &self.worker {
            worker.wait();
        }
    }

    /// One turn. False if that was the last: the role was told to stop, or failed, or panicked. The core knows.
    pub fn turn(&mut self) -> bool {
        let Some(worker) = &mut self.worker else { return false };
        let error = match catch_unwind(AssertUnwindSafe(|| worker.turn())) {
            Ok(Ok(Next::Again)) => return true,
            Ok(Ok(Next::Ended)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some("it panicked; the log says where".into()),
        };
        worker.close();
        // It lets go of its files before the core hears of its end: the next life may open them at once.
        self.worker = None;
        self.shared.core.push(CoreInput::Ended { role: self.role, life: self.life, error });
        false
    }
}

/// A random duration around `mean`, as faults that know nothing of each other come; at most eight times it.
fn exponential(chance: &mut ChaCha8Rng, mean: Duration) -> Duration {
    let uniform: f64 = chance.random_range(f64::EPSILON..1.0);
    mean.mul_f64((-uniform.ln()).min(8.0))
}
