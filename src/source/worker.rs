//! The poll thread: owns the consumer, serves its group, moves messages to the topics' loops, obeys commands.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::config::Isolation;
use crate::error::Error;
use crate::telemetry::metrics::KafkaMetrics;

use super::admin::Admin;
use super::event::Event;
use super::faults;
use super::handle::{self, REVOKE_WAIT, STALLED_WAIT};
use super::inbox::{Command, Inbox, Rebalance, RebalanceKind};
use super::native::{Client, NativeError, Offsets, PartitionQueue, Queue, code};
use super::seat::Seat;
use super::topic::{Flow, PartitionFault, Reading, Topic};

/// How long the thread sleeps when nothing is told: a safety net for work that nobody announced.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// The same while a topic waits for room, which is announced but may be missed.
const BLOCKED_WAIT: Duration = Duration::from_millis(20);
/// Every queue is looked at this often, announced or not.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions that were started and not heard of yet are looked after this often.
const RENEW_INTERVAL: Duration = Duration::from_millis(200);
/// How long leaving the group may take of the time there is to close.
const LEAVE_WAIT: Duration = Duration::from_secs(3);
/// A failure of the same kind is not reported again before this time is over.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Worker {
    pub client: Arc<Client>,
    /// Rebalances and errors come through here.
    pub group: Queue,
    pub inbox: Arc<Inbox>,
    pub topics: Vec<Topic>,
    pub by_name: HashMap<String, usize>,
    pub isolation: Isolation,
    pub admin: Admin,
    pub runtime: Handle,
    pub reports: Reports,
    pub metrics: KafkaMetrics,
    /// Counts assignments, so that a late answer to an earlier one is told apart.
    pub generation: u64,
    /// Where the static id comes from, if the user gave none.
    pub seat: Option<Seat>,
    /// The consumer's properties without a static id.
    pub dynamic: Vec<(String, String)>,
}

/// When which failure was last reported.
#[derive(Default)]
pub(super) struct Reports(HashMap<(usize, i32, i32), Instant>);

impl Reports {
    fn is_due(&mut self, topic: usize, partition: i32, code: i32) -> bool {
        let now = Instant::now();
        let due = self.0.get(&(topic, partition, code)).is_none_or(|last| now - *last >= REPORT_INTERVAL);
        if due {
            self.0.insert((topic, partition, code), now);
        }
        due
    }
}

enum Next {
    Continue,
    Close { deadline: Instant, done: Option<oneshot::Sender<()>> },
}

impl Worker {
    pub fn run(mut self) {
        // Topics that may have messages.
        let mut active: Vec<usize> = Vec::new();
        let mut told: Vec<usize> = Vec::new();
        let mut is_active = vec![false; self.topics.len()];
        let (mut swept, mut renewed) = (Instant::now(), Instant::now());
        let mut wait = Duration::ZERO;
        loop {
            let commands = self.inbox.wait(wait, &mut told);
            for command in commands {
                if let Next::Close { deadline, done } = self.obey(command) {
                    self.close(deadline);
                    drop(done);
                    return;
                }
            }
            self.serve_group();

            if renewed.elapsed() >= RENEW_INTERVAL {
                renewed = Instant::now();
                let silent = |(number, topic): (usize, &Topic)| topic.renew_forwards().then_some(number);
                told.extend(self.topics.iter().enumerate().filter_map(silent));
            }
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                told.extend(0..self.topics.len());
            }
            for topic in told.drain(..) {
                // The group's queue has the number after the last topic's; it was served already.
                if topic < self.topics.len() && !std::mem::replace(&mut is_active[topic], true) {
                    active.push(topic);
                }
            }

            // Announces are only wanted, and space is only looked at again, after this flag is up: so set it before.
            self.inbox.set_blocked(true);
            let mut blocked = false;
            let mut faults: Vec<(usize, PartitionFault)> = Vec::new();
            active.retain(|&index| {
                let topic = &mut self.topics[index];
                let keep = match topic.flow() {
                    Flow::Open => {
                        faults.extend(topic.consume().into_iter().map(|fault| (index, fault)));
                        false
                    }
                    Flow::Blocked => {
                        blocked = true;
                        true
                    }
                    // Looked at again when it is resumed, or by the sweep.
                    Flow::Stopped => false,
                };
                is_active[index] = keep;
                keep
            });
            for (topic, fault) in faults {
                self.on_partition_fault(topic, fault);
            }
            blocked |= self.topics.iter_mut().any(|topic| topic.has_pending());
            self.inbox.set_blocked(blocked);
            wait = if blocked { BLOCKED_WAIT } else { IDLE_WAIT };
        }
    }

    fn serve_group(&mut self) {
        // Rebalances only reach the inbox from here; what is returned are errors of topics.
        while let Some(message) = self.client.poll(Duration::ZERO) {
            let message = message.get();
            if message.error() == 0 || message.error() == code::PARTITION_EOF {
                // Of a partition that is not forwarded (any more): void.
                continue;
            }
            let error = NativeError::new(message.error(), message.error_reason());
            if error.code == code::FATAL
                && let Some(NativeError { code, reason }) = self.client.fatal_error()
            {
                // Not here: what comes of it may take the client's place, of which a message is in hand.
                self.inbox.push(Command::ClientError { client: self.client.id(), code, reason, fatal: true });
                continue;
            }
            match self.by_name.get(&message.topic()) {
                Some(&topic) => self.on_topic_fault(topic, -1, &error),
                None => tracing::warn!("kafka consumer: {error}"),
            }
        }
    }

    fn obey(&mut self, command: Command) -> Next {
        match command {
            // Of a client that was given up.
            Command::Rebalance(Rebalance { client, .. })
            | Command::ClientError { client, .. }
            | Command::Revoked { client, .. }
                if client != self.client.id() => {}
            Command::Rebalance(Rebalance { kind: RebalanceKind::Assign, partitions, .. }) => self.on_assign(partitions),
            Command::Rebalance(Rebalance { kind: RebalanceKind::Revoke { lost }, partitions, .. }) => {
                self.on_revoke(&partitions, lost);
            }
            Command::Start { topic, generation, offsets } => self.start(topic, generation, &offsets),
            Command::Revoked { partitions, .. } => self.unassign(&partitions),
            Command::Seek { topic, partition, offset } => self.seek(topic, partition, offset),
            Command::Pause { topic, paused } => {
                self.topics[topic].paused = paused;
                self.inbox.ready(topic);
            }
            Command::Halt { topic } => self.halt(topic),
            Command::Reopen { topic, sender } => {
                self.halt(topic);
                self.topics[topic].reopen(sender);
                let partitions: Vec<i32> = self.topics[topic].owned.keys().copied().collect();
                if !partitions.is_empty() {
                    self.ask_for_start(topic, partitions);
                }
            }
            Command::CommitOffsets { topic, offsets } => self.commit_offsets(topic, &offsets),
            Command::Deliver { topic, event } => self.topics[topic].send(event),
            Command::ClientError { code, reason, fatal, .. } => {
                self.on_client_error(NativeError::new(code, reason), fatal)
            }
            Command::Close { deadline, done } => return Next::Close { deadline, done },
        }
        Next::Continue
    }

    fn on_assign(&mut self, partitions: Vec<(String, i32)>) {
        self.metrics.rebalances.inc();
        // The group is answered at once, with nothing: each topic's partitions follow when its loop has said where
        // they start, so that one that cannot say holds up no other.
        if let Err(error) = self.client.incremental_assign(&Offsets::new()) {
            tracing::error!("kafka consumer: cannot take over an assignment: {error}");
        }
        for (topic, partitions) in self.by_topic(&partitions) {
            self.ask_for_start(topic, partitions);
        }
    }

    fn ask_for_start(&mut self, topic: usize, partitions: Vec<i32>) {
        self.generation += 1;
        let generation = self.generation;
        let state = &mut self.topics[topic];
        for partition in &partitions {
            state.owned.insert(*partition, generation);
        }
        if !state.is_open() {
            return;
        }
        let (start, answer) = oneshot::channel();
        state.send(Event::Assigned { partitions, start });
        let inbox = self.inbox.clone();
        self.runtime.spawn(async move {
            // No answer means that the loop does not want them.
            if let Ok(offsets) = answer.await {
                inbox.push(Command::Start { topic, generation, offsets });
            }
        });
    }

    fn start(&mut self, topic: usize, generation: u64, offsets: &BTreeMap<i32, i64>) {
        let state = &mut self.topics[topic];
        let mut list = Offsets::new();
        let mut started = Vec::new();
        let mut failure = None;
        for (&partition, &offset) in offsets {
            if state.owned.get(&partition) != Some(&generation) || state.reading.contains_key(&partition) {
                continue;
            }
            if offset < 0 {
                let message = format!("topic {} partition {partition}: no start offset ({offset})", state.name);
                failure = Some(Error::halt(message));
                continue;
            }
            let forwarded = PartitionQueue::forward(&self.client, &state.name, partition, &state.queue)
                .and_then(|forward| list.add(&state.name, partition, Some(offset)).map(|()| forward));
            match forwarded {
                Ok(forward) => {
                    state.reading.insert(partition, Reading::new(offset, forward));
                    started.push(partition);
                }
                Err(error) => failure = Some(faults::of_topic(&state.name, partition, &error)),
            }
        }
        if !started.is_empty()
            && let Err(error) = self.client.incremental_assign(&list)
        {
            for partition in &started {
                state.reading.remove(partition);
            }
            failure = Some(faults::of_topic(&state.name, -1, &error));
        }
        if let Some(error) = failure {
            state.send(Event::Failed(error));
        }
        self.inbox.ready(topic);
    }

    fn on_revoke(&mut self, partitions: &[(String, i32)], lost: bool) {
        self.metrics.rebalances.inc();
        let mut gone: Vec<(usize, i32)> = Vec::new();
        let mut waits = JoinSet::new();
        for (topic, partitions) in self.by_topic(partitions) {
            let state = &mut self.topics[topic];
            for partition in &partitions {
                state.owned.remove(partition);
                gone.push((topic, *partition));
                if lost {
                    state.drop_pending(*partition);
                }
            }
            if state.is_open() {
                let (done, answer) = oneshot::channel();
                state.send(Event::Revoked { partitions, lost, done });
                let (inbox, name) = (self.inbox.clone(), state.name.clone());
                let wait = async move {
                    tokio::select! {
                        // An answer that was dropped counts as given: the loop is gone.
                        _ = answer => {}
                        () = inbox.stalled(topic, STALLED_WAIT) => tracing::warn!(
                            topic = %name,
                            "partitions were revoked while their topic waits for what is down: what is not committed \
                             is dropped, the next owner reads it again"
                        ),
                    }
                };
                waits.spawn_on(wait, &self.runtime);
            }
        }
        let (inbox, client) = (self.inbox.clone(), self.client.id());
        self.runtime.spawn(async move {
            let all = async { while waits.join_next().await.is_some() {} };
            if tokio::time::timeout(REVOKE_WAIT, all).await.is_err() {
                tracing::warn!(
                    "partitions were revoked and not flushed within {} s: what is not committed is dropped, the next \
                     owner reads it again",
                    REVOKE_WAIT.as_secs()
                );
            }
            inbox.push(Command::Revoked { client, partitions: gone });
        });
    }

    /// Tells librdkafka to stop reading `partitions`, those that it reads.
    fn unassign(&mut self, partitions: &[(usize, i32)]) {
        let mut list = Offsets::new();
        for &(topic, partition) in partitions {
            let state = &mut self.topics[topic];
            if state.reading.remove(&partition).is_some() {
                // The name was good when the partition was assigned.
                let _ = list.add(&state.name, partition, None);
            }
        }
        // Also when the list is empty: the group waits for this call.
        if let Err(error) = self.client.incremental_unassign(&list) {
            tracing::error!("kafka consumer: cannot give up partitions: {error}");
        }
    }

    fn halt(&mut self, topic: usize) {
        let partitions: Vec<(usize, i32)> =
            self.topics[topic].reading.keys().map(|partition| (topic, *partition)).collect();
        if !partitions.is_empty() {
            self.unassign(&partitions);
        }
        self.topics[topic].close();
    }

    fn seek(&mut self, topic: usize, partition: i32, offset: i64) {
        let Some(&generation) = self.topics[topic].owned.get(&partition) else { return };
        if self.topics[topic].reading.contains_key(&partition) {
            self.unassign(&[(topic, partition)]);
        }
        self.topics[topic].drop_pending(partition);
        self.topics[topic].send(Event::Positioned { partition, offset });
        self.start(topic, generation, &BTreeMap::from([(partition, offset)]));
    }

    fn on_partition_fault(&mut self, topic: usize, fault: PartitionFault) {
        let PartitionFault { partition, error, next } = fault;
        match error.code {
            code::AUTO_OFFSET_RESET | code::OFFSET_OUT_OF_RANGE => {
                // Not read any further: where to go on is for the ledger, or a person, to say.
                self.unassign(&[(topic, partition)]);
                let (admin, inbox, name) = (self.admin.clone(), self.inbox.clone(), self.topics[topic].name.clone());
                let isolation = self.isolation;
                self.runtime.spawn(async move {
                    let failure = explain_out_of_range(&admin, &name, partition, next, isolation, &error).await;
                    inbox.push(Command::Deliver { topic, event: Event::Failed(failure) });
                });
            }
            _ => self.on_topic_fault(topic, partition, &error),
        }
    }

    fn on_topic_fault(&mut self, topic: usize, partition: i32, error: &NativeError) {
        let failure = faults::of_topic(&self.topics[topic].name, partition, error);
        if failure.is_retry() {
            self.metrics.errors.inc();
        } else {
            let reading = self.topics[topic].reading.keys();
            let halted: Vec<(usize, i32)> =
                reading.filter(|of| partition < 0 || **of == partition).map(|of| (topic, *of)).collect();
            if !halted.is_empty() {
                self.unassign(&halted);
            }
        }
        if self.reports.is_due(topic, partition, error.code) {
            self.topics[topic].send(Event::Failed(failure));
        }
    }

    fn commit_offsets(&self, topic: usize, offsets: &BTreeMap<i32, i64>) {
        let name = &self.topics[topic].name;
        let mut list = Offsets::new();
        let added = offsets.iter().try_for_each(|(partition, offset)| list.add(name, *partition, Some(*offset)));
        if let Err(error) = added.and_then(|()| self.client.commit_async(&list)) {
            tracing::debug!("group offsets of topic {name} were not committed: {error}");
        }
    }

    /// Starts again as a member without a static id: somebody else came with the one that the seat gave us.
    fn rejoin(&mut self) -> Result<(), NativeError> {
        let (client, group) = handle::connect(&self.dynamic, &self.inbox, self.topics.len())?;
        for (number, topic) in self.topics.iter_mut().enumerate() {
            let partitions: Vec<i32> = std::mem::take(&mut topic.owned).into_keys().collect();
            topic.reading.clear();
            partitions.iter().for_each(|partition| topic.drop_pending(*partition));
            if !partitions.is_empty() {
                // Nobody waits for the answer: the partitions are another's already.
                topic.send(Event::Revoked { partitions, lost: true, done: oneshot::channel().0 });
            }
            topic.queue = Queue::new(&client);
            topic.queue.watch(self.inbox.clone(), number);
        }
        (self.client, self.group) = (client, group);
        self.client.subscribe(self.topics.iter().map(|topic| &*topic.name))
    }

    fn on_client_error(&mut self, error: NativeError, fatal: bool) {
        if fatal && error.code == code::FENCED_INSTANCE_ID && self.seat.take().is_some() {
            tracing::warn!(
                "kafka: another daemon took over this one's place in the group ({error}), which should only happen \
                 where containers of one machine share a host name; joining again without a place of its own"
            );
            match self.rejoin() {
                Ok(()) => return,
                Err(error) => tracing::error!("kafka consumer: cannot join the group again: {error}"),
            }
        }
        if fatal {
            for topic in &mut self.topics {
                topic.send(Event::Failed(faults::of_client(&error)));
            }
            return;
        }
        self.metrics.errors.inc();
        if !self.reports.is_due(usize::MAX, -1, error.code) {
            // librdkafka says the same twenty times a second while it reconnects.
        } else if error.code == code::ALL_BROKERS_DOWN {
            tracing::warn!("kafka: no broker is reachable ({error}); calve goes on trying");
        } else if error.is_transport() {
            tracing::info!("kafka: {error}; calve goes on trying");
        } else {
            tracing::warn!("kafka: {error}");
        }
    }

    /// Leaves the group, within the deadline.
    fn close(mut self, deadline: Instant) {
        let reading: Vec<(usize, i32)> = self.reading();
        for topic in &mut self.topics {
            topic.close();
        }
        if !reading.is_empty() {
            self.unassign(&reading);
        }
        if Instant::now() >= deadline {
            // Without a word: librdkafka could not be freed if it began to leave and nobody answered what it asks.
            return;
        }
        if self.seat.is_some() {
            // In order is not by accident: the others need not wait for us to come back.
            let until = deadline.min(Instant::now() + LEAVE_WAIT);
            match self.client.unsubscribe() {
                Ok(()) => _ = self.serve_closing(until, |client| !client.is_member()),
                Err(error) => tracing::debug!("kafka consumer: cannot leave the group early: {error}"),
            }
        }
        if let Err(error) = self.client.close_begin(&self.group) {
            tracing::warn!("kafka consumer: cannot leave the group: {error}");
            return;
        }
        if !self.serve_closing(deadline, Client::is_closed) {
            tracing::warn!("kafka consumer: left without the group's answer; its session will time out");
        }
    }

    /// Answers what the group asks until `done`; false if that takes longer than `until`.
    fn serve_closing(&mut self, until: Instant, done: impl Fn(&Client) -> bool) -> bool {
        let mut told = Vec::new();
        while !done(&self.client) {
            if Instant::now() >= until {
                return false;
            }
            drop(self.client.poll(Duration::from_millis(20)));
            for command in self.inbox.wait(Duration::ZERO, &mut told) {
                match command {
                    Command::Rebalance(Rebalance { kind: RebalanceKind::Assign, .. }) => {
                        let _ = self.client.incremental_assign(&Offsets::new());
                    }
                    Command::Rebalance(_) | Command::Revoked { .. } => self.unassign(&[]),
                    _ => {}
                }
            }
        }
        true
    }

    fn reading(&self) -> Vec<(usize, i32)> {
        let topics = self.topics.iter().enumerate();
        topics.flat_map(|(index, topic)| topic.reading.keys().map(move |partition| (index, *partition))).collect()
    }

    fn by_topic(&self, partitions: &[(String, i32)]) -> BTreeMap<usize, Vec<i32>> {
        let mut topics: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
        for (name, partition) in partitions {
            match self.by_name.get(name) {
                Some(&topic) => topics.entry(topic).or_default().push(*partition),
                None => tracing::warn!("kafka consumer: was given topic {name}, which it did not subscribe to"),
            }
        }
        topics
    }
}

/// Tells a log whose start moved from one that is shorter than the ledger says.
async fn explain_out_of_range(
    admin: &Admin,
    topic: &str,
    partition: i32,
    next: i64,
    isolation: Isolation,
    error: &NativeError,
) -> Error {
    match admin.watermarks(topic, isolation).await {
        Ok(watermarks) => match watermarks.get(&partition) {
            Some(marks) if next < marks.low => faults::log_start_moved(topic, partition, next, marks.low),
            Some(marks) if next > marks.end => faults::end_below_ledger(topic, partition, next, marks.end),
            _ => faults::out_of_range(topic, partition, next, error),
        },
        Err(_) => faults::out_of_range(topic, partition, next, error),
    }
}
