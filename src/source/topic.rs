//! One topic as the poll thread sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::assemble::Assembly;
use super::budget::Account;
use super::event::Event;
use super::faults;
use super::native::{Message, NativeError, PartitionQueue, Queue, code};

pub(super) struct Topic {
    pub name: Arc<str>,
    /// Where librdkafka puts this topic's messages.
    pub queue: Queue,
    /// `None` once the topic is halted or the source closed.
    sender: Option<mpsc::Sender<Event>>,
    /// Events that found the channel full; nothing is consumed while there are any.
    pending: VecDeque<Event>,
    account: Account,
    /// The user asked to pause.
    pub paused: bool,
    /// The group's assignment: partition → the generation in which it came.
    pub owned: BTreeMap<i32, u64>,
    /// Partitions that librdkafka reads, with the next offset that the loop does not know of yet.
    pub reading: BTreeMap<i32, Reading>,
}

pub(super) struct Reading {
    pub next: i64,
    /// Something came through the topic's queue; until then the forwarding may have been undone.
    heard: bool,
    /// Keeps the partition's own queue forwarded.
    forward: PartitionQueue,
}

impl Reading {
    pub fn new(next: i64, forward: PartitionQueue) -> Self {
        Reading { next, heard: false, forward }
    }
}

/// An event of a partition that the poll thread must act on.
pub(super) struct PartitionFault {
    pub partition: i32,
    pub error: NativeError,
    /// The offset that the next record was expected at.
    pub next: i64,
}

/// Whether more may be consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    /// The loop or the budget must make room first.
    Blocked,
    /// Paused by the user, or nobody listens.
    Stopped,
}

impl Topic {
    pub fn new(name: &str, queue: Queue, sender: mpsc::Sender<Event>, account: Account) -> Self {
        Topic {
            name: Arc::from(name),
            queue,
            sender: Some(sender),
            pending: VecDeque::new(),
            account,
            paused: false,
            owned: BTreeMap::new(),
            reading: BTreeMap::new(),
        }
    }

    /// Whether a loop listens.
    pub fn is_open(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Ends the loop's stream once it has read what was sent.
    pub fn close(&mut self) {
        self.sender = None;
        self.pending.clear();
    }

    pub fn reopen(&mut self, sender: mpsc::Sender<Event>) {
        self.pending.clear();
        self.sender = Some(sender);
    }

    /// Sends in order, now or when there is room.
    pub fn send(&mut self, event: Event) {
        if self.is_open() {
            self.pending.push_back(event);
            self.send_pending();
        }
    }

    pub fn send_pending(&mut self) {
        let Some(sender) = &self.sender else { return };
        while let Some(event) = self.pending.pop_front() {
            match sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => {
                    self.close();
                    return;
                }
            }
        }
    }

    pub fn has_pending(&mut self) -> bool {
        self.send_pending();
        !self.pending.is_empty()
    }

    /// Renews the forwarding of partitions that were not heard of since they were started. False if there are none.
    pub fn renew_forwards(&self) -> bool {
        let silent = || self.reading.values().filter(|reading| !reading.heard);
        silent().for_each(|reading| reading.forward.renew(&self.queue));
        silent().next().is_some()
    }

    /// Forgets what waits to be sent for `partition`: records that a later event makes void.
    pub fn drop_pending(&mut self, partition: i32) {
        self.pending.retain(|event| match event {
            Event::Batch(batch) => batch.partition != partition,
            Event::End { partition: of, .. } => *of != partition,
            _ => true,
        });
    }

    pub fn flow(&mut self) -> Flow {
        self.send_pending();
        match &self.sender {
            Some(sender) if !sender.is_closed() && !self.paused => {
                if !self.pending.is_empty() || sender.capacity() == 0 || self.account.is_crowded() {
                    Flow::Blocked
                } else {
                    Flow::Open
                }
            }
            _ => Flow::Stopped,
        }
    }

    /// Takes what librdkafka has and sends it on. Returns what went wrong.
    ///
    /// All that it has: it hands over its whole queue and looks at an empty one meanwhile. If part went back into it, each
    /// such look would have fetched more than was taken, and its limits would bound nothing.
    pub fn consume(&mut self) -> Vec<PartitionFault> {
        let mut pour = Pour {
            topic: &self.name,
            account: &self.account,
            reading: &mut self.reading,
            current: None,
            events: Vec::new(),
            faults: Vec::new(),
            stopped: Vec::new(),
        };
        self.queue.drain(|message| pour.take(message));
        pour.flush();
        let Pour { events, faults, .. } = pour;
        for event in events {
            self.send(event);
        }
        faults
    }
}

/// One helping: messages in queue order become batches and events.
struct Pour<'a> {
    topic: &'a Arc<str>,
    account: &'a Account,
    reading: &'a mut BTreeMap<i32, Reading>,
    /// The batch that is being filled, with its partition and the offset after its last record.
    current: Option<(i32, i64, Assembly)>,
    events: Vec<Event>,
    faults: Vec<PartitionFault>,
    /// Partitions of which nothing more may be taken, because something between is damaged or gone.
    stopped: Vec<i32>,
}

impl Pour<'_> {
    fn take(&mut self, message: Message<'_>) {
        if message.error() == 0 {
            self.on_record(message);
        } else {
            self.on_event(message);
        }
    }

    fn on_record(&mut self, message: Message<'_>) {
        let partition = message.partition();
        if self.current.as_ref().is_none_or(|(of, _, assembly)| *of != partition || assembly.is_full()) {
            self.flush();
            // Not reading it (any more): what librdkafka still had of it is void.
            let Some(reading) = self.reading.get(&partition) else { return };
            if self.stopped.contains(&partition) {
                return;
            }
            self.current = Some((partition, reading.next, Assembly::new(reading.next)));
        }
        let Some((_, next, assembly)) = &mut self.current else { return };
        if message.offset() < *next {
            return;
        }
        if assembly.push(message) {
            *next = message.offset() + 1;
        } else {
            // The records before it are read again once somebody has looked.
            self.current = None;
            let reason = format!("the headers of offset {} cannot be parsed", message.offset());
            self.fail(partition, NativeError::new(code::BAD_MESSAGE, reason));
        }
    }

    fn on_event(&mut self, message: Message<'_>) {
        self.flush();
        let partition = message.partition();
        if self.stopped.contains(&partition) {
            return;
        }
        if message.error() != code::PARTITION_EOF {
            self.fail(partition, NativeError::new(message.error(), message.error_reason()));
        } else if let Some(reading) = self.reading.get_mut(&partition) {
            (reading.next, reading.heard) = (reading.next.max(message.offset()), true);
            self.events.push(Event::End { partition, offset: reading.next });
        }
    }

    fn fail(&mut self, partition: i32, error: NativeError) {
        let Some(reading) = self.reading.get(&partition) else { return };
        if faults::stops_partition(&error) {
            self.stopped.push(partition);
        }
        self.faults.push(PartitionFault { partition, error, next: reading.next });
    }

    fn flush(&mut self) {
        let Some((partition, _, assembly)) = self.current.take() else { return };
        let Some((mut batch, bytes)) = assembly.finish(self.topic, partition) else { return };
        if let Some(reading) = self.reading.get_mut(&partition) {
            (reading.next, reading.heard) = (batch.range.to, true);
        }
        batch.permit = self.account.take(bytes);
        self.events.push(Event::Batch(batch));
    }
}
