//! Kafka brokers for the tests: a light one that starts in no time, and the real one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use calve::config::Kafka;
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A broker that ends with this value, or with the test process if that is killed.
pub struct Broker {
    kind: Kind,
    dir: tempfile::TempDir,
    port: u16,
    /// Of the light broker's HTTP control.
    control_port: u16,
    /// What it is started with, each time.
    options: Vec<String>,
    light: Mutex<Option<(Child, ChildStdin)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Light,
    Kafka,
}

/// A record to produce.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub fn new(partition: i32, value: impl Into<Vec<u8>>) -> Self {
        Record { partition, value: Some(value.into()), ..Record::default() }
    }

    pub fn tombstone(partition: i32, key: impl Into<Vec<u8>>) -> Self {
        Record { partition, key: Some(key.into()), ..Record::default() }
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn timestamp(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }
}

/// The script `name` of `tests/parts`.
fn part(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts").join(name)
}

/// Runs a script to its end; its last line of output.
fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new("bash")
        .arg(part(name))
        .args(arguments)
        .env("CALVE_PARTS_OWNER", std::process::id().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run tests/parts/{name}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/parts/{name} {}: {words}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

/// `count` consecutive ports that are free now, below the range that the kernel hands out to outgoing connections.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = rand::random_range(10_000..32_000);
        if (0..count).all(|next| TcpListener::bind(("127.0.0.1", first + next)).is_ok()) {
            return first;
        }
    }
}

impl Broker {
    /// The light broker (kfake): real transactions and groups, faults on demand.
    pub fn light() -> Self {
        Self::light_with(&[])
    }

    /// The same with options of `kfbroker`: `["-brokers", "3"]`, `["-c", "key=value"]`.
    pub fn light_with(options: &[&str]) -> Self {
        let broker = Broker {
            kind: Kind::Light,
            dir: tempfile::tempdir().unwrap(),
            port: free_ports(4),
            control_port: free_ports(1),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            light: Mutex::new(None),
        };
        broker.start();
        broker
    }

    /// A real Apache Kafka of its own.
    pub fn kafka() -> Self {
        let broker = Broker {
            kind: Kind::Kafka,
            dir: tempfile::tempdir().unwrap(),
            port: free_ports(2),
            control_port: 0,
            options: Vec::new(),
            light: Mutex::new(None),
        };
        broker.start();
        broker
    }

    /// A real Apache Kafka that all tests of this process share: for tests that neither stop nor restart it.
    pub fn shared_kafka() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::kafka)
    }

    /// Starts it, or starts it again on the state that it left.
    pub fn start(&self) {
        let dir = self.dir.path().to_str().unwrap();
        let port = self.port.to_string();
        match self.kind {
            Kind::Kafka => {
                run("kafka.sh", &["up", dir, &port]);
            }
            Kind::Light => {
                let mut child = Command::new(run("kfbroker.sh", &[]))
                    .args(["-port", &port, "-admin", &self.control_port.to_string(), "-data-dir", dir])
                    .arg("-until-stdin-closes")
                    .args(&self.options)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut line = String::new();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
                assert!(line.contains(&port), "kfbroker did not start on port {port}: {line:?}");
                let stdin = child.stdin.take().unwrap();
                *self.light.lock().unwrap() = Some((child, stdin));
            }
        }
    }

    /// Ends it in order; its state stays.
    pub fn stop(&self) {
        match self.kind {
            Kind::Kafka => {
                run("kafka.sh", &["down", self.dir.path().to_str().unwrap()]);
            }
            Kind::Light => {
                if let Some((mut child, stdin)) = self.light.lock().unwrap().take() {
                    drop(stdin);
                    child.wait().unwrap();
                }
            }
        }
    }

    /// kill -9; its state stays.
    pub fn kill(&self) {
        match self.kind {
            Kind::Kafka => {
                run("kafka.sh", &["kill", self.dir.path().to_str().unwrap()]);
            }
            Kind::Light => {
                if let Some((mut child, _stdin)) = self.light.lock().unwrap().take() {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            }
        }
    }

    pub fn is_light(&self) -> bool {
        self.kind == Kind::Light
    }

    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The configuration of a daemon in consumer group `group`.
    pub fn config(&self, group: &str) -> Kafka {
        Kafka {
            bootstrap_servers: self.bootstrap_servers(),
            group_id: group.to_owned(),
            instance_id: None,
            properties: [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    /// Asks the light broker's control, `"/fault?key=Fetch&err=NOT_LEADER_FOR_PARTITION&count=3"`.
    pub fn control(&self, path_and_query: &str) {
        assert!(self.kind == Kind::Light, "only the light broker takes faults");
        let mut stream = TcpStream::connect(("127.0.0.1", self.control_port)).unwrap();
        let request = format!("POST {path_and_query} HTTP/1.0\r\nHost: kfbroker\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.lines().next().is_some_and(|status| status.contains(" 200 ")), "{path_and_query}: {answer}");
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers());
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in block_on(self.admin().create_topics([&topic], &options)).unwrap() {
            result.unwrap_or_else(|(name, code)| panic!("cannot create topic {name}: {code}"));
        }
    }

    pub fn delete_topic(&self, name: &str) {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in block_on(self.admin().delete_topics(&[name], &options)).unwrap() {
            result.unwrap_or_else(|(name, code)| panic!("cannot delete topic {name}: {code}"));
        }
    }

    /// Deletes the topic and creates one of the same name.
    pub fn recreate_topic(&self, name: &str, partitions: i32) {
        self.delete_topic(name);
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        // The broker forgets the old one a moment after it answered.
        for _ in 0..100 {
            let results = block_on(self.admin().create_topics([&topic], &options)).unwrap();
            if results.iter().all(Result::is_ok) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("topic {name} cannot be created again");
    }

    pub fn add_partitions(&self, name: &str, total: usize) {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in block_on(self.admin().create_partitions([&NewPartitions::new(name, total)], &options)).unwrap() {
            result.unwrap_or_else(|(name, code)| panic!("cannot add partitions to topic {name}: {code}"));
        }
    }

    /// Removes all records below `before`.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        let deleted = block_on(self.admin().delete_records(&offsets, &AdminOptions::new())).unwrap();
        for element in deleted.elements() {
            element.error().unwrap_or_else(|error| panic!("cannot delete records of topic {topic}: {error}"));
        }
    }

    /// Produces in order, and waits until all is acknowledged.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        self.produce_with(topic, records, &[]);
    }

    /// The same with producer properties: `[("compression.type", "zstd")]`.
    pub fn produce_with(&self, topic: &str, records: &[Record], properties: &[(&str, &str)]) {
        let mut config = self.client();
        config.set("enable.idempotence", "true");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        let producer: BaseProducer = config.create().unwrap();
        send(&producer, topic, records);
        producer.flush(TIMEOUT).unwrap();
    }

    /// One transaction with these records, committed or aborted.
    pub fn transaction(&self, id: &str, topic: &str, records: &[Record], commit: bool) {
        let open = self.open_transaction(id, topic, records);
        if commit { open.commit_transaction(TIMEOUT).unwrap() } else { open.abort_transaction(TIMEOUT).unwrap() }
    }

    /// A transaction with these records in the log that is still open; commit or abort it by the producer.
    pub fn open_transaction(&self, id: &str, topic: &str, records: &[Record]) -> BaseProducer {
        let producer: BaseProducer = self.client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, topic, records);
        producer.flush(TIMEOUT).unwrap();
        producer
    }

    /// `(low, high)` watermarks, high regardless of transactions.
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let producer: BaseProducer = self.client().create().unwrap();
        producer.client().fetch_watermarks(topic, partition, TIMEOUT).unwrap()
    }

    /// The group's committed offsets of a topic, where there are any.
    pub fn group_offsets(&self, group: &str, topic: &str, partitions: i32) -> HashMap<i32, i64> {
        use rdkafka::consumer::{BaseConsumer, Consumer};
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(topic, 0, partitions - 1);
        let committed = match consumer.committed_offsets(wanted, TIMEOUT) {
            Ok(committed) => committed,
            // The light broker's answer for a group that never committed.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupIdNotFound) => {
                return HashMap::new();
            }
            Err(error) => panic!("no offsets of group {group}: {error}"),
        };
        let known = committed.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        known.collect()
    }
}

/// Queues all records, waiting when the producer's queue is full.
pub fn send(producer: &BaseProducer, topic: &str, records: &[Record]) {
    for record in records {
        let mut unsent: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(record.partition);
        unsent.key = record.key.as_deref();
        unsent.payload = record.value.as_deref();
        unsent.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            unsent.headers = Some(headers);
        }
        while let Err((error, back)) = producer.send(unsent) {
            let full = RDKafkaErrorCode::QueueFull;
            assert_eq!(error.rdkafka_error_code(), Some(full), "cannot produce to topic {topic}: {error}");
            producer.poll(Duration::from_millis(10));
            unsent = back;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
