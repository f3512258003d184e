//! A broker that restarts, errs, moves its leaders or is not there at all: the source rides it out, or says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calve::config::{Isolation, Kafka};
use calve::source::Admin;
use tokio::time::timeout;

use crate::support::broker::Broker;
use crate::support::source::{Loop, PATIENCE, expected, numbered, start};

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
