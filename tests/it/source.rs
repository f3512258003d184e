//! What the source promises its loops: ranges that join up, nothing lost, nothing that was aborted, no one held up.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use calve::batch::{OffsetRange, RawBatch, TimestampType};
use calve::config::{Isolation, Kafka};
use calve::error::{Error, Verdict};
use calve::source::{Admin, Budget, Event, Events, RangeReader, Source, TopicSubscription};
use calve::telemetry::metrics::KafkaMetrics;
use rdkafka::producer::Producer;
use tokio::time::timeout;

use crate::support::broker::{Broker, Record};

const PATIENCE: Duration = Duration::from_secs(60);

fn committed(name: &str) -> TopicSubscription {
    TopicSubscription { name: name.to_owned(), isolation: Isolation::ReadCommitted }
}

fn start(kafka: &Kafka, topics: &[&str]) -> (Source, HashMap<String, Events>, Budget) {
    let budget = Budget::new(64 << 20);
    let subscriptions = topics.iter().map(|name| committed(name)).collect();
    let (source, streams) = Source::start(kafka, subscriptions, &budget, &KafkaMetrics::default()).unwrap();
    (source, streams, budget)
}

/// A loop as the ingest loop is, which keeps what it got in memory: its ledger.
#[derive(Debug)]
struct Loop {
    events: Events,
    /// By partition: the next offset, as the ledger counts it.
    ledger: BTreeMap<i32, i64>,
    /// By partition: offset → value.
    records: BTreeMap<i32, BTreeMap<i64, Option<Vec<u8>>>>,
    ends: BTreeMap<i32, i64>,
    owned: Vec<i32>,
    lost: bool,
}

/// What [`Loop::step`] met that tests look at.
#[derive(Debug)]
enum Met {
    Assigned,
    Revoked,
    Batch(RawBatch),
    End,
    Positioned(i32, i64),
    Failed(Error),
    Closed,
}

impl Loop {
    fn new(events: Events) -> Self {
        Self::at(events, BTreeMap::new())
    }

    fn at(events: Events, ledger: BTreeMap<i32, i64>) -> Self {
        let (records, ends) = (BTreeMap::new(), BTreeMap::new());
        Loop { events, ledger, records, ends, owned: Vec::new(), lost: false }
    }

    async fn step(&mut self) -> Met {
        let event = timeout(PATIENCE, self.events.recv()).await.unwrap_or_else(|_| {
            panic!("the source says nothing; owned {:?}, ledger {:?}, ends {:?}", self.owned, self.ledger, self.ends)
        });
        match event {
            None => Met::Closed,
            Some(Event::Assigned { partitions, start }) => {
                let offsets: BTreeMap<i32, i64> =
                    partitions.iter().map(|of| (*of, self.ledger.get(of).copied().unwrap_or(0))).collect();
                self.ledger.extend(offsets.clone());
                self.owned.extend(partitions);
                start.send(offsets).unwrap();
                Met::Assigned
            }
            Some(Event::Revoked { partitions, lost, done }) => {
                self.owned.retain(|of| !partitions.contains(of));
                self.ends.retain(|of, _| !partitions.contains(of));
                self.lost |= lost;
                // The wait for it may be over by now: it is bounded.
                let _ = done.send(());
                Met::Revoked
            }
            Some(Event::Batch(batch)) => {
                let partition = batch.partition;
                assert!(self.owned.contains(&partition), "a batch of a partition that is not ours");
                assert_eq!(batch.range.from, self.ledger[&partition], "ranges of partition {partition} join up");
                assert_eq!(batch.range.to, batch.records.last().unwrap().offset + 1);
                self.ledger.insert(partition, batch.range.to);
                let records = self.records.entry(partition).or_default();
                for record in &batch.records {
                    assert!(record.offset >= batch.range.from);
                    let value = record.value.map(|value| batch.bytes(value).to_vec());
                    assert!(records.insert(record.offset, value).is_none(), "offset {} came twice", record.offset);
                }
                Met::Batch(batch)
            }
            Some(Event::End { partition, offset }) => {
                assert!(offset >= self.ledger[&partition]);
                self.ledger.insert(partition, offset);
                self.ends.insert(partition, offset);
                Met::End
            }
            Some(Event::Positioned { partition, offset }) => Met::Positioned(partition, offset),
            Some(Event::Failed(error)) => Met::Failed(error),
        }
    }

    /// Goes on until each of `partitions` has ended at its offset.
    async fn until(&mut self, ends: &[(i32, i64)]) {
        while !ends.iter().all(|(of, end)| self.ends.get(of) == Some(end)) {
            match self.step().await {
                Met::Failed(error) if error.is_retry() => {}
                Met::Failed(error) => panic!("{error}"),
                Met::Closed => panic!("the stream ended at {:?}", self.ledger),
                _ => {}
            }
        }
    }

    async fn until_failed(&mut self) -> Error {
        loop {
            if let Met::Failed(error) = self.step().await {
                return error;
            }
        }
    }

    /// The values of a partition in offset order, as text.
    fn values(&self, partition: i32) -> Vec<(i64, String)> {
        let records = self.records.get(&partition).into_iter().flatten();
        let text = |value: &Option<Vec<u8>>| match value {
            Some(value) => String::from_utf8(value.clone()).unwrap(),
            None => "(tombstone)".to_owned(),
        };
        records.map(|(offset, value)| (*offset, text(value))).collect()
    }
}

fn numbered(partition: i32, range: std::ops::Range<usize>) -> Vec<Record> {
    range.map(|number| Record::new(partition, format!("value {number}"))).collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<(i64, String)> {
    range.map(|number| (number as i64, format!("value {number}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_with_all_that_it_has() {
    let broker = Broker::light();
    broker.create_topic("t", 1, &[]);
    let records = [
        Record::new(0, "a").key("k").timestamp(1_700_000_000_123).header("h", Some(b"1")).header("h", None),
        Record::tombstone(0, "k").timestamp(5),
        Record::new(0, "").timestamp(6).header("", Some(b"")),
    ];
    broker.produce("t", &records);
    let (_source, mut streams, _) = start(&broker.config("g"), &["t"]);
    let mut events = Loop::new(streams.remove("t").unwrap());
    let batch = loop {
        if let Met::Batch(batch) = events.step().await {
            break batch;
        }
    };
    let seen: Vec<_> = batch
        .records
        .iter()
        .map(|record| {
            assert_eq!(record.timestamp_type, TimestampType::CreateTime);
            let headers: Vec<_> = batch.headers[record.headers.start as usize..record.headers.end as usize]
                .iter()
                .map(|(name, value)| (batch.bytes(*name), value.map(|value| batch.bytes(value))))
                .collect();
            let bytes = |span: Option<_>| span.map(|span| batch.bytes(span));
            (record.timestamp_ms, bytes(record.key), bytes(record.value), headers)
        })
        .collect();
    let none: Option<&[u8]> = None;
    assert_eq!(
        seen,
        [
            (
                1_700_000_000_123,
                Some(&b"k"[..]),
                Some(&b"a"[..]),
                vec![(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]
            ),
            (5, Some(&b"k"[..]), None, vec![]),
            (6, none, Some(&b""[..]), vec![(&b""[..], Some(&b""[..]))]),
        ]
    );
    assert!(batch.arena.len() >= RawBatch::PADDING);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_is_read() {
    let broker = Broker::shared_kafka();
    broker.create_topic("codecs", 1, &[]);
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (number, codec) in codecs.iter().enumerate() {
        let records = numbered(0, number * 1_000..(number + 1) * 1_000);
        broker.produce_with("codecs", &records, &[("compression.type", codec)]);
    }
    let (source, mut streams, _) = start(&broker.config("codecs"), &["codecs"]);
    let mut events = Loop::new(streams.remove("codecs").unwrap());
    events.until(&[(0, 5_000)]).await;
    assert_eq!(events.values(0), expected(0..5_000));
    source.shutdown(PATIENCE).await;
}

async fn aborted_transactions_never_arrive(broker: &Broker, topic: &str) {
    broker.create_topic(topic, 1, &[]);
    let tx = format!("{topic}-tx");
    broker.transaction(&tx, topic, &[Record::new(0, "aborted first")], false);
    broker.transaction(&tx, topic, &[Record::new(0, "a"), Record::new(0, "b")], true);
    broker.transaction(&tx, topic, &[Record::new(0, "aborted")], false);
    broker.produce(topic, &[Record::new(0, "plain")]);
    broker.transaction(&tx, topic, &[Record::new(0, "aborted last")], false);
    // Offsets: 0 aborted, 1 marker, 2 a, 3 b, 4 marker, 5 aborted, 6 marker, 7 plain, 8 aborted, 9 marker.
    let (source, mut streams, _) = start(&broker.config(topic), &[topic]);
    let mut events = Loop::new(streams.remove(topic).unwrap());
    events.until(&[(0, 10)]).await;
    let texts = |values: &[(i64, &str)]| values.iter().map(|(at, text)| (*at, (*text).to_owned())).collect::<Vec<_>>();
    assert_eq!(events.values(0), texts(&[(2, "a"), (3, "b"), (7, "plain")]));

    // What is still open ends the readable log; once committed it arrives, its range joining up.
    let open = broker.open_transaction(&tx, topic, &[Record::new(0, "late")]);
    broker.produce(topic, &[Record::new(0, "behind it")]);
    let admin = Admin::new(&broker.config(topic)).unwrap();
    let marks = admin.watermarks(topic, Isolation::ReadCommitted).await.unwrap()[&0];
    assert_eq!((marks.low, marks.end), (0, 10), "the last stable offset");
    let marks = admin.watermarks(topic, Isolation::ReadUncommitted).await.unwrap()[&0];
    assert_eq!((marks.low, marks.end), (0, 12), "the high watermark");
    open.commit_transaction(PATIENCE).unwrap();
    events.until(&[(0, 13)]).await;
    assert_eq!(events.values(0)[3..], texts(&[(10, "late"), (11, "behind it")]));
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_never_arrive_from_the_light_broker() {
    aborted_transactions_never_arrive(&Broker::light(), "tx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_never_arrive_from_kafka() {
    aborted_transactions_never_arrive(Broker::shared_kafka(), "tx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_both_isolations_are_read_in_one_daemon() {
    let broker = Broker::light();
    broker.create_topic("c", 1, &[]);
    broker.create_topic("u", 1, &[]);
    for topic in ["c", "u"] {
        broker.transaction("tx", topic, &[Record::new(0, "aborted")], false);
        broker.produce(topic, &[Record::new(0, "plain")]);
    }
    let subscriptions =
        vec![committed("c"), TopicSubscription { name: "u".into(), isolation: Isolation::ReadUncommitted }];
    let mut config = broker.config("g");
    config.instance_id = Some("one".into());
    let (source, mut streams) =
        Source::start(&config, subscriptions, &Budget::new(64 << 20), &KafkaMetrics::default()).unwrap();
    let mut reads = Loop::new(streams.remove("c").unwrap());
    reads.until(&[(0, 3)]).await;
    assert_eq!(reads.values(0), [(2, "plain".to_owned())]);
    let mut reads = Loop::new(streams.remove("u").unwrap());
    reads.until(&[(0, 3)]).await;
    assert_eq!(reads.values(0), [(0, "aborted".to_owned()), (2, "plain".to_owned())]);
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_gaps_lie_inside_ranges() {
    let broker = Broker::shared_kafka();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
    ];
    broker.create_topic("compacted", 1, &configs);
    for round in 0..5 {
        let records: Vec<_> =
            (0..100).map(|key| Record::new(0, format!("{key} in {round}")).key(format!("{key}"))).collect();
        broker.produce("compacted", &records);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    // Reads until the cleaner was there: 500 offsets, far fewer records.
    let started = Instant::now();
    loop {
        broker.produce("compacted", &[Record::new(0, "later").key("later")]);
        let end = broker.watermarks("compacted", 0).1;
        let (source, mut streams, _) = start(&broker.config("compacted"), &["compacted"]);
        let mut events = Loop::new(streams.remove("compacted").unwrap());
        events.until(&[(0, end)]).await;
        source.shutdown(PATIENCE).await;
        let count = events.records[&0].len();
        if count <= 200 {
            let values: Vec<_> = events.values(0).into_iter().map(|(_, value)| value).collect();
            for key in 0..100 {
                assert!(values.contains(&format!("{key} in 4")), "the last value of key {key}");
            }
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the cleaner did not run: {count} records of {end}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn a_log_that_starts_past_the_ledger_halts(broker: &Broker, topic: &str) {
    broker.create_topic(topic, 2, &[]);
    broker.produce(topic, &numbered(0, 0..100));
    broker.produce(topic, &numbered(1, 0..10));
    broker.delete_records(topic, 0, 60);
    let (source, mut streams, _) = start(&broker.config(topic), &[topic]);
    let mut events = Loop::at(streams.remove(topic).unwrap(), BTreeMap::from([(0, 20)]));
    let error = events.until_failed().await;
    assert_eq!(error.verdict, Verdict::Halt);
    let begin =
        format!("topic {topic} partition 0: 40 offsets are gone: the next to read is 20, but the log now starts at 60");
    assert!(error.message.starts_with(&begin), "{error}");
    assert!(error.message.contains("calve ledger reset"), "{error}");
    // The other partition goes on, and a new start is accepted.
    events.until(&[(1, 10)]).await;
    source.seek(topic, 0, 60);
    while !matches!(events.step().await, Met::Positioned(0, 60)) {}
    events.ledger.insert(0, 60);
    events.until(&[(0, 100)]).await;
    assert_eq!(events.values(0).len(), 40);
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_starts_past_the_ledger_halts_on_the_light_broker() {
    a_log_that_starts_past_the_ledger_halts(&Broker::light(), "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_starts_past_the_ledger_halts_on_kafka() {
    a_log_that_starts_past_the_ledger_halts(Broker::shared_kafka(), "gone").await;
}

async fn a_recreated_topic_is_told_by_its_id(broker: &Broker, topic: &str) {
    broker.create_topic(topic, 1, &[]);
    broker.produce(topic, &numbered(0, 0..50));
    let admin = Admin::new(&broker.config(topic)).unwrap();
    let before = admin.topic_id(topic).await.unwrap().expect("an id");
    assert_eq!(admin.topic_id(topic).await.unwrap().as_ref(), Some(&before), "the id stays");
    assert!(admin.cluster_id().await.unwrap().is_some());
    broker.recreate_topic(topic, 1);
    broker.produce(topic, &numbered(0, 0..5));
    let after = admin.topic_id(topic).await.unwrap().expect("an id");
    assert_ne!(before, after);

    // A reader that goes on where it was meets a log that is too short.
    let (source, mut streams, _) = start(&broker.config(topic), &[topic]);
    let mut events = Loop::at(streams.remove(topic).unwrap(), BTreeMap::from([(0, 50)]));
    let error = events.until_failed().await;
    assert_eq!(error.verdict, Verdict::Halt);
    assert!(error.message.contains("the log ends at 5, but offsets below 50 were already read"), "{error}");
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_told_by_its_id_on_the_light_broker() {
    a_recreated_topic_is_told_by_its_id(&Broker::light(), "again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_told_by_its_id_on_kafka() {
    a_recreated_topic_is_told_by_its_id(Broker::shared_kafka(), "again").await;
}

async fn reading_goes_on_after_a_broker_restart(broker: &Broker, kill: bool) {
    broker.create_topic("t", 2, &[]);
    broker.produce("t", &numbered(0, 0..500));
    let (source, mut streams, _) = start(&broker.config("g"), &["t"]);
    let mut events = Loop::new(streams.remove("t").unwrap());
    events.until(&[(0, 500), (1, 0)]).await;
    if kill {
        broker.kill()
    } else {
        broker.stop()
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.start();
    broker.produce("t", &numbered(0, 500..1_000));
    broker.produce("t", &numbered(1, 0..10));
    events.until(&[(0, 1_000), (1, 10)]).await;
    assert_eq!(events.values(0), expected(0..1_000));
    assert_eq!(events.values(1), expected(0..10));
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_after_a_restart_of_the_light_broker() {
    reading_goes_on_after_a_broker_restart(&Broker::light(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_after_a_restart_of_kafka() {
    reading_goes_on_after_a_broker_restart(&Broker::kafka(), true).await;
}

/// Two daemons share a topic: each record arrives at exactly one of them, counting from where the other left off.
async fn partitions_move_between_two_daemons(broker: &Broker, topic: &str) {
    const PARTITIONS: i32 = 6;
    broker.create_topic(topic, PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        broker.produce(topic, &numbered(partition, 0..200));
    }
    let (first_source, mut streams, _) = start(&broker.config(topic), &[topic]);
    let mut first = Loop::new(streams.remove(topic).unwrap());
    let all: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 200)).collect();
    first.until(&all).await;

    let (second_source, mut streams, _) = start(&broker.config(topic), &[topic]);
    let mut second = Loop::at(streams.remove(topic).unwrap(), first.ledger.clone());
    let deadline = Instant::now() + PATIENCE;
    while first.owned.len() != 3 || second.owned.len() != 3 {
        assert!(Instant::now() < deadline, "not shared out: {:?} and {:?}", first.owned, second.owned);
        tokio::select! {
            met = first.step() => assert!(!matches!(met, Met::Failed(_)), "{met:?}"),
            met = second.step() => assert!(!matches!(met, Met::Failed(_)), "{met:?}"),
        }
    }
    assert!(!first.lost && !second.lost);
    for partition in 0..PARTITIONS {
        broker.produce(topic, &numbered(partition, 200..300));
    }
    let ends = |of: &Loop| of.owned.iter().map(|partition| (*partition, 300)).collect::<Vec<_>>();
    first.until(&ends(&first)).await;
    second.until(&ends(&second)).await;
    for partition in &first.owned {
        assert_eq!(first.values(*partition), expected(0..300));
    }
    for partition in &second.owned {
        assert_eq!(second.values(*partition), expected(0..300)[200..]);
    }

    // The second leaves: the first gets its partitions back, and reads on from the second's ledger.
    second_source.shutdown(PATIENCE).await;
    while !matches!(second.step().await, Met::Closed) {}
    first.ledger.extend(second.owned.iter().map(|partition| (*partition, second.ledger[partition])));
    for partition in 0..PARTITIONS {
        broker.produce(topic, &numbered(partition, 300..310));
    }
    let all: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 310)).collect();
    first.until(&all).await;
    for partition in 0..PARTITIONS {
        let both: BTreeMap<_, _> = first.values(partition).into_iter().chain(second.values(partition)).collect();
        assert_eq!(both.into_iter().collect::<Vec<_>>(), expected(0..310));
    }
    first_source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_two_daemons_on_the_light_broker() {
    partitions_move_between_two_daemons(&Broker::light(), "shared").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_two_daemons_on_kafka() {
    partitions_move_between_two_daemons(Broker::shared_kafka(), "shared").await;
}

/// With a session that outlasts the test: who waits for it to end fails.
fn long_session(broker: &Broker, group: &str) -> Kafka {
    let mut config = broker.config(group);
    config.properties.insert("session.timeout.ms".into(), "60000".into());
    config
}

async fn who_died_is_succeeded_at_once_and_who_left_is_not_waited_for(broker: &Broker, topic: &str) {
    let config = long_session(broker, topic);
    broker.create_topic(topic, 4, &[]);
    let all = |end: usize| (0..4).map(|partition| (partition, end as i64)).collect::<Vec<_>>();
    let produce = |range: std::ops::Range<usize>| {
        (0..4).for_each(|partition| broker.produce(topic, &numbered(partition, range.clone())));
    };
    produce(0..10);
    let (source, mut streams, _) = start(&config, &[topic]);
    let mut first = Loop::new(streams.remove(topic).unwrap());
    first.until(&all(10)).await;
    let id = source.instance_ids()[0].to_owned();
    // It goes without a word.
    drop(source);
    while !matches!(first.step().await, Met::Closed) {}
    // A process that dies frees its seat at once; here librdkafka ends its threads first.
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string("/proc/net/unix").unwrap().contains(&id) {
        assert!(Instant::now() < deadline, "the seat {id} is still held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    produce(10..20);
    let (source, mut streams, _) = start(&config, &[topic]);
    assert_eq!(source.instance_ids(), [&id], "the seat is free again");
    let mut second = Loop::at(streams.remove(topic).unwrap(), first.ledger.clone());
    timeout(Duration::from_secs(5), second.until(&all(20))).await.expect("it takes its predecessor's place");

    let (other, mut streams, _) = start(&config, &[topic]);
    assert_ne!(other.instance_ids(), [&id]);
    let mut third = Loop::at(streams.remove(topic).unwrap(), second.ledger.clone());
    while second.owned.len() != 2 || third.owned.len() != 2 {
        tokio::select! {
            met = second.step() => assert!(!matches!(met, Met::Failed(_)), "{met:?}"),
            met = third.step() => assert!(!matches!(met, Met::Failed(_)), "{met:?}"),
        }
    }
    other.shutdown(PATIENCE).await;
    while !matches!(third.step().await, Met::Closed) {}
    second.ledger.extend(third.owned.iter().map(|partition| (*partition, third.ledger[partition])));
    produce(20..30);
    timeout(Duration::from_secs(5), second.until(&all(30))).await.expect("nobody waits for who has left");
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_died_is_succeeded_at_once_on_the_light_broker() {
    who_died_is_succeeded_at_once_and_who_left_is_not_waited_for(&Broker::light(), "seats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_died_is_succeeded_at_once_on_kafka() {
    who_died_is_succeeded_at_once_and_who_left_is_not_waited_for(Broker::shared_kafka(), "seats").await;
}

/// Another member under somebody's static id; it stays until it is dropped.
struct Thief {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    polling: Option<std::thread::JoinHandle<()>>,
}

impl Thief {
    fn start(broker: &Broker, topic: &'static str, id: &str) -> Thief {
        use rdkafka::consumer::{BaseConsumer, Consumer};
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("group.id", topic)
            .set("group.instance.id", id)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let polling = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = consumer.poll(Duration::from_millis(50));
            }
        });
        Thief { stop, polling: Some(polling) }
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.polling.take().map(std::thread::JoinHandle::join);
    }
}

/// Two containers of one machine with the same host name have the same id; here it is a thief who has it.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_of_its_seat_joins_again_without_one() {
    let broker = Broker::shared_kafka();
    broker.create_topic("stolen", 2, &[]);
    (0..2).for_each(|partition| broker.produce("stolen", &numbered(partition, 0..10)));
    let (source, mut streams, _) = start(&broker.config("stolen"), &["stolen"]);
    let mut events = Loop::new(streams.remove("stolen").unwrap());
    events.until(&[(0, 10), (1, 10)]).await;
    let thief = Thief::start(broker, "stolen", source.instance_ids()[0]);
    // What it had is lost, and it gets its share as any member.
    while !events.lost || events.owned.len() != 1 {
        let met = events.step().await;
        assert!(!matches!(&met, Met::Failed(error) if !error.is_retry()), "{met:?}");
    }
    let kept = events.owned[0];
    broker.produce("stolen", &numbered(kept, 10..20));
    events.until(&[(kept, 20)]).await;
    assert_eq!(events.values(kept), expected(0..20));
    drop(thief);
    source.shutdown(PATIENCE).await;
}

/// An id that the user gave to two daemons is for the user to mend.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_of_the_id_that_it_was_given_fails_for_good() {
    let broker = Broker::shared_kafka();
    broker.create_topic("given", 2, &[]);
    let mut config = broker.config("given");
    config.instance_id = Some("mine".into());
    let (source, mut streams, _) = start(&config, &["given"]);
    assert_eq!(source.instance_ids(), ["mine"]);
    let mut events = Loop::new(streams.remove("given").unwrap());
    events.until(&[(0, 0), (1, 0)]).await;
    let thief = Thief::start(broker, "given", "mine");
    let error = events.until_failed().await;
    assert!(!error.is_retry() && error.to_string().contains("kafka.instance_id"), "{error}");
    drop(thief);
    source.shutdown(PATIENCE).await;
}

/// A loop that waits for its catalog cannot answer; the group does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_waits_for_what_is_down_holds_up_no_rebalance() {
    let broker = Broker::light();
    // Of five partitions another daemon gets two, of which one at least is of the topic that waits.
    for (topic, partitions) in [("down", 4), ("up", 1)] {
        broker.create_topic(topic, partitions, &[]);
        (0..partitions).for_each(|partition| broker.produce(topic, &numbered(partition, 0..10)));
    }
    let (first_source, mut streams, _) = start(&broker.config("g"), &["down", "up"]);
    let (mut down, mut first) = (Loop::new(streams.remove("down").unwrap()), Loop::new(streams.remove("up").unwrap()));
    down.until(&[(0, 10), (1, 10), (2, 10), (3, 10)]).await;
    first.until(&[(0, 10)]).await;
    let _held = down.events.stall().hold();

    let started = Instant::now();
    let (second_source, mut streams, _) = start(&broker.config("g"), &["down", "up"]);
    let mut second = Loop::at(streams.remove("down").unwrap(), down.ledger.clone());
    while second.owned.is_empty() {
        let met = second.step().await;
        assert!(!matches!(met, Met::Failed(_)), "{met:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
    second_source.shutdown(PATIENCE).await;
    first_source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_loop_stands_still_holds_up_no_other() {
    let broker = Broker::light();
    broker.create_topic("stuck", 2, &[]);
    broker.create_topic("lively", 2, &[]);
    let large: Vec<_> = (0..2_000).map(|number| Record::new(number % 2, vec![b'x'; 10_000])).collect();
    broker.produce("stuck", &large);
    for partition in 0..2 {
        broker.produce("lively", &numbered(partition, 0..2_000));
    }
    let budget = Budget::new(4 << 20);
    let subscriptions = vec![committed("stuck"), committed("lively")];
    let (source, mut streams) =
        Source::start(&broker.config("g"), subscriptions, &budget, &KafkaMetrics::default()).unwrap();
    let mut stuck = Loop::new(streams.remove("stuck").unwrap());
    while !matches!(stuck.step().await, Met::Assigned) {}
    // From here on nobody listens to `stuck`, with 20 MB of backlog and a budget of 4 MiB for both.
    let mut lively = Loop::new(streams.remove("lively").unwrap());
    lively.until(&[(0, 2_000), (1, 2_000)]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(budget.used_bytes() <= budget.limit_bytes(), "{} bytes in batches", budget.used_bytes());
    broker.produce("lively", &numbered(0, 2_000..2_100));
    lively.until(&[(0, 2_100)]).await;
    assert_eq!(lively.values(0), expected(0..2_100));
    // It catches up once it listens again.
    stuck.until(&[(0, 1_000), (1, 1_000)]).await;
    assert_eq!(stuck.records[&0].len() + stuck.records[&1].len(), 2_000);
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_say_where_to_start_holds_up_no_other() {
    let broker = Broker::light();
    broker.create_topic("mute", 1, &[]);
    broker.create_topic("good", 1, &[]);
    broker.produce("mute", &numbered(0, 0..10));
    broker.produce("good", &numbered(0, 0..10));
    let (source, mut streams, _) = start(&broker.config("g"), &["mute", "good"]);
    let mut mute = streams.remove("mute").unwrap();
    let Some(Event::Assigned { start: unanswered, .. }) = timeout(PATIENCE, mute.recv()).await.unwrap() else {
        panic!("not assigned");
    };
    let mut good = Loop::new(streams.remove("good").unwrap());
    good.until(&[(0, 10)]).await;
    // It may still answer later.
    unanswered.send(BTreeMap::from([(0, 4)])).unwrap();
    let Some(Event::Batch(batch)) = timeout(PATIENCE, mute.recv()).await.unwrap() else { panic!("no batch") };
    assert_eq!(batch.range, OffsetRange { from: 4, to: 10 });
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_halted_reopened_and_sought_topics() {
    let broker = Broker::light();
    broker.create_topic("t", 1, &[]);
    broker.produce("t", &numbered(0, 0..10));
    let (source, mut streams, _) = start(&broker.config("g"), &["t"]);
    let mut events = Loop::new(streams.remove("t").unwrap());
    events.until(&[(0, 10)]).await;

    source.pause("t");
    tokio::time::sleep(Duration::from_millis(300)).await;
    broker.produce("t", &numbered(0, 10..20));
    assert!(timeout(Duration::from_secs(2), events.events.recv()).await.is_err(), "nothing arrives while paused");
    source.resume("t");
    events.until(&[(0, 20)]).await;
    assert_eq!(events.values(0), expected(0..20));

    source.seek("t", 0, 5);
    while !matches!(events.step().await, Met::Positioned(0, 5)) {}
    events.ledger.insert(0, 5);
    events.records.clear();
    events.ends.clear();
    events.until(&[(0, 20)]).await;
    assert_eq!(events.values(0), expected(0..20)[5..]);

    source.halt("t");
    while !matches!(events.step().await, Met::Closed) {}
    let mut again = Loop::at(source.reopen("t").unwrap(), BTreeMap::from([(0, 18)]));
    again.until(&[(0, 20)]).await;
    assert_eq!(again.values(0), expected(0..20)[18..]);
    assert!(source.reopen("unknown").is_none());

    source.commit_group_offsets("t", &BTreeMap::from([(0, 20)]));
    let deadline = Instant::now() + PATIENCE;
    while broker.group_offsets("g", "t", 1) != HashMap::from([(0, 20)]) {
        assert!(Instant::now() < deadline, "group offsets were not committed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    source.shutdown(PATIENCE).await;
    assert!(matches!(again.step().await, Met::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_says_so_and_is_found_later() {
    let broker = Broker::light();
    broker.create_topic("there", 1, &[]);
    broker.produce("there", &numbered(0, 0..3));
    let mut config = broker.config("g");
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    config.properties.insert("topic.metadata.propagation.max.ms".into(), "500".into());
    let (source, mut streams, _) = start(&config, &["missing", "there"]);
    let mut there = Loop::new(streams.remove("there").unwrap());
    there.until(&[(0, 3)]).await;
    let mut missing = Loop::new(streams.remove("missing").unwrap());
    let error = missing.until_failed().await;
    assert!(error.is_retry());
    assert!(error.message.starts_with("topic missing does not exist on the broker"), "{error}");
    let admin = Admin::new(&config).unwrap();
    let error = admin.partitions("missing").await.unwrap_err();
    assert!(error.message.starts_with("topic missing does not exist on the broker"), "{error}");

    broker.create_topic("missing", 1, &[]);
    broker.produce("missing", &numbered(0, 0..3));
    missing.until(&[(0, 3)]).await;
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_fails_requests_with_words_and_stops_in_time() {
    let config = Kafka {
        bootstrap_servers: "127.0.0.1:1".into(),
        group_id: "g".into(),
        instance_id: None,
        properties: BTreeMap::new(),
    };
    let admin = Admin::new(&config).unwrap();
    let error = admin.check().await.unwrap_err();
    assert!(error.is_retry());
    assert!(error.message.starts_with("no answer from kafka at 127.0.0.1:1"), "{error}");
    let error = admin.watermarks("t", Isolation::ReadCommitted).await.unwrap_err();
    assert!(error.is_retry() && error.message.contains("no answer from 127.0.0.1:1"), "{error}");

    let (source, mut streams, _) = start(&config, &["t"]);
    let mut events = streams.remove("t").unwrap();
    assert!(timeout(Duration::from_secs(1), events.recv()).await.is_err());
    let started = Instant::now();
    source.shutdown(Duration::from_secs(3)).await;
    assert!(started.elapsed() < Duration::from_secs(6), "took {:?}", started.elapsed());
    assert!(events.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_found() {
    let broker = Broker::light();
    broker.create_topic("t", 1, &[]);
    broker.produce("t", &numbered(0, 0..3));
    let mut config = broker.config("g");
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    let (source, mut streams, _) = start(&config, &["t"]);
    let mut events = Loop::new(streams.remove("t").unwrap());
    events.until(&[(0, 3)]).await;
    broker.add_partitions("t", 3);
    broker.produce("t", &numbered(0, 3..6));
    broker.produce("t", &numbered(2, 0..3));
    events.until(&[(0, 6), (1, 0), (2, 3)]).await;
    // The rebalance in between made librdkafka fetch partition 0 anew: from where it was, not one further.
    assert_eq!(events.values(0), expected(0..6));
    source.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    for broker in [&Broker::light(), Broker::shared_kafka()] {
        // Records of 1970 are past any retention; the broker would delete them at its next look.
        broker.create_topic("times", 2, &[("retention.ms", "-1")]);
        let records: Vec<_> = (0..100).map(|n| Record::new(0, "x").timestamp(1_000_000 + n * 1_000)).collect();
        broker.produce("times", &records);
        let admin = Admin::new(&broker.config("times")).unwrap();
        let isolation = Isolation::ReadCommitted;
        let at = |millis| admin.offsets_for_time("times", &[0, 1], millis, isolation);
        assert_eq!(at(1_041_500).await.unwrap(), BTreeMap::from([(0, 42), (1, 0)]));
        assert_eq!(at(0).await.unwrap(), BTreeMap::from([(0, 0), (1, 0)]));
        assert_eq!(at(9_000_000).await.unwrap(), BTreeMap::from([(0, 100), (1, 0)]), "past the last: the end");
        assert_eq!(admin.partitions("times").await.unwrap(), [0, 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_read_again() {
    let broker = Broker::light();
    broker.create_topic("t", 1, &[]);
    broker.produce("t", &numbered(0, 0..5_000));
    broker.transaction("tx", "t", &[Record::new(0, "aborted")], false);
    let read = |from, to| {
        let (config, budget) = (broker.config("g"), Budget::new(16 << 20));
        async move {
            let range = OffsetRange { from, to };
            let mut reader = RangeReader::start(&config, "t", 0, range, Isolation::ReadCommitted, &budget).unwrap();
            let (mut next, mut values) = (from, Vec::new());
            while let Some(batch) = reader.next().await? {
                assert_eq!(batch.range.from, next);
                next = batch.range.to;
                assert!(next <= to);
                for record in &batch.records {
                    let value = String::from_utf8(batch.bytes(record.value.unwrap()).to_vec()).unwrap();
                    values.push((record.offset, value));
                }
            }
            Ok::<_, Error>(values)
        }
    };
    assert_eq!(read(0, 5_002).await.unwrap(), expected(0..5_000));
    assert_eq!(read(1_234, 4_321).await.unwrap(), expected(0..5_000)[1_234..4_321]);
    assert_eq!(read(7, 7).await.unwrap(), []);
    let error = read(4_990, 6_000).await.unwrap_err();
    assert!(error.message.contains("cannot read offsets 5000 to 6000"), "{error}");
    broker.delete_records("t", 0, 100);
    let error = read(50, 200).await.unwrap_err();
    assert!(error.message.contains("offset 50 is no longer in the log"), "{error}");
    assert!(broker.group_offsets("g", "t", 1).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_broker_are_ridden_out() {
    let broker = Broker::light_with(&["-brokers", "3"]);
    broker.create_topic("t", 3, &[]);
    for partition in 0..3 {
        broker.produce("t", &numbered(partition, 0..1_000));
    }
    broker.control("/fault?key=Fetch&err=NOT_LEADER_FOR_PARTITION&count=5");
    broker.control("/fault?key=JoinGroup&err=COORDINATOR_LOAD_IN_PROGRESS&count=2&top=1");
    broker.control("/sleep?key=Fetch&ms=700&count=3");
    let (source, mut streams, _) = start(&broker.config("g"), &["t"]);
    let mut events = Loop::new(streams.remove("t").unwrap());
    events.until(&[(0, 1_000), (1, 1_000), (2, 1_000)]).await;
    for (partition, node) in [(0, 1), (1, 2), (2, 0)] {
        broker.control(&format!("/move?topic=t&partition={partition}&node={node}"));
    }
    for partition in 0..3 {
        broker.produce("t", &numbered(partition, 1_000..1_500));
    }
    events.until(&[(0, 1_500), (1, 1_500), (2, 1_500)]).await;
    for partition in 0..3 {
        assert_eq!(events.values(partition), expected(0..1_500));
    }
    source.shutdown(PATIENCE).await;
}
