//! The source in its consumer group: partitions move between daemons with nothing lost or doubled, seats are inherited
//! and stolen, and no rebalance is held up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calve::config::Kafka;
use tokio::time::timeout;

use crate::support::broker::Broker;
use crate::support::source::{Loop, Met, PATIENCE, expected, numbered, start};

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
