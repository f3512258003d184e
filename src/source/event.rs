//! What a topic's loop is told, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::batch::RawBatch;
use crate::config::Isolation;
use crate::error::Error;

use super::inbox::Inbox;

/// A topic to read.
#[derive(Clone, Debug)]
pub struct TopicSubscription {
    pub name: String,
    pub isolation: Isolation,
}

/// What happened to a topic. Events of one partition come in the order in which they happened.
#[derive(Debug)]
pub enum Event {
    /// This member now owns `partitions`. The loop answers with the offset to start at for each (at least 0; from the
    /// ledger, or from the start policy where the ledger has no entry). A partition left out of the answer is owned
    /// but not read; no answer at all leaves all of them so.
    Assigned { partitions: Vec<i32>, start: oneshot::Sender<BTreeMap<i32, i64>> },
    /// The partitions go to another member once `done` is answered; flush them or drop them first. The wait is
    /// bounded ([`super::handle::REVOKE_WAIT`]), and ends early for a loop that is stalled ([`Stall`]). With `lost` they
    /// may already be read by another member.
    Revoked { partitions: Vec<i32>, lost: bool, done: oneshot::Sender<()> },
    /// Records of one partition. `range.from` is the previous batch's `range.to` (or the start offset, or the
    /// [`Event::End`]'s offset that came between), `range.to` is the last record's offset + 1.
    Batch(RawBatch),
    /// Everything below `offset` (the end of the log; with `read_committed`, its last stable offset) was delivered:
    /// the partition's range may be extended to `offset`, and its next batch starts there.
    End { partition: i32, offset: i64 },
    /// The partition continues at `offset`, because of [`super::Source::seek`]: what the loop got for this partition
    /// between its call of `seek` and this event is void.
    Positioned { partition: i32, offset: i64 },
    /// Something is wrong with the topic. On a Retry verdict the source itself goes on trying; on Halt the partitions
    /// concerned are no longer read.
    Failed(Error),
}

/// A topic's events. Dropping it halts the topic: its partitions stay with this member, unread.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    inbox: Arc<Inbox>,
    topic: usize,
}

/// By which a topic's loop says that it waits for something that is down, so that a rebalance need not wait for it.
#[derive(Clone, Debug)]
pub struct Stall {
    inbox: Arc<Inbox>,
    topic: usize,
}

impl Stall {
    /// It waits until the value is dropped.
    pub fn hold(&self) -> Stalled {
        self.inbox.set_stalled(self.topic, true);
        Stalled(self.clone())
    }
}

/// See [`Stall::hold`].
#[derive(Debug)]
pub struct Stalled(Stall);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.inbox.set_stalled(self.0.topic, false);
    }
}

impl Events {
    pub(super) fn new(receiver: mpsc::Receiver<Event>, inbox: Arc<Inbox>, topic: usize) -> Self {
        Events { receiver, inbox, topic }
    }

    pub fn stall(&self) -> Stall {
        Stall { inbox: self.inbox.clone(), topic: self.topic }
    }

    /// The next event; `None` after the source was shut down or the topic halted. Cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.inbox.space();
        event
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        self.inbox.space();
        event
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.receiver.close();
        self.inbox.space();
    }
}
