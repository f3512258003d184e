//! The records that the source hands on: each with all that it has, from any codec, across compaction's gaps, and none
//! of an aborted transaction unless the topic asks for it.

use std::time::{Duration, Instant};

use calve::batch::{RawBatch, TimestampType};
use calve::config::Isolation;
use calve::source::{Admin, Budget, Source, TopicSubscription};
use calve::telemetry::metrics::KafkaMetrics;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::Producer;

use crate::support::broker::{Broker, Record};
use crate::support::source::{Loop, Met, PATIENCE, committed, expected, numbered, start};

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

/// Most records have none, which the source finds out by the bytes behind the value: whatever these are, and wherever on a
/// page they lie.
#[tokio::test(flavor = "multi_thread")]
async fn headers_are_told_from_what_lies_around_them() {
    const RECORDS: usize = 20_000;
    let broker = Broker::shared_kafka();
    broker.create_topic("headers", 1, &[]);
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = Vec::with_capacity(RECORDS);
    for _ in 0..RECORDS {
        let bytes = vec![rng.random_range(0..3_u8); rng.random_range(0..300)];
        let mut record = Record::new(0, bytes);
        if rng.random_bool(0.05) {
            record.value = None;
        }
        for _ in 0..if rng.random_bool(0.3) { rng.random_range(1..4) } else { 0 } {
            let value = [0; 2];
            record = record.header(["", "h"][rng.random_range(0..2)], rng.random_bool(0.5).then_some(&value));
        }
        records.push(record);
    }
    for (codec, records) in ["none", "zstd"].into_iter().zip(records.chunks(RECORDS / 2)) {
        broker.produce_with("headers", records, &[("compression.type", codec)]);
    }
    let (source, mut streams, _) = start(&broker.config("headers"), &["headers"]);
    let mut events = Loop::new(streams.remove("headers").unwrap());
    let mut expected = records.iter();
    while expected.len() > 0 {
        let Met::Batch(batch) = events.step().await else { continue };
        for record in &batch.records {
            let of = &batch.headers[record.headers.start as usize..record.headers.end as usize];
            let text = |span| String::from_utf8(batch.bytes(span).to_vec()).unwrap();
            let value = |span| batch.bytes(span).to_vec();
            let headers: Vec<_> = of.iter().map(|(name, bytes)| (text(*name), bytes.map(value))).collect();
            let expected = expected.next().expect("no more than were sent");
            assert_eq!((record.value.map(value), headers), (expected.value.clone(), expected.headers.clone()));
        }
    }
    source.shutdown(PATIENCE).await;
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
