//! Kafka → committed table, end to end: a real broker, the release binary, CPU seconds of all its threads, its peak
//! memory. `cd benches/end_to_end && cargo run --release -- --help`.
//!
//! The binary measured is `calve` itself, as a child process: nothing of the bench runs in it. What it committed is
//! checked by `calve verify` before a figure counts.

// The daemon's sources, of which the producer needs a part.
#![allow(dead_code)]

#[path = "../../../src/batch.rs"]
pub mod batch;
#[path = "../../../src/config/mod.rs"]
pub mod config;
mod cost;
#[path = "../../../src/error.rs"]
mod error;
mod fetch;
mod firehose;
mod freshness;
#[path = "../../../tests/corpus/generate.rs"]
mod generate;
mod many;
mod messages;
#[path = "../../src/producers.rs"]
mod producers;
mod recovery;
mod running;
#[path = "../../../src/schema/mod.rs"]
pub mod schema;
#[path = "../../../src/source/mod.rs"]
pub mod source;
mod telemetry;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use messages::Messages;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
pub use schema::model;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As in the daemon.
#[cfg_attr(all(target_os = "linux", target_env = "gnu"), unsafe(export_name = "malloc_conf"))]
#[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), unsafe(export_name = "_rjem_malloc_conf"))]
pub static ALLOCATOR_OPTIONS: &[u8] = b"background_thread:true,narenas:4,dirty_decay_ms:400,muzzy_decay_ms:0\0";

const HELP: &str = "end_to_end [--calve PATH] [--messages N] [--schemas NAME,…] [--partitions N] [--codec NAME] [--limits SIZE,…] [--rounds N] [--commits N] [--rate MB] MEASUREMENT…

throughput   N messages each of --schemas (event,flat,event-random,flat-random): MB/s of Protobuf, wall and per core
backlog      N messages of event-random under each memory_limit of --limits: peak RSS against it
bad          N messages cut short against N good ones: CPU of a log of nothing but rejects
fetch        N messages of 250 bytes: CPU a message of calve's source and of rust-rdkafka's consumers
commits      2,100 commits of a trickle: time of commit 20 against that of commit 2,000
cost         --commits (10,000) of them: time at 10, at 1,000 and at the end; size of metadata
recovery     kill -9 to the next commit, 25 times
many         1, 2, 4 daemons on one table: commits, conflicts, what was thrown away
freshness    --rate (50) MB/s for 30 s: how old a record is when its commit is there";

struct Options {
    calve: PathBuf,
    messages: usize,
    schemas: Vec<String>,
    partitions: i32,
    codec: String,
    limits: Vec<String>,
    rounds: usize,
    commits: usize,
    rate: f64,
    measurements: Vec<String>,
}

fn options() -> Result<Options> {
    let root = root();
    let mut options = Options {
        calve: root.join("target/release/calve"),
        messages: 5_000_000,
        schemas: ["event", "flat", "event-random", "flat-random"].map(str::to_owned).into(),
        partitions: 4,
        codec: "zstd".into(),
        limits: vec!["256MiB".into(), "1GiB".into()],
        rounds: 3,
        commits: 10_000,
        rate: 50.0,
        measurements: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--calve" => options.calve = value()?.into(),
            "--messages" => options.messages = value()?.parse()?,
            "--schemas" => options.schemas = value()?.split(',').map(str::to_owned).collect(),
            "--partitions" => options.partitions = value()?.parse()?,
            "--codec" => options.codec = value()?,
            "--limits" => options.limits = value()?.split(',').map(str::to_owned).collect(),
            "--rounds" => options.rounds = value()?.parse()?,
            "--commits" => options.commits = value()?.parse()?,
            "--rate" => options.rate = value()?.parse()?,
            "throughput" | "backlog" | "bad" | "fetch" | "commits" | "cost" | "recovery" | "many" | "freshness" => {
                options.measurements.push(argument)
            }
            _ => bail!("{HELP}"),
        }
    }
    ensure!(!options.measurements.is_empty(), "{HELP}");
    let in_process = options.measurements.iter().all(|measurement| measurement == "fetch");
    ensure!(in_process || options.calve.is_file(), "{} is not there: cargo build --release", options.calve.display());
    Ok(options)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn main() -> Result<()> {
    let options = options()?;
    let broker = Broker::start()?;
    for measurement in &options.measurements {
        match measurement.as_str() {
            "throughput" => throughput(&options, &broker)?,
            "backlog" => backlog(&options, &broker)?,
            "bad" => bad(&options, &broker)?,
            "fetch" => fetch::fetch(&options, &broker)?,
            "cost" => cost::measure(&options, &broker)?,
            "recovery" => recovery::measure(&options, &broker)?,
            "many" => many::measure(&options, &broker)?,
            "freshness" => freshness::measure(&options, &broker)?,
            _ => commits(&options, &broker)?,
        }
    }
    Ok(())
}

fn throughput(options: &Options, broker: &Broker) -> Result<()> {
    println!("schema         messages  bytes/msg  Protobuf MB  wall s  CPU s  MB/s wall  MB/s/core  peak RSS MB");
    for name in &options.schemas {
        let log = broker.fill(name, name, options, |record, _| record)?;
        for _ in 0..options.rounds {
            let run = caught_up(options, broker, &log, "1GiB")?;
            run.check(options, log.messages, 0)?;
            println!(
                "{name:13} {:9}  {:9}  {:11.0}  {:6.1}  {:5.1}  {:9.1}  {:9.1}  {:11.0}",
                log.messages,
                log.bytes / log.messages,
                log.megabytes(),
                run.wall,
                run.cpu,
                log.megabytes() / run.wall,
                log.megabytes() / run.cpu,
                run.peak_rss as f64 / 1e6
            );
        }
    }
    Ok(())
}

fn backlog(options: &Options, broker: &Broker) -> Result<()> {
    let log = broker.fill("backlog", "event-random", options, |record, _| record)?;
    println!("memory_limit  backlog MB  wall s  peak RSS MiB  peak RSS / memory_limit");
    for limit in &options.limits {
        let run = caught_up(options, broker, &log, limit)?;
        run.check(options, log.messages, 0)?;
        let limit_bytes = config_bytes(limit)?;
        println!(
            "{limit:12}  {:10.0}  {:6.1}  {:12.0}  {:.2}",
            log.megabytes(),
            run.wall,
            run.peak_rss as f64 / f64::from(1 << 20),
            run.peak_rss as f64 / limit_bytes as f64
        );
    }
    Ok(())
}

fn bad(options: &Options, broker: &Broker) -> Result<()> {
    let good = broker.fill("good", "event-random", options, |record, _| record)?;
    // The last byte is missing: a reject, found at the end of what was decoded.
    let bad = broker.fill("bad", "event-random", options, |mut record, rng| {
        record.truncate(record.len() - 1);
        record.extend([0x0a, 0x7f, rng.random()]);
        record
    })?;
    println!("log   messages  Protobuf MB  CPU s  µs/message  peak RSS MB");
    let mut costs = Vec::new();
    for _ in 0..options.rounds {
        for (log, rows, rejects) in [(&good, good.messages, 0), (&bad, 0, bad.messages)] {
            let run = caught_up(options, broker, log, "512MiB")?;
            run.check(options, rows, rejects)?;
            let cost = run.cpu / log.messages as f64 * 1e6;
            costs.push(cost);
            let (name, rss) = (&log.topic[..4.min(log.topic.len())], run.peak_rss as f64 / 1e6);
            println!(
                "{name:4}  {:8}  {:11.0}  {:5.1}  {cost:10.2}  {rss:11.0}",
                log.messages,
                log.megabytes(),
                run.cpu
            );
        }
    }
    let ratios: Vec<f64> = costs.chunks(2).map(|pair| pair[1] / pair[0]).collect();
    println!("bad / good: {:.2}", median(ratios));
    Ok(())
}

/// A daemon under a trickle that commits as often as it can; the times are its own, from its log.
fn commits(options: &Options, broker: &Broker) -> Result<()> {
    const COMMITS: usize = 2100;
    let log = Log::empty(broker.topic("trickle", options.partitions)?);
    let project = Project::new(broker, &log, "512MiB", "1ms")?;
    let mut daemon = project.daemon(options)?;
    let lines = BufReader::new(daemon.stderr.take().context("the daemon's stderr")?);
    let messages = Messages::of("event-random")?;
    let producer = broker.producer("none")?;
    let topic = log.topic.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let feeder = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut rng = StdRng::seed_from_u64(2);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let record = messages.nth(0, &mut rng);
                let sent = producer.send(BaseRecord::<(), _>::to(&topic).payload(&record));
                sent.map_err(|(error, _)| error).expect("the trickle goes into an empty queue");
                producer.poll(Duration::from_millis(5));
            }
            let _ = producer.flush(Duration::from_secs(10));
        }
    });
    let mut times = Vec::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        if line["message"] == "committed" {
            times.push(line["milliseconds"].as_f64().context("a commit's time")?);
        }
        if times.len() == COMMITS {
            break;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = feeder.join();
    daemon.kill()?;
    daemon.wait()?;
    ensure!(times.len() == COMMITS, "the daemon ended after {} commits", times.len());
    println!("commits    median ms   p99 ms   (of 100 around it)");
    let around = |at: usize| {
        let mut window = times[at..at + 100].to_vec();
        window.sort_by(f64::total_cmp);
        (window[50], window[98])
    };
    let (early, late) = (around(20), around(1_950));
    for (name, (middle, high)) in [("20–120", early), ("1,000–1,100", around(1_000)), ("1,950–2,050", late)] {
        println!("{name:11}  {middle:8.1}  {high:7.1}");
    }
    println!("late / early: {:.2}", late.0 / early.0);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// As `units::size`, for the ratio only.
fn config_bytes(size: &str) -> Result<u64> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &size[digits.len()..] {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => bail!("{other} is not a unit of --limits: MiB or GiB"),
    };
    Ok(digits.parse::<u64>()? * unit)
}

/// What a topic holds.
struct Log {
    topic: String,
    /// Their type.
    message: &'static str,
    messages: usize,
    bytes: usize,
}

impl Log {
    /// Of a topic that is filled while it is read, with messages of `event-random`.
    fn empty(topic: String) -> Log {
        Log { topic, message: "corpus.event.Event", messages: 0, bytes: 0 }
    }

    fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

/// Apache Kafka, as the tests start it; ends with the bench.
struct Broker {
    folder: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn start() -> Result<Broker> {
        let folder = tempfile::Builder::new().prefix("calve-bench-kafka").tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let script = root().join("tests/parts/kafka.sh");
        let started = Command::new(script)
            .arg("up")
            .arg(folder.path())
            .args([port.to_string(), "log.retention.ms=-1".into(), "log.segment.bytes=268435456".into()])
            .env("CALVE_PARTS_OWNER", std::process::id().to_string())
            .env("CALVE_KAFKA_HEAP", "1g")
            .stderr(Stdio::inherit())
            .stdout(Stdio::null())
            .status()?;
        ensure!(started.success(), "the broker did not start");
        Ok(Broker { folder, address: format!("127.0.0.1:{port}") })
    }

    fn topic(&self, name: &str, partitions: i32) -> Result<String> {
        let topic = format!("{name}{}", std::process::id());
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &self.address).create()?;
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(admin.create_topics([&new], &AdminOptions::new()))?;
        Ok(topic)
    }

    fn producer(&self, codec: &str) -> Result<BaseProducer> {
        let properties: HashMap<&str, &str> = HashMap::from([
            ("bootstrap.servers", self.address.as_str()),
            ("compression.codec", codec),
            ("linger.ms", "20"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("queue.buffering.max.messages", "1000000"),
        ]);
        let mut config = ClientConfig::new();
        for (key, value) in properties {
            config.set(key, value);
        }
        Ok(config.create()?)
    }

    /// A topic with messages, every one of them different.
    fn fill(
        &self,
        name: &str,
        messages: &str,
        options: &Options,
        alter: impl Fn(Vec<u8>, &mut StdRng) -> Vec<u8>,
    ) -> Result<Log> {
        let topic = self.topic(name, options.partitions)?;
        let messages = Messages::of(messages)?;
        let producer = self.producer(&options.codec)?;
        let mut rng = StdRng::seed_from_u64(1);
        let mut bytes = 0;
        for index in 0..options.messages {
            let record = alter(messages.nth(index as u64, &mut rng), &mut rng);
            bytes += record.len();
            let partition = index as i32 % options.partitions;
            let mut outgoing = BaseRecord::<(), _>::to(&topic).partition(partition).payload(&record);
            while let Err((error, back)) = producer.send(outgoing) {
                ensure!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "producing failed: {error}"
                );
                producer.poll(Duration::from_millis(20));
                outgoing = back;
            }
            if index % 1000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(Log { topic, message: messages.message, messages: options.messages, bytes })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = Command::new(root().join("tests/parts/kafka.sh")).arg("down").arg(self.folder.path()).status();
    }
}

/// A calve project of one topic, in a folder of its own.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new(broker: &Broker, log: &Log, memory_limit: &str, interval: &str) -> Result<Project> {
        let folder = tempfile::Builder::new().prefix("calve-bench").tempdir()?;
        let at = folder.path();
        std::fs::create_dir(at.join("catalogs"))?;
        std::fs::write(
            at.join("catalogs/local.toml"),
            "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n",
        )?;
        let protos = root().join("tests/corpus/proto").canonicalize()?;
        let text = format!(
            "[daemon]\nmemory_limit = \"{memory_limit}\"\nhttp = \"127.0.0.1:0\"\n[kafka]\nbootstrap_servers = \"{}\"\n\
             [defaults]\ncatalog = \"local\"\n[topics.{}]\nmessage = \"{}\"\nschema = \"{}\"\n\
             table = \"bronze.bench\"\ncommit_interval = \"{interval}\"\n",
            broker.address,
            log.topic,
            log.message,
            protos.display()
        );
        std::fs::write(at.join("calve.toml"), text)?;
        Ok(Project { folder })
    }

    /// Further keys of the topic.
    fn append(&self, keys: &str) -> Result<()> {
        let path = self.folder.path().join("calve.toml");
        Ok(std::fs::write(&path, std::fs::read_to_string(&path)? + keys)?)
    }

    fn command(&self, options: &Options) -> Command {
        let mut command = Command::new(&options.calve);
        command.arg("-c").arg(self.folder.path().join("calve.toml"));
        command
    }

    fn daemon(&self, options: &Options) -> Result<Child> {
        let mut command = self.command(options);
        Ok(command.args(["--log-format", "json", "run"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?)
    }
}

/// What one run of `calve` to the end of a topic took.
struct Run {
    project: Project,
    wall: f64,
    /// Seconds of all threads, user and system.
    cpu: f64,
    /// Bytes.
    peak_rss: u64,
}

fn caught_up(options: &Options, broker: &Broker, log: &Log, memory_limit: &str) -> Result<Run> {
    let project = Project::new(broker, log, memory_limit, "10s")?;
    let started = Instant::now();
    let child = project
        .command(options)
        .args(["-q", "run", "--until-caught-up"])
        .stdout(Stdio::null())
        .spawn()
        .context("calve does not start")?;
    let mut status = 0;
    // SAFETY: a plain C struct, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // Not the usage's: that of a child begins with its parent's.
    let mut peak_rss = 0;
    let waited = loop {
        peak_rss = peak_rss.max(resident_peak(child.id()).unwrap_or(0));
        // SAFETY: both pointers are to live locals; the child is ours and nobody else waits for it.
        let waited = unsafe { libc::wait4(child.id() as i32, &mut status, libc::WNOHANG, &mut usage) };
        if waited != 0 {
            break waited;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let wall = started.elapsed().as_secs_f64();
    ensure!(waited == child.id() as i32 && status == 0, "calve run ended with status {status}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Run { project, wall, cpu, peak_rss })
}

/// The most memory that a process has had, in bytes; none once it has ended.
fn resident_peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

impl Run {
    /// The tables hold what the log holds: their own account, and the number of rows and rejects.
    fn check(&self, options: &Options, rows: usize, rejects: usize) -> Result<()> {
        let tables = [("bronze.bench", rows), ("bronze.bench__quarantine", rejects)];
        for (table, expected) in tables {
            if expected == 0 && table.ends_with("quarantine") {
                continue;
            }
            let output = self.project.command(options).args(["-q", "verify", table]).output()?;
            ensure!(output.status.success(), "calve verify {table}: {}", String::from_utf8_lossy(&output.stdout));
            let sql = format!("select count(*) as n from {table}");
            let output = self.project.command(options).args(["-q", "query", &sql, "--format", "json"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let wanted = format!("\"n\":{expected}");
            ensure!(text.replace(' ', "").contains(&wanted), "{table} should hold {expected} rows: {text}");
        }
        Ok(())
    }
}
