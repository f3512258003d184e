//! Offsets against the log: gone ones and those of another topic under the name halt, times become offsets, and a range
//! is read again.

use std::collections::BTreeMap;

use calve::batch::OffsetRange;
use calve::config::Isolation;
use calve::error::{Error, Verdict};
use calve::source::{Admin, Budget, RangeReader};

use crate::support::broker::{Broker, Record};
use crate::support::source::{Loop, Met, PATIENCE, expected, numbered, start};

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
