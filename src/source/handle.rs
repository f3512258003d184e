//! The source as the daemon holds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Isolation, Kafka};
use crate::error::{Error, Result};
use crate::telemetry::metrics::KafkaMetrics;

use super::admin::Admin;
use super::budget::Budget;
use super::event::{Events, TopicSubscription};
use super::inbox::{Command, Inbox};
use super::native::{Client, NativeError, Queue};
use super::properties::{self, FetchLimits};
use super::seat::Seat;
use super::topic::Topic;
use super::worker::{Reports, Worker};

/// How long a loop may take to flush revoked partitions. While it does, no partition of the consumer is read; it
/// stays well below the group's rebalance time-out (`max.poll.interval.ms`, a minute).
pub const REVOKE_WAIT: Duration = Duration::from_secs(30);
/// How long it may take if it waits for something that is down; the ledger fences what it still holds.
pub(super) const STALLED_WAIT: Duration = Duration::from_secs(1);
/// Events that may wait for a topic's loop.
const EVENTS_MAX: usize = 16;

/// The consumer group of a daemon. Dropping it leaves the group without waiting; [`Source::shutdown`] waits.
#[derive(Debug)]
pub struct Source {
    members: Vec<Member>,
    /// Topic → member, number there.
    topics: HashMap<String, (usize, usize)>,
    metrics: KafkaMetrics,
}

/// One consumer with its poll thread.
#[derive(Debug)]
struct Member {
    inbox: Arc<Inbox>,
    /// Its static id, if it has one.
    instance_id: Option<String>,
}

impl Source {
    /// Joins the group and starts to read; each topic's events come from its [`Events`]. Must be called inside a
    /// tokio runtime. Fails on properties that librdkafka refuses; an unreachable broker is no failure, the source
    /// goes on trying.
    pub fn start(
        kafka: &Kafka,
        subscriptions: Vec<TopicSubscription>,
        budget: &Budget,
        metrics: &KafkaMetrics,
    ) -> Result<(Source, HashMap<String, Events>)> {
        let mut source = Source { members: Vec::new(), topics: HashMap::new(), metrics: metrics.clone() };
        let mut streams = HashMap::new();
        let limits = FetchLimits::new(budget, subscriptions.len());
        let admin = Admin::new(kafka)?;
        let (committed, uncommitted): (Vec<_>, Vec<_>) =
            subscriptions.into_iter().partition(|topic| topic.isolation == Isolation::ReadCommitted);
        for (isolation, subscriptions) in
            [(Isolation::ReadCommitted, committed), (Isolation::ReadUncommitted, uncommitted)]
        {
            if subscriptions.is_empty() {
                continue;
            }
            let names: Vec<String> = subscriptions.into_iter().map(|topic| topic.name).collect();
            let events = source.join(kafka, isolation, &names, limits, budget, &admin)?;
            streams.extend(names.into_iter().zip(events));
        }
        Ok((source, streams))
    }

    /// Adds a member that reads `names`.
    fn join(
        &mut self,
        kafka: &Kafka,
        isolation: Isolation,
        names: &[String],
        limits: FetchLimits,
        budget: &Budget,
        admin: &Admin,
    ) -> Result<Vec<Events>> {
        let inbox = Arc::new(Inbox::new(names.len() + 1));
        let seat = match &kafka.instance_id {
            Some(_) => None,
            None => Seat::take(&kafka.group_id, &kafka.bootstrap_servers, names),
        };
        // Two members need two instance ids.
        let given = kafka.instance_id.as_ref().map(|id| match isolation {
            Isolation::ReadCommitted => id.clone(),
            Isolation::ReadUncommitted => format!("{id}-uncommitted"),
        });
        let instance_id = given.or_else(|| seat.as_ref().map(|seat| seat.id.clone()));
        tracing::debug!(group = kafka.group_id, instance_id, "joining");
        let entries = properties::consumer(kafka, instance_id.as_deref(), isolation, limits);
        let failed = |error: NativeError| Error::halt(format!("cannot start the Kafka consumer: {error}"));
        let (client, group) = connect(&entries, &inbox, names.len()).map_err(failed)?;
        budget.wake_on_release(&inbox);

        let (mut topics, mut streams) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(EVENTS_MAX);
            let mut queue = Queue::new(&client);
            queue.watch(inbox.clone(), number);
            topics.push(Topic::new(name, queue, sender, budget.account()));
            streams.push(Events::new(receiver, inbox.clone(), number));
            self.topics.insert(name.clone(), (self.members.len(), number));
        }
        client.subscribe(names.iter().map(String::as_str)).map_err(failed)?;
        let worker = Worker {
            client: client.clone(),
            group,
            inbox: inbox.clone(),
            by_name: names.iter().cloned().zip(0..).collect(),
            topics,
            isolation,
            admin: admin.clone(),
            runtime: Handle::current(),
            reports: Reports::default(),
            metrics: self.metrics.clone(),
            generation: 0,
            seat,
            dynamic: properties::consumer(kafka, None, isolation, limits),
        };
        thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || worker.run())
            .map_err(|error| Error::halt("cannot start the Kafka poll thread").caused_by(error))?;
        self.members.push(Member { inbox, instance_id });
        Ok(streams)
    }

    fn tell(&self, topic: &str, command: impl FnOnce(usize) -> Command) {
        if let Some(&(member, number)) = self.topics.get(topic) {
            self.members[member].inbox.push(command(number));
        }
    }

    /// Continues a partition at `offset`. The loop gets [`super::Event::Positioned`] where the stream does so;
    /// nothing happens if the partition is no longer this member's.
    pub fn seek(&self, topic: &str, partition: i32, offset: i64) {
        self.tell(topic, |topic| Command::Seek { topic, partition, offset });
    }

    /// Stops reading the topic; it keeps its partitions and its place.
    pub fn pause(&self, topic: &str) {
        self.tell(topic, |topic| Command::Pause { topic, paused: true });
    }

    pub fn resume(&self, topic: &str) {
        self.tell(topic, |topic| Command::Pause { topic, paused: false });
    }

    /// Ends the topic's events and frees what was fetched for it. Its partitions stay with this member, unread, so
    /// that another daemon does not run into the same fault.
    pub fn halt(&self, topic: &str) {
        self.tell(topic, |topic| Command::Halt { topic });
    }

    /// Events anew for a topic that was halted (or whose [`Events`] were dropped): they begin with
    /// [`super::Event::Assigned`] for the partitions that this member owns. `None` for a topic that it does not read.
    pub fn reopen(&self, topic: &str) -> Option<Events> {
        let &(member, number) = self.topics.get(topic)?;
        let inbox = &self.members[member].inbox;
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        inbox.push(Command::Reopen { topic: number, sender });
        Some(Events::new(receiver, inbox.clone(), number))
    }

    /// Commits the group's offsets in the background, for lag tools: `partition → next offset`. They are never read
    /// back, so a failure is logged and nothing else.
    pub fn commit_group_offsets(&self, topic: &str, offsets: &BTreeMap<i32, i64>) {
        self.tell(topic, |topic| Command::CommitOffsets { topic, offsets: offsets.clone() });
    }

    /// The static ids under which the group knows this daemon.
    pub fn instance_ids(&self) -> Vec<&str> {
        self.members.iter().filter_map(|member| member.instance_id.as_deref()).collect()
    }

    /// Ends all events, leaves the group and frees everything, within `timeout`. Loops should have committed what
    /// they have before.
    pub async fn shutdown(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut answers = Vec::new();
        for member in self.members.drain(..) {
            let (done, answer) = oneshot::channel();
            member.inbox.push(Command::Close { deadline, done: Some(done) });
            answers.push(answer);
        }
        for answer in answers {
            // Dropped means done. librdkafka itself gets a little longer to end its threads.
            let _ = tokio::time::timeout_at((deadline + Duration::from_secs(1)).into(), answer).await;
        }
    }
}

/// A consumer with its own queue, which `inbox` is told of under number `queue`.
pub(super) fn connect(
    entries: &[(String, String)],
    inbox: &Arc<Inbox>,
    queue: usize,
) -> Result<(Arc<Client>, Queue), NativeError> {
    let client = Arc::new(Client::new(entries, Some(inbox.clone()))?);
    let mut group = Queue::of_consumer(&client);
    group.watch(inbox.clone(), queue);
    Ok((client, group))
}

impl Drop for Source {
    fn drop(&mut self) {
        for member in &self.members {
            member.inbox.push(Command::Close { deadline: Instant::now(), done: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::demo_broker::{DemoBroker, DemoRecord};
    use super::super::event::Event;
    use super::*;

    fn kafka(broker: &DemoBroker) -> Kafka {
        Kafka {
            bootstrap_servers: broker.bootstrap_servers(),
            group_id: "calve".into(),
            instance_id: None,
            properties: BTreeMap::new(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ranges_join_up_from_the_start_to_the_end() {
        let mut broker = DemoBroker::start(&[("t", 2)]).unwrap();
        for number in 0..10_000_i64 {
            let (key, value) = (number.to_string(), format!("value {number}"));
            let partition = (number % 2) as i32;
            let record =
                DemoRecord { partition, key: key.as_bytes(), value: value.as_bytes(), timestamp_ms: number + 1 };
            broker.produce("t", record).unwrap();
        }
        broker.flush().unwrap();

        let budget = Budget::new(64 << 20);
        let topic = TopicSubscription { name: "t".into(), isolation: Isolation::ReadUncommitted };
        let (source, mut streams) =
            Source::start(&kafka(&broker), vec![topic], &budget, &KafkaMetrics::default()).unwrap();
        let events = streams.get_mut("t").unwrap();
        let mut next = BTreeMap::from([(0, 0_i64), (1, 100)]);
        let mut ended = 0;
        let mut seen = 0;
        while ended < 2 {
            let event = tokio::time::timeout(Duration::from_secs(30), events.recv()).await.unwrap();
            match event.unwrap() {
                Event::Assigned { partitions, start } => {
                    let offsets = partitions.iter().map(|of| (*of, next[of])).collect();
                    start.send(offsets).unwrap();
                }
                Event::Batch(batch) => {
                    let expected = next.insert(batch.partition, batch.range.to).unwrap();
                    assert_eq!(batch.range.from, expected);
                    for record in &batch.records {
                        let number = record.offset * 2 + i64::from(batch.partition);
                        assert_eq!(batch.bytes(record.key.unwrap()), number.to_string().as_bytes());
                        assert_eq!(batch.bytes(record.value.unwrap()), format!("value {number}").as_bytes());
                        assert_eq!(record.timestamp_ms, number + 1);
                    }
                    seen += batch.records.len();
                }
                Event::End { offset, .. } => {
                    assert_eq!(offset, 5_000);
                    ended += 1;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!((seen, next), (9_900, BTreeMap::from([(0, 5_000), (1, 5_000)])));
        assert_eq!(budget.used_bytes(), 0, "all batches were dropped");
        let started = Instant::now();
        source.shutdown(Duration::from_secs(10)).await;
        assert!(started.elapsed() < Duration::from_secs(9), "left the group in {:?}", started.elapsed());
        assert!(events.recv().await.is_none());
    }
}
