//! Topics of one source, each for itself: one that stands still, is mute or missing holds up no other; each is paused,
//! halted, reopened and sought alone.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use calve::batch::OffsetRange;
use calve::source::{Admin, Budget, Event, Source};
use calve::telemetry::metrics::KafkaMetrics;
use tokio::time::timeout;

use crate::support::broker::{Broker, Record};
use crate::support::source::{Loop, Met, PATIENCE, committed, expected, numbered, start};

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
