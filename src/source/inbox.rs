//! What the poll thread is told: commands, queues that became non-empty, room in a channel. Telling never blocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::event::Event;

/// A change of the group's assignment, as librdkafka's rebalance callback reported it.
#[derive(Debug)]
pub(super) struct Rebalance {
    /// Which client reports it ([`super::native::Client::id`]): one that was given up may still have done so.
    pub client: usize,
    pub kind: RebalanceKind,
    pub partitions: Vec<(String, i32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RebalanceKind {
    Assign,
    /// `lost`: the partitions may already belong to another member.
    Revoke {
        lost: bool,
    },
}

#[derive(Debug)]
pub(super) enum Command {
    Rebalance(Rebalance),
    /// An error of the client as a whole.
    ClientError {
        client: usize,
        code: i32,
        reason: String,
        fatal: bool,
    },
    /// A loop's answer to [`Event::Assigned`].
    Start {
        topic: usize,
        generation: u64,
        offsets: BTreeMap<i32, i64>,
    },
    /// All loops are done with the revoked partitions, or the wait for them is over.
    Revoked {
        client: usize,
        partitions: Vec<(usize, i32)>,
    },
    Seek {
        topic: usize,
        partition: i32,
        offset: i64,
    },
    Pause {
        topic: usize,
        paused: bool,
    },
    Halt {
        topic: usize,
    },
    Reopen {
        topic: usize,
        sender: mpsc::Sender<Event>,
    },
    /// For lag tools.
    CommitOffsets {
        topic: usize,
        offsets: BTreeMap<i32, i64>,
    },
    Deliver {
        topic: usize,
        event: Event,
    },
    Close {
        deadline: Instant,
        done: Option<oneshot::Sender<()>>,
    },
}

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// The poll thread has a topic that waits for room in its channel or in the budget.
    blocked: AtomicBool,
    /// By queue: whether the topic's loop waits for something that is down.
    stalled: Vec<watch::Sender<bool>>,
}

#[derive(Debug)]
struct State {
    commands: VecDeque<Command>,
    ready: Vec<usize>,
    /// By queue: whether it is in `ready` already.
    is_ready: Vec<bool>,
    poked: bool,
}

impl Inbox {
    /// For `queues` queues, numbered from 0.
    pub fn new(queues: usize) -> Self {
        let state = State { commands: VecDeque::new(), ready: Vec::new(), is_ready: vec![false; queues], poked: false };
        let stalled = (0..queues).map(|_| watch::Sender::new(false)).collect();
        Inbox { state: Mutex::new(state), changed: Condvar::new(), blocked: AtomicBool::new(false), stalled }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, command: Command) {
        self.state().commands.push_back(command);
        self.changed.notify_one();
    }

    /// Queue number `queue` is no longer empty.
    pub fn ready(&self, queue: usize) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_ready[queue], true) {
            state.ready.push(queue);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// There may be room where there was none.
    pub fn space(&self) {
        if self.blocked.load(Ordering::Acquire) {
            self.state().poked = true;
            self.changed.notify_one();
        }
    }

    pub fn set_stalled(&self, queue: usize, stalled: bool) {
        self.stalled[queue].send_replace(stalled);
    }

    /// Waits until the loop of topic `queue` has been waiting for something that is down for `grace`.
    pub async fn stalled(&self, queue: usize, grace: Duration) {
        let mut stalled = self.stalled[queue].subscribe();
        // The sender lives as long as the inbox.
        while stalled.wait_for(|stalled| *stalled).await.is_ok() {
            if tokio::time::timeout(grace, stalled.wait_for(|stalled| !stalled)).await.is_err() {
                return;
            }
        }
    }

    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    /// Waits until something was told or `timeout` is over, then hands over all commands and adds the queues that
    /// became ready to `ready`.
    pub fn wait(&self, timeout: Duration, ready: &mut Vec<usize>) -> VecDeque<Command> {
        let mut state = self.state();
        if !timeout.is_zero() {
            let idle = |state: &mut State| state.commands.is_empty() && state.ready.is_empty() && !state.poked;
            state = self.changed.wait_timeout_while(state, timeout, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
        let state = &mut *state;
        state.poked = false;
        for queue in state.ready.drain(..) {
            state.is_ready[queue] = false;
            ready.push(queue);
        }
        std::mem::take(&mut state.commands)
    }
}
