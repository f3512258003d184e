//! How old a record is when its commit is there, at a rate of so many MB/s.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::records::Compression;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::firehose::{Arrived, Batch, Firehose};
use crate::messages::Messages;
use crate::running::{Daemon, percentile, sorted};
use crate::{Broker, Log, Options, Project};

const SECONDS: f64 = 30.0;
/// Not counted: connections, group, first files.
const WARM_UP_SECONDS: f64 = 5.0;
/// Different records, over and over.
const RECORDS: usize = 100_000;
/// How long the producer waits for more.
const LINGER: Duration = Duration::from_millis(20);

pub fn measure(options: &Options, broker: &Broker) -> Result<()> {
    let messages = Messages::of("event-random")?;
    let mut rng = StdRng::seed_from_u64(4);
    let records: Vec<Vec<u8>> = (0..RECORDS).map(|_| messages.nth(0, &mut rng)).collect();
    let topic = broker.topic("fresh", options.partitions)?;
    let log = Log::empty(topic.clone());
    let project = Project::new(broker, &log, "1GiB", "500ms")?;
    project.append("properties = { \"history.expire.min-snapshots-to-keep\" = \"100000\" }\n")?;
    let mut daemon = Daemon::start(&project, options)?;
    while daemon.line(Duration::from_secs(30))?.1["message"] != "partitions assigned" {}

    // As a producer makes them that waits LINGER for more.
    let of_one = (options.rate * 1e6 / options.partitions as f64 * LINGER.as_secs_f64()) as usize;
    let mut batches = Vec::new();
    let mut records = records.iter().peekable();
    while records.peek().is_some() {
        let (mut values, mut left) = (Vec::new(), of_one);
        while let Some(record) = records.next_if(|record| record.len() <= left) {
            left -= record.len();
            values.push(record.clone());
        }
        ensure!(!values.is_empty(), "--rate is too small");
        batches.push(Batch::new(&values, compression(&options.codec)?)?);
    }
    let mut firehose = Firehose::connect(&broker.address, &topic)?;
    let (started, mut bytes, mut late) = (Instant::now(), 0, Duration::ZERO);
    for (number, batch) in (0..options.partitions).cycle().zip(batches.iter().cycle()) {
        if started.elapsed().as_secs_f64() >= SECONDS {
            break;
        }
        bytes += batch.bytes;
        let due = started + Duration::from_secs_f64(bytes as f64 / (options.rate * 1e6));
        late = late.max(firehose.send(number, batch, due)?);
    }
    let arrived = firehose.end()?;
    std::thread::sleep(Duration::from_secs(5));
    daemon.stop()?;

    let commits = commits(&project, &topic)?;
    let mut ages = Vec::new();
    let counted_from = SystemTime::now() - started.elapsed() + Duration::from_secs_f64(WARM_UP_SECONDS);
    for Arrived { partition, next: end, due } in arrived.iter().filter(|arrived| arrived.due > counted_from) {
        let there = commits.iter().find(|(_, next)| next.get(*partition as usize).is_some_and(|next| next >= end));
        let (there, _) = there.with_context(|| format!("offset {end} of partition {partition} is not there"))?;
        // Of the batch's first record, which waited for the others.
        ages.push((there.duration_since(*due).unwrap_or_default() + LINGER).as_secs_f64());
    }
    let ages = sorted(ages);
    println!(
        "freshness at {:.1} MB/s (producer at most {:.2} s behind), {} commits, commit_interval 0.5 s, {} batches: p50 \
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

fn compression(codec: &str) -> Result<Compression> {
    Ok(match codec {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => bail!("--codec {other} is not known"),
    })
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
