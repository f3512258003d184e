//! A calve project in a temporary folder, its daemon as a process of its own, and the check that counts: the table
//! against the log, offset by offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::broker::Broker;
use super::{engines, parts};

pub const PROTO: &str = r#"syntax = "proto3";
package test.v1;
message Event {
  int64 id = 1;
  string name = 2;
  repeated int32 numbers = 3;
  map<string, string> labels = 4;
  Inner inner = 5;
  message Inner { double x = 1; optional string note = 2; }
}
"#;

/// An event, encoded by hand.
pub fn event(id: i64) -> Vec<u8> {
    let mut out = vec![0x08];
    varint(&mut out, id as u64);
    let name = format!("event number {id}");
    out.push(0x12);
    varint(&mut out, name.len() as u64);
    out.extend(name.as_bytes());
    out.extend([0x1a, 2, 1, (id % 100) as u8]);
    out.extend([0x2a, 9, 0x09]);
    out.extend((id as f64).to_le_bytes());
    out
}

/// Bytes that are no event: the name's length points past the end.
pub fn damaged(id: i64) -> Vec<u8> {
    let mut out = event(id);
    out.truncate(out.len() - 4);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub struct Project {
    folder: tempfile::TempDir,
    /// The address of its REST catalog, where it has one.
    rest: Option<String>,
}

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Project {
    /// One topic named `events` of `test.v1.Event`; `keys` are further lines of `[topics.events]`.
    pub fn new(broker: &Broker, keys: &str) -> Project {
        Project::with(
            broker,
            "",
            keys,
            "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n",
        )
    }

    /// `more` is further TOML for `calve.toml`, `catalog` the text of the catalog's file.
    pub fn with(broker: &Broker, more: &str, keys: &str, catalog: &str) -> Project {
        let folder = tempfile::tempdir().unwrap();
        let toml = format!(
            "[daemon]\nhttp = \"127.0.0.1:0\"\nshutdown_timeout = \"20s\"\n\
             [kafka]\nbootstrap_servers = \"{}\"\ngroup_id = \"calve\"\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"\n\
             [topics.events]\ncatalog = \"local\"\nmessage = \"test.v1.Event\"\nschema = \"proto\"\n{keys}\n{more}\n",
            broker.bootstrap_servers()
        );
        let project = Project { folder, rest: None };
        project.write("calve.toml", &toml);
        project.write("catalogs/local.toml", catalog);
        project.write("proto/test/v1/event.proto", PROTO);
        project
    }

    /// The same project, its tables in a REST catalog.
    pub fn on_rest(mut self, address: &str) -> Project {
        self.write("catalogs/local.toml", &format!("type = \"rest\"\nuri = \"{address}\"\n"));
        self.rest = Some(address.to_owned());
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replace(from, to));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calve"));
        command.args(arguments).current_dir(self.path()).env_remove("CALVE_CONFIG").env_remove("CALVE_LOG");
        command
    }

    /// Runs a command to its end: exit code, stdout, stderr.
    pub fn calve(&self, arguments: &[&str]) -> (i32, String, String) {
        self.calve_with(arguments, &[])
    }

    pub fn calve_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
        let output = self.command(arguments).envs(environment.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// `calve run --until-caught-up`, which must succeed.
    pub fn catch_up(&self) {
        let (code, out, log) = self.calve(&["run", "--until-caught-up"]);
        assert_eq!(code, 0, "{out}\n{log}");
    }

    pub fn start(&self) -> Daemon {
        self.start_with(&[], &[])
    }

    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let mut all = vec!["run"];
        all.extend(arguments);
        let mut command = self.command(&all);
        command.envs(environment.iter().copied());
        self.spawn(command)
    }

    /// The daemon, started by a program that gets the binary's path as its last argument.
    pub fn start_by(&self, program: &[&str]) -> Daemon {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(env!("CARGO_BIN_EXE_calve")).current_dir(self.path());
        command.env_remove("CALVE_CONFIG").env_remove("CALVE_LOG");
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        let number = std::fs::read_dir(self.path()).unwrap().count();
        let log = self.path().join(format!("daemon-{number}.log"));
        let file = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Daemon { child: command.spawn().unwrap(), log }
    }

    /// The current metadata file of a table: the catalog's word; of Glue's, which is not asked, the last one written. A
    /// daemon that was killed may have left a file of the same number that is no table's.
    pub fn metadata(&self, table: &str) -> String {
        let (namespace, name) = table.split_once('.').unwrap();
        if let Some(rest) = &self.rest {
            let url = format!("{rest}/v1/namespaces/{namespace}/tables/{name}");
            let answer = Command::new("curl").args(["-sf", &url]).output().unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("the table");
            return answer["metadata-location"].as_str().expect("its location").to_owned();
        }
        let database = self.path().join("warehouse/catalog.db");
        if database.exists() {
            return engines::run("pointer.py", &[&database.to_string_lossy(), namespace, name]).trim().to_owned();
        }
        let warehouse = self.path().join("warehouse");
        let place = |name: String| warehouse.join(name).join("metadata");
        // Glue's databases have folders that end in .db.
        let folders = [place(table.replace('.', "/")), place(table.replace('.', ".db/"))];
        let folder = folders.iter().find(|folder| folder.exists()).unwrap_or(&folders[0]);
        let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let written = |entry: &std::fs::DirEntry| entry.metadata().unwrap().modified().unwrap();
        let files = files.map(Result::unwrap).filter(|file| file.path().to_string_lossy().ends_with(".metadata.json"));
        let newest = files.max_by_key(written).expect("a metadata file");
        newest.path().to_string_lossy().into_owned()
    }

    /// `(partition, offset) → how often` in a table, read by an engine that we did not write.
    pub fn offsets(&self, table: &str) -> BTreeMap<(i32, i64), usize> {
        counted(&engines::run("offsets.py", &[&self.metadata(table)]))
    }

    /// Every committed record of the topic is in the table once, or, if it is damaged, in the quarantine table once;
    /// nothing else is in either. `calve verify` says the same.
    pub fn assert_exactly_once(&self, broker: &Broker, topic: &str) {
        self.assert_exactly_once_in(broker, topic, "bronze.events");
    }

    pub fn assert_exactly_once_in(&self, broker: &Broker, topic: &str, table: &str) {
        let read = |table: &str| engines::run("offsets.py", &[&self.metadata(table)]);
        self.assert_offsets_in(broker, topic, table, read);
        let (code, out, errors) = self.calve(&["verify", table]);
        assert_eq!(code, 0, "verify: {out}\n{errors}");
    }

    /// The same of `bronze.events` by what `offsets.py` prints of a table.
    pub fn assert_offsets(&self, broker: &Broker, topic: &str, read: impl Fn(&str) -> String) {
        self.assert_offsets_in(broker, topic, "bronze.events", read);
    }

    fn assert_offsets_in(&self, broker: &Broker, topic: &str, table: &str, read: impl Fn(&str) -> String) {
        let log = read_log(broker, topic);
        let (good, bad): (Vec<_>, Vec<_>) = log.into_iter().partition(|(_, is_good)| *is_good);
        let expect = |found: BTreeMap<(i32, i64), usize>, wanted: Vec<((i32, i64), bool)>, what: &str| {
            let wanted: BTreeMap<(i32, i64), usize> = wanted.into_iter().map(|(place, _)| (place, 1)).collect();
            let lost: Vec<_> = wanted.keys().filter(|place| !found.contains_key(place)).take(5).collect();
            let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).take(5).collect();
            let strange: Vec<_> = found.keys().filter(|place| !wanted.contains_key(place)).take(5).collect();
            assert!(
                lost.is_empty() && doubled.is_empty() && strange.is_empty(),
                "{what}: lost {lost:?} doubled {doubled:?} strange {strange:?}; {} of {} rows",
                found.len(),
                wanted.len()
            );
        };
        expect(counted(&read(table)), good, table);
        let quarantine = format!("{table}__quarantine");
        if !bad.is_empty() {
            expect(counted(&read(&quarantine)), bad, &quarantine);
        }
    }
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> i32 {
        self.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "did not stop in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What its HTTP server answers.
    pub fn get(&self, path: &str) -> String {
        self.wait_for("serving http://", Duration::from_secs(30));
        let log = self.log();
        let address = log.split("serving http://").nth(1).and_then(|rest| rest.split(": ").next()).expect("an address");
        let output = Command::new("curl").args(["-sf", &format!("http://{address}{path}")]).output().unwrap();
        assert!(output.status.success(), "{path} of {address}: {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until so many rows of the topic are committed, since the daemon started.
    pub fn wait_for_rows(&self, topic: &str, rows: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status: serde_json::Value = serde_json::from_str(&self.get("/status")).unwrap();
            if status["topics"][topic]["rows"].as_u64() >= Some(rows) {
                return;
            }
            assert!(Instant::now() < deadline, "no {rows} rows of {topic}: {status}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the log has `text`.
    pub fn wait_for(&self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `offsets.py` printed.
fn counted(text: &str) -> BTreeMap<(i32, i64), usize> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (partition, offset) = line.split_once(' ').expect("partition offset");
        *found.entry((partition.parse().unwrap(), offset.parse().unwrap())).or_insert(0) += 1;
    }
    found
}

/// The committed records of a topic by librdkafka's own reading, and whether each is an [`event`].
fn read_log(broker: &Broker, topic: &str) -> Vec<((i32, i64), bool)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("group.id", "oracle")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut wanted = TopicPartitionList::new();
    for partition in &partitions {
        wanted.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&wanted).unwrap();
    let mut left = partitions.len();
    let mut found = Vec::new();
    while left > 0 {
        match consumer.poll(Duration::from_secs(20)).expect("the log can be read") {
            Ok(message) => {
                let good = message.payload().is_none_or(is_event);
                found.push(((message.partition(), message.offset()), good));
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => left -= 1,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// [`event`]s end in a double; [`damaged`] ones are cut off inside it.
fn is_event(payload: &[u8]) -> bool {
    payload.len() > 11 && payload[payload.len() - 11..payload.len() - 8] == [0x2a, 9, 0x09]
}

/// The scripts of `tests/parts` that these tests start need no more than what `tests/run.sh` installed.
#[allow(dead_code, reason = "kept beside the broker's for tests of single parts")]
pub fn python() -> PathBuf {
    parts::python()
}
