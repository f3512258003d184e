//! What a message costs to get out of Kafka, CPU of all threads of the process: calve's source, with everything between
//! the socket and a batch of records, against rust-rdkafka's consumers, which hand over one message at a time.
//!
//! In this process, one after the other in every round, from the same log; the broker is a process of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::config::{Isolation, Kafka};
use crate::source::{Budget, Event, Source, TopicSubscription};
use crate::telemetry::metrics::KafkaMetrics;
use crate::{Broker, Options, median};

const MESSAGE_BYTES: usize = 250;

/// What a consumer saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    messages: u64,
    bytes: u64,
    /// Of all offsets, timestamps and first bytes, so that none of them goes unread.
    sum: u64,
}

impl Seen {
    fn add(&mut self, offset: i64, timestamp_ms: i64, value: &[u8]) {
        self.messages += 1;
        self.bytes += value.len() as u64;
        self.sum = self.sum.wrapping_add(offset as u64 ^ timestamp_ms as u64 ^ u64::from(value[0]));
    }
}

pub fn fetch(options: &Options, broker: &Broker) -> Result<()> {
    let topic = broker.topic("fetch", options.partitions)?;
    fill(broker, &topic, options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    type Consume<'a> = Box<dyn Fn() -> Result<Seen> + 'a>;
    let crcs = [("check.crcs", "true")];
    let consumers: [(&str, Consume<'_>); 4] = [
        ("calve", Box::new(|| calve(&runtime, broker, &topic, options))),
        ("rust-rdkafka StreamConsumer", Box::new(|| stream(&runtime, broker, &topic, options, &crcs))),
        ("rust-rdkafka BaseConsumer", Box::new(|| base(broker, &topic, options, &crcs))),
        ("the same without CRCs", Box::new(|| base(broker, &topic, options, &[]))),
    ];
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); consumers.len()];
    let mut walls = costs.clone();
    let mut expected = None;
    // The first round warms up the broker's page cache, and does not count.
    for round in 0..=options.rounds {
        for (number, (name, consume)) in consumers.iter().enumerate() {
            let (cpu, started) = (cpu_seconds()?, Instant::now());
            let seen = consume().context(*name)?;
            let (cpu, wall) = (cpu_seconds()? - cpu, started.elapsed().as_secs_f64());
            ensure!(*expected.get_or_insert(seen) == seen, "{name} saw {seen:?}, calve {expected:?}");
            if round > 0 {
                costs[number].push(cpu * 1e9 / seen.messages as f64);
                walls[number].push(wall * 1e9 / seen.messages as f64);
            }
        }
    }
    println!(
        "ns of CPU a message of {MESSAGE_BYTES} bytes, {} messages   median (fastest–slowest)   wall",
        options.messages
    );
    for ((name, _), (costs, walls)) in consumers.iter().zip(costs.iter().zip(walls)) {
        let (least, most) = (costs.iter().copied().fold(f64::MAX, f64::min), costs.iter().copied().fold(0.0, f64::max));
        println!("{name:28} {:6.0} ({least:.0}–{most:.0})  {:6.0}", median(costs.clone()), median(walls));
    }
    Ok(())
}

/// Messages whose bytes do not repeat, without compression: what is measured is the fetch.
fn fill(broker: &Broker, topic: &str, options: &Options) -> Result<()> {
    let producer: BaseProducer = broker.producer("none")?;
    let mut rng = StdRng::seed_from_u64(1);
    let mut value = [0_u8; MESSAGE_BYTES];
    rng.fill(&mut value[..]);
    for index in 0..options.messages {
        value[..8].copy_from_slice(&rng.random::<[u8; 8]>());
        let record = BaseRecord::<(), _>::to(topic).partition(index as i32 % options.partitions).payload(&value[..]);
        let mut outgoing = record;
        while let Err((_, back)) = producer.send(outgoing) {
            producer.poll(Duration::from_millis(20));
            outgoing = back;
        }
        if index % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).context("the log was not written")
}

fn calve(runtime: &Runtime, broker: &Broker, topic: &str, options: &Options) -> Result<Seen> {
    let kafka = Kafka {
        bootstrap_servers: broker.address.clone(),
        group_id: group(),
        instance_id: None,
        properties: BTreeMap::new(),
    };
    runtime.block_on(async {
        let subscription = TopicSubscription { name: topic.to_owned(), isolation: Isolation::ReadCommitted };
        let budget = Budget::new(256 << 20);
        let (source, mut streams) = Source::start(&kafka, vec![subscription], &budget, &KafkaMetrics::default())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let events = streams.get_mut(topic).context("the topic's events")?;
        let mut seen = Seen::default();
        while seen.messages < options.messages as u64 {
            match events.recv().await.context("the source ended")? {
                Event::Assigned { partitions, start } => {
                    let _ = start.send(partitions.into_iter().map(|partition| (partition, 0)).collect());
                }
                Event::Batch(batch) => {
                    for record in &batch.records {
                        let value = batch.bytes(record.value.context("no message is a tombstone")?);
                        seen.add(record.offset, record.timestamp_ms, value);
                    }
                }
                Event::Failed(error) => anyhow::bail!("{error}"),
                _ => {}
            }
        }
        source.shutdown(Duration::from_secs(10)).await;
        Ok(seen)
    })
}

/// A group of its own for every run: none waits for the last one's members.
fn group() -> String {
    format!("bench-{}", rand::random::<u64>())
}

fn config(broker: &Broker, properties: &[(&str, &str)]) -> ClientConfig {
    let own: HashMap<&str, &str> =
        HashMap::from([("enable.auto.commit", "false"), ("isolation.level", "read_committed")]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("group.id", group());
    for (key, value) in own.into_iter().chain(properties.iter().copied()) {
        config.set(key, value);
    }
    config
}

fn assignment(topic: &str, options: &Options) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..options.partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    Ok(list)
}

fn add(seen: &mut Seen, message: &BorrowedMessage<'_>) {
    let timestamp_ms = message.timestamp().to_millis().unwrap_or_default();
    seen.add(message.offset(), timestamp_ms, message.payload().unwrap_or(&[0]));
}

fn stream(
    runtime: &Runtime,
    broker: &Broker,
    topic: &str,
    options: &Options,
    properties: &[(&str, &str)],
) -> Result<Seen> {
    runtime.block_on(async {
        let consumer: StreamConsumer = config(broker, properties).create()?;
        consumer.assign(&assignment(topic, options)?)?;
        let mut seen = Seen::default();
        while seen.messages < options.messages as u64 {
            add(&mut seen, &consumer.recv().await?);
        }
        Ok(seen)
    })
}

fn base(broker: &Broker, topic: &str, options: &Options, properties: &[(&str, &str)]) -> Result<Seen> {
    let consumer: BaseConsumer = config(broker, properties).create()?;
    consumer.assign(&assignment(topic, options)?)?;
    let mut seen = Seen::default();
    while seen.messages < options.messages as u64 {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            add(&mut seen, &message?);
        }
    }
    Ok(seen)
}

/// User and system, of all threads of this process so far.
fn cpu_seconds() -> Result<f64> {
    // SAFETY: a plain C struct, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local.
    ensure!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } == 0, "the kernel says no CPU time");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
