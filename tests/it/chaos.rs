//! Everything at once: daemons that are killed, stopped, come and go; a broker that restarts; a bad network before
//! broker, catalog and store; strangers who append to the table and rewrite it, Spark that compacts it. All at random, from
//! a printed seed, and afterwards the table is the log.
//!
//! `CALVE_CHAOS` says how many disturbances each test makes (`just chaos 200`), `CALVE_SEED` repeats a run's choices.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::broker::{Broker, Record};
use crate::support::engines;
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project, damaged, event};
use crate::support::proxy::{Fault, Proxy};
use crate::support::spark::Spark;

const PARTITIONS: i32 = 4;
const DAEMONS_MAX: usize = 3;
const DISTURBANCES: usize = 24;
/// The stage edges at which a daemon may be told to die.
const EDGES: [&str; 9] = [
    "ingest::staged",
    "ingest::between_commits",
    "ingest::committed",
    "write::before_put",
    "write::after_put",
    "commit::before_manifests",
    "commit::after_manifests",
    "commit::sent",
    "commit::after",
];

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    BadBroker,
    BadCatalog,
    BadStore,
    /// Nothing comes through to the catalog, or the store, for a while.
    Outage,
    Cut,
    Kill,
    KillAtEdge,
    Stop,
    Come,
    Go,
    RestartBroker,
    Append,
    Rewrite,
    Compact,
    SetProperty,
}

/// Each as often as it stands here.
const ALL: [Disturbance; 22] = [
    Disturbance::BadBroker,
    Disturbance::BadBroker,
    Disturbance::BadCatalog,
    Disturbance::BadCatalog,
    Disturbance::BadStore,
    Disturbance::BadStore,
    Disturbance::Outage,
    Disturbance::Cut,
    Disturbance::Kill,
    Disturbance::Kill,
    Disturbance::KillAtEdge,
    Disturbance::KillAtEdge,
    Disturbance::Stop,
    Disturbance::Come,
    Disturbance::Go,
    Disturbance::RestartBroker,
    Disturbance::Append,
    Disturbance::Rewrite,
    Disturbance::Rewrite,
    Disturbance::Compact,
    Disturbance::Compact,
    Disturbance::SetProperty,
];

/// PyIceberg as another writer of the table.
struct Stranger {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Stranger {
    fn start(rest: &str, s3: &str) -> Stranger {
        let mut command = engines::command("stranger.py", &[rest, s3, "bronze.events"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Stranger { child, ask, answers }
    }

    fn does(&mut self, what: &str) -> String {
        writeln!(self.ask, "{what}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the stranger died of {what:?}; its words are on stderr");
        answer.trim().to_owned()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Spark, which compacts the table while everything else goes on.
struct Compactor {
    /// Where it is not at work.
    spark: Option<Spark>,
    work: Option<JoinHandle<(Spark, bool)>>,
    done: usize,
}

impl Compactor {
    fn start(rest: &str, s3: &str) -> Compactor {
        let mut spark = Spark::new();
        let keys = [("s3.access-key-id", "calve-access-key"), ("s3.secret-access-key", "calve-secret-key")];
        let store = [
            ("type", "rest"),
            ("uri", rest),
            ("io-impl", "org.apache.iceberg.aws.s3.S3FileIO"),
            ("s3.endpoint", s3),
            ("s3.path-style-access", "true"),
            ("client.region", "us-east-1"),
        ];
        spark.catalog("chaos", &[&store[..], &keys[..]].concat());
        Compactor { spark: Some(spark), work: None, done: 0 }
    }

    /// Begins to put all files together anew, and does not wait for the end. What has not ended yet is waited for.
    fn compact(&mut self) {
        self.wait();
        let mut spark = self.spark.take().expect("nothing is at work");
        let statement =
            "CALL chaos.system.rewrite_data_files(table => 'bronze.events', options => map('rewrite-all', 'true'))";
        self.work = Some(std::thread::spawn(move || {
            let answer = spark.try_sql(statement);
            let said = match &answer {
                Ok(rows) => rows.first().map(ToString::to_string).unwrap_or_default(),
                Err(error) => error.lines().next().unwrap_or_default().to_owned(),
            };
            println!("    Spark: {said}");
            (spark, answer.is_ok())
        }));
    }

    fn wait(&mut self) {
        if let Some(work) = self.work.take() {
            let (spark, done) = work.join().expect("Spark answers");
            self.spark = Some(spark);
            self.done += usize::from(done);
        }
    }
}

struct Running {
    daemon: Daemon,
    /// It is stopped until then.
    stopped: Option<Instant>,
    /// It will die at some stage edge.
    doomed: bool,
}

struct Chaos {
    random: StdRng,
    broker: Broker,
    rest: Part,
    s3: Part,
    kafka: Proxy,
    catalog: Proxy,
    store: Proxy,
    project: Project,
    daemons: Vec<Running>,
    stranger: Stranger,
    compactor: Compactor,
    /// Of the next record.
    id: i64,
    /// What a stranger did.
    changes: usize,
}

impl Chaos {
    async fn new(broker: Broker) -> Chaos {
        let seed = std::env::var("CALVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        println!("CALVE_SEED={seed}");
        broker.create_topic("events", PARTITIONS, &[]);
        let s3 = Part::start("s3", &[]);
        let rest = Part::start(
            "rest",
            &[
                "warehouse=s3://lake/warehouse",
                "io-impl=org.apache.iceberg.aws.s3.S3FileIO",
                &format!("s3.endpoint={}", s3.address),
                "s3.path-style-access=true",
                "s3.access-key-id=calve-access-key",
                "s3.secret-access-key=calve-secret-key",
                "client.region=us-east-1",
            ],
        );
        let kafka = Proxy::kafka(&broker.bootstrap_servers()).await;
        let (catalog, store) = (Proxy::start(&rest.address).await, Proxy::start(&s3.address).await);
        let text = format!(
            "type = \"rest\"\nuri = \"{}\"\n\"rest.client.socket-timeout-ms\" = \"1500\"\n\
             \"s3.endpoint\" = \"{}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.path-style-access\" = \"true\"\n\
             \"s3.access-key-id\" = \"calve-access-key\"\n\"s3.secret-access-key\" = \"calve-secret-key\"\n",
            catalog.url(&rest.address),
            store.url(&s3.address).trim_end_matches('/')
        );
        let project = Project::with(&broker, "", "commit_interval = \"150ms\"\n", &text);
        project.edit("calve.toml", &broker.bootstrap_servers(), &kafka.address.to_string());
        let stranger = Stranger::start(&rest.address, &s3.address);
        let compactor = Compactor::start(&rest.address, &s3.address);
        Chaos {
            random: StdRng::seed_from_u64(seed),
            broker,
            rest,
            s3,
            kafka,
            catalog,
            store,
            project,
            daemons: Vec::new(),
            stranger,
            compactor,
            id: 0,
            changes: 0,
        }
    }

    fn produce(&mut self, count: i64) {
        let value = |id| if id % 50 == 7 { damaged(id) } else { event(id) };
        // With a header, for PyIceberg reads a list of structs that is null as an empty one, and would write it so.
        let record = |id| Record::new((id % i64::from(PARTITIONS)) as i32, value(id)).header("h", Some(b"v"));
        self.broker.produce("events", &(self.id..self.id + count).map(record).collect::<Vec<_>>());
        self.id += count;
    }

    fn come(&mut self, environment: &[(&str, &str)]) {
        let daemon = self.project.start_with(&[], environment);
        self.daemons.push(Running { daemon, stopped: None, doomed: !environment.is_empty() });
    }

    /// Wakes whom it is time to wake, buries who died at an edge, and sees to it that there is somebody.
    fn tend(&mut self) {
        for running in &mut self.daemons {
            if running.stopped.is_some_and(|until| until <= Instant::now()) {
                running.daemon.signal("CONT");
                running.stopped = None;
            }
        }
        self.daemons.retain_mut(|running| running.daemon.is_running());
        if self.daemons.iter().all(|running| running.stopped.is_some()) && self.daemons.len() < DAEMONS_MAX {
            self.come(&[]);
        }
    }

    fn any(&mut self) -> Option<usize> {
        (!self.daemons.is_empty()).then(|| self.random.random_range(0..self.daemons.len()))
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        let times = self.random.random_range(1..=3);
        match disturbance {
            Disturbance::BadBroker => {
                let faults = [Fault::Reset, Fault::LoseAnswer, Fault::Delay(Duration::from_millis(300))];
                // Every request names its client.
                self.kafka.arm("calve", *faults.choose(&mut self.random).unwrap(), times);
            }
            Disturbance::BadCatalog => {
                let words = ["POST /v1/namespaces/bronze/tables/events", "GET /v1/namespaces/bronze/tables/events"];
                let fault = http_fault(&mut self.random, true);
                self.catalog.arm(words.choose(&mut self.random).unwrap(), fault, times);
            }
            Disturbance::BadStore => {
                let words = ["PUT /lake", ".parquet", ".avro", "GET /lake"];
                let fault = http_fault(&mut self.random, false);
                self.store.arm(words.choose(&mut self.random).unwrap(), fault, times);
            }
            Disturbance::Outage => {
                let down = if self.random.random() { &self.catalog } else { &self.store };
                down.arm(" HTTP/1.1", Fault::Refuse(503), u32::MAX);
                self.produce(100);
                std::thread::sleep(Duration::from_millis(self.random.random_range(500..2500)));
                self.catalog.disarm();
                self.store.disarm();
            }
            Disturbance::Cut => [&self.kafka, &self.catalog, &self.store].iter().for_each(|proxy| proxy.cut()),
            Disturbance::Kill => {
                if let Some(at) = self.any() {
                    self.daemons.swap_remove(at).daemon.kill();
                }
            }
            Disturbance::KillAtEdge => {
                if self.daemons.len() == DAEMONS_MAX
                    && let Some(at) = self.any()
                {
                    self.daemons.swap_remove(at).daemon.kill();
                }
                let edge = format!("{}@{}", EDGES.choose(&mut self.random).unwrap(), times);
                self.come(&[("CALVE_KILL_AT", &edge)]);
            }
            Disturbance::Stop => {
                // One in four for longer than its session lasts.
                let long = self.random.random_ratio(1, 4);
                let wait = Duration::from_millis(if long { 7500 } else { self.random.random_range(200..1500) });
                if let Some(at) = self.any() {
                    self.daemons[at].daemon.signal("STOP");
                    self.daemons[at].stopped = Some(Instant::now() + wait);
                }
            }
            Disturbance::Come => {
                if self.daemons.len() < DAEMONS_MAX {
                    self.come(&[]);
                }
            }
            Disturbance::Go => {
                let awake = |running: &Running| running.stopped.is_none();
                if let Some(at) = self.daemons.iter().position(awake) {
                    let running = self.daemons.swap_remove(at);
                    let log = running.daemon.log_path().to_owned();
                    let code = running.daemon.terminate();
                    assert!(code == 0 || running.doomed, "exit code {code}:\n{}", warnings(&read(&log)));
                }
            }
            Disturbance::RestartBroker => {
                match self.broker.is_light() {
                    // It forgets what it had not synced when it is killed, which a broker with replicas does not.
                    true => self.broker.stop(),
                    false => self.broker.kill(),
                }
                std::thread::sleep(Duration::from_millis(self.random.random_range(0..800)));
                self.broker.start();
            }
            Disturbance::Append => self.change("append"),
            Disturbance::Rewrite => self.change("rewrite"),
            Disturbance::Compact => self.compactor.compact(),
            Disturbance::SetProperty => self.change("set"),
        }
    }

    fn change(&mut self, what: &str) {
        let answer = self.stranger.does(what);
        println!("    {answer}");
        self.changes += usize::from(answer == "done");
    }

    fn run(&mut self, count: usize) {
        self.come(&[]);
        self.produce(1000);
        for number in 0..count {
            let disturbance = *ALL.choose(&mut self.random).unwrap();
            println!("{number}: {disturbance:?}, {} daemons", self.daemons.len());
            let before = self.random.random_range(20..300);
            self.produce(before);
            self.disturb(disturbance);
            let after = self.random.random_range(20..300);
            self.produce(after);
            std::thread::sleep(Duration::from_millis(self.random.random_range(50..900)));
            self.tend();
        }
    }

    /// Nothing disturbs any more: the daemons that are left must come through by themselves. Then the table is looked
    /// at.
    fn end(mut self) {
        [&self.kafka, &self.catalog, &self.store].iter().for_each(|proxy| proxy.disarm());
        for running in &mut self.daemons {
            if running.stopped.take().is_some() {
                running.daemon.signal("CONT");
            }
        }
        self.compactor.wait();
        self.produce(500);
        self.daemons.sort_by_key(|running| running.doomed);
        while self.daemons.len() > 1 || self.daemons.first().is_some_and(|running| running.doomed) {
            let Running { daemon, doomed, .. } = self.daemons.pop().unwrap();
            let log = daemon.log_path().to_owned();
            let code = daemon.terminate();
            assert!(code == 0 || doomed, "exit code {code}:\n{}", warnings(&read(&log)));
        }
        self.tend();
        let last = &self.daemons[0].daemon;
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let status: serde_json::Value = serde_json::from_str(&last.get("/status")).unwrap();
            let topic = &status["topics"]["events"];
            if topic["lag_records"] == 0 && topic["state"] == "running" {
                break;
            }
            let late = Instant::now() > deadline || topic["state"] == "halted";
            assert!(!late, "it does not come through: {status}\n{}", warnings(&last.log()));
            std::thread::sleep(Duration::from_millis(200));
        }
        let Running { daemon, .. } = self.daemons.pop().unwrap();
        assert_eq!(daemon.terminate(), 0);
        // The lag may have been taken before the last records came: what the daemon left is read by who ends at the end.
        let (code, out, errors) = self.project.calve(&["run", "--until-caught-up"]);
        assert_eq!(code, 0, "{out}\n{errors}");
        let compactions = self.compactor.done;
        println!("{} records, {} changes by a stranger, {compactions} compactions by Spark", self.id, self.changes);

        let (code, out, errors) = self.project.calve(&["verify", "bronze.events", "--deep"]);
        assert_eq!(code, 0, "{out}\n{errors}");
        let location = |table: &str| metadata_of(&self.rest.address, table);
        self.project.assert_offsets(&self.broker, "events", |table| {
            engines::run("offsets.py", &[&location(table), &self.s3.address])
        });
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for running in &self.daemons {
                eprintln!("{}:\n{}", running.daemon.log_path().display(), warnings(&running.daemon.log()));
            }
        }
    }
}

fn http_fault(random: &mut StdRng, of_catalog: bool) -> Fault {
    let status = *[429, 500, 502, 503, 504].choose(random).unwrap();
    let mut faults = vec![
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Delay(Duration::from_millis(400)),
        Fault::Refuse(status),
        Fault::Garble(status),
    ];
    if of_catalog {
        // The store's client waits a minute for an answer, and takes a 200 at its word.
        faults.extend([Fault::Stall, Fault::Garble(200)]);
    }
    *faults.choose(random).unwrap()
}

/// The end of a log, without what only says that all is well.
fn warnings(log: &str) -> String {
    let mut lines: Vec<&str> = log.lines().filter(|line| !line.contains(" committed ")).rev().take(60).collect();
    lines.reverse();
    lines.join("\n")
}

fn read(log: &std::path::Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

fn metadata_of(rest: &str, table: &str) -> String {
    let (namespace, name) = table.split_once('.').unwrap();
    let url = format!("{rest}/v1/namespaces/{namespace}/tables/{name}");
    let answer = Command::new("curl").args(["-sf", &url]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("the table");
    answer["metadata-location"].as_str().expect("its location").to_owned()
}

fn disturbances() -> usize {
    std::env::var("CALVE_CHAOS").ok().map_or(DISTURBANCES, |count| count.parse().expect("CALVE_CHAOS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_random_with_a_light_broker() {
    let mut chaos = Chaos::new(Broker::light()).await;
    chaos.run(disturbances());
    chaos.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_random_with_real_kafka() {
    let mut chaos = Chaos::new(Broker::kafka()).await;
    chaos.run(disturbances());
    chaos.end();
}
