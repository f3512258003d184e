//! One topic as the poll thread sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::assemble::Assembly;
use super::budget::Account;
use super::event::Event;
use super::native::{Message, Messages, NativeError, PartitionQueue, Queue, code};

/// How many bytes one call should take out of librdkafka, and how many messages at most.
const CONSUME_BYTES_TARGET: usize = 2 << 20;
pub(super) const CONSUME_MESSAGES_MAX: usize = 8192;

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
    /// How many messages to ask for, from the size of those before.
    ask: usize,
}

pub(super) struct Reading {
    pub next: i64,
    /// Keeps the partition's own queue forwarded.
    pub _forward: PartitionQueue,
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
            ask: 512,
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

    /// Takes one helping out of librdkafka and sends it on. Returns whether there may be more, and what went wrong.
    pub fn consume(&mut self, messages: &mut Messages) -> (bool, Vec<PartitionFault>) {
        let asked = self.ask;
        self.queue.consume(messages, asked);
        let faults = self.distribute(messages);
        let count = messages.len();
        messages.clear();
        (count == asked, faults)
    }

    fn distribute(&mut self, messages: &Messages) -> Vec<PartitionFault> {
        let mut faults = Vec::new();
        let (mut index, mut total) = (0, 0);
        while index < messages.len() {
            let first = messages.get(index);
            let partition = first.partition();
            if first.error() != 0 {
                faults.extend(self.on_event(first));
                index += 1;
                continue;
            }
            // The run of records of this partition.
            let (mut end, mut bytes) = (index, 0);
            while end < messages.len() {
                let message = messages.get(end);
                if message.partition() != partition || message.error() != 0 {
                    break;
                }
                bytes += message.len();
                end += 1;
            }
            total += bytes;
            let run = (index..end).map(|index| messages.get(index));
            faults.extend(self.on_records(partition, run, end - index, bytes));
            index = end;
        }
        if messages.len() >= 16 {
            let average = (total / messages.len()).max(1);
            self.ask = (CONSUME_BYTES_TARGET / average).clamp(1, CONSUME_MESSAGES_MAX);
        }
        faults
    }

    fn on_records<'a>(
        &mut self,
        partition: i32,
        run: impl Iterator<Item = Message<'a>>,
        records: usize,
        bytes: usize,
    ) -> Option<PartitionFault> {
        // Not reading it (any more): what librdkafka still had of it is void.
        let mut next = self.reading.get(&partition)?.next;
        let mut assembly = Assembly::new(next, records, bytes);
        let mut fault = None;
        for message in run {
            if message.offset() < next {
                continue;
            }
            if assembly.is_full() {
                let full = std::mem::replace(&mut assembly, Assembly::new(next, records, 0));
                self.send_batch(full, partition);
            }
            next = message.offset() + 1;
            if !assembly.push(message) {
                let reason = format!("the headers of offset {} cannot be parsed", message.offset());
                let error = NativeError::new(code::BAD_MESSAGE, reason);
                fault = Some(PartitionFault { partition, error, next: message.offset() });
                break;
            }
        }
        if fault.is_some() {
            // Halts the partition: the records before the damaged one are read again after somebody has looked.
            return fault;
        }
        self.send_batch(assembly, partition);
        None
    }

    fn send_batch(&mut self, assembly: Assembly, partition: i32) {
        let Some((mut batch, bytes)) = assembly.finish(&self.name, partition) else { return };
        if let Some(reading) = self.reading.get_mut(&partition) {
            reading.next = batch.range.to;
        }
        batch.permit = self.account.take(bytes);
        self.send(Event::Batch(batch));
    }

    fn on_event(&mut self, message: Message<'_>) -> Option<PartitionFault> {
        let partition = message.partition();
        let reading = self.reading.get_mut(&partition)?;
        if message.error() == code::PARTITION_EOF {
            reading.next = reading.next.max(message.offset());
            let offset = reading.next;
            self.send(Event::End { partition, offset });
            return None;
        }
        let error = NativeError::new(message.error(), message.error_reason());
        Some(PartitionFault { partition, error, next: reading.next })
    }
}
