//! How old a record is when its commit is there, at a rate of so many MB/s.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use crate::running::{Daemon, percentile, sorted};
use crate::{Broker, Log, Options, Project, STYLE, corpus, generate};

const SECONDS: f64 = 30.0;
/// Not counted: connections, group, first files.
const WARM_UP_SECONDS: f64 = 5.0;
/// Different records, over and over.
const RECORDS: usize = 100_000;
/// One in so many records is looked at.
const SAMPLE: u64 = 50;

pub fn measure(options: &Options, broker: &Broker) -> Result<()> {
    let (schema, id) = corpus("corpus.event.Event")?;
    let mut rng = StdRng::seed_from_u64(4);
    let records: Vec<Vec<u8>> = (0..RECORDS).map(|_| generate::message(&schema, id, STYLE, &mut rng)).collect();
    let topic = broker.topic("fresh", options.partitions)?;
    let log = Log { topic: topic.clone(), messages: 0, bytes: 0 };
    let project = Project::new(broker, &log, "corpus.event.Event", "1GiB", "500ms")?;
    project.append("properties = { \"history.expire.min-snapshots-to-keep\" = \"100000\" }\n")?;
    let mut daemon = Daemon::start(&project, options)?;
    while daemon.line(Duration::from_secs(30))?.1["message"] != "partitions assigned" {}

    let producer = broker.producer(&options.codec)?;
    // By partition: of one in SAMPLE records, its offset and when it was handed to the producer.
    let mut sent_at: Vec<Vec<(u64, SystemTime)>> = vec![Vec::new(); options.partitions as usize];
    let mut next = vec![0_u64; options.partitions as usize];
    let (started, mut bytes, mut late, mut count) = (Instant::now(), 0, Duration::ZERO, 0_usize);
    while started.elapsed().as_secs_f64() < SECONDS {
        let record = &records[count % RECORDS];
        let partition = count % next.len();
        let due = Duration::from_secs_f64(bytes as f64 / (options.rate * 1e6));
        match due.checked_sub(started.elapsed()) {
            Some(wait) if wait > Duration::from_millis(1) => drop(producer.poll(wait)),
            Some(_) => {}
            None => late = late.max(started.elapsed() - due),
        }
        let mut outgoing = BaseRecord::<(), _>::to(&topic).partition(partition as i32).payload(record);
        while let Err((error, back)) = producer.send(outgoing) {
            ensure!(error.rdkafka_error_code().is_some(), "producing failed: {error}");
            producer.poll(Duration::from_millis(1));
            outgoing = back;
        }
        if next[partition].is_multiple_of(SAMPLE) {
            sent_at[partition].push((next[partition], SystemTime::now()));
        }
        next[partition] += 1;
        count += 1;
        bytes += record.len();
        if count.is_multiple_of(2000) {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(30))?;
    std::thread::sleep(Duration::from_secs(5));
    daemon.stop()?;

    let commits = commits(&project, &topic)?;
    let mut ages = Vec::new();
    let counted_from = SystemTime::now() - started.elapsed() + Duration::from_secs_f64(WARM_UP_SECONDS);
    for (partition, samples) in sent_at.iter().enumerate() {
        for (offset, sent) in samples.iter().filter(|(_, sent)| *sent > counted_from) {
            let there = commits.iter().find(|(_, next)| next.get(partition).is_some_and(|next| *next > *offset as i64));
            let (there, _) = there.with_context(|| format!("offset {offset} of partition {partition} is not there"))?;
            ages.push(there.duration_since(*sent).unwrap_or_default().as_secs_f64());
        }
    }
    let ages = sorted(ages);
    println!(
        "freshness at {:.1} MB/s (producer at most {:.2} s behind), {} commits, commit_interval 0.5 s, {} records: p50 \
         {:.2} s, p99 {:.2} s, oldest {:.2} s",
        bytes as f64 / 1e6 / SECONDS,
        late.as_secs_f64(),
        commits.len(),
        ages.len(),
        percentile(&ages, 0.5),
        percentile(&ages, 0.99),
        ages[ages.len() - 1]
    );
    Ok(())
}

/// Each commit in order: when it was there (its metadata file), and the ledger's next offsets by partition.
fn commits(project: &Project, topic: &str) -> Result<Vec<(SystemTime, Vec<i64>)>> {
    let folder = project.folder.path().join("warehouse/bronze/bench/metadata");
    let mut there = BTreeMap::new();
    let mut newest: Option<(SystemTime, Value)> = None;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(".metadata.json") {
            continue;
        }
        let written = std::fs::metadata(&path)?.modified()?;
        let metadata: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        there.insert(metadata["current-snapshot-id"].as_i64(), written);
        if newest.as_ref().is_none_or(|(of, _)| *of < written) {
            newest = Some((written, metadata));
        }
    }
    let (_, newest) = newest.context("no metadata file")?;
    let mut commits = Vec::new();
    for snapshot in newest["snapshots"].as_array().context("snapshots")? {
        let summary = snapshot["summary"]["calve.ledger"].as_str().context("a ledger")?;
        let ledger: Value = serde_json::from_str(summary)?;
        let next = &ledger["topics"][topic]["next"];
        // Its own file may be removed by now: then by the snapshot's own time, a little early.
        let by_snapshot = || UNIX_EPOCH + Duration::from_millis(snapshot["timestamp-ms"].as_u64().unwrap_or(0));
        let at = there.get(&snapshot["snapshot-id"].as_i64()).copied().unwrap_or_else(by_snapshot);
        commits.push((at, serde_json::from_value(next.clone())?));
    }
    commits.sort();
    Ok(commits)
}
