//! How far a topic's table has come, from the table and from Kafka: no daemon is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::tables;
use crate::batch::{OffsetRange, TimestampType};
use crate::commit::TopicLedger;
use crate::commit::{ancestry, ledger};
use crate::config::{Project, Start, Topic};
use crate::source::{Admin, Budget, RangeReader, Watermarks};
use crate::telemetry::board::Status;

/// Of so many partitions, those with the largest lag, the oldest unread record is looked at.
const OLDEST_READ_MAX: usize = 16;
const OLDEST_READ_TIMEOUT: Duration = Duration::from_secs(5);
const READ_MEMORY_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The table accounts for everything that can be read.
    CaughtUp,
    /// There are records that the table does not account for yet.
    Behind,
    /// Nothing was ever committed.
    New,
    /// A person must decide something before it goes on.
    Halted,
    /// The daemon waits to try again.
    Retrying,
    /// Kafka or the catalog cannot be asked.
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::CaughtUp => "caught_up",
            State::Behind => "behind",
            State::New => "new",
            State::Halted => "halted",
            State::Retrying => "retrying",
            State::Unknown => "unknown",
        }
    }
}

/// One topic and its table. Times are milliseconds since the epoch.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    pub topic: String,
    pub catalog: String,
    pub table: String,
    pub state: State,
    /// What is to be decided, or what cannot be asked.
    pub reason: Option<String>,
    /// Offsets up to the end that the table does not account for.
    pub lag_records: Option<i64>,
    /// The age of the oldest record that the table does not account for; 0 when there is none.
    pub lag_seconds: Option<f64>,
    pub last_commit_ms: Option<i64>,
    pub last_snapshot_id: Option<i64>,
    /// Rows and rejects that the topic gave the table since the beginning.
    pub rows: u64,
    pub quarantined: u64,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    pub partition: i32,
    /// The first offset that the log still has, and one past the last that can be read.
    pub log_start: i64,
    pub end: i64,
    /// The first offset that the table does not account for; null where it has nothing of the partition.
    pub next: Option<i64>,
    pub lag: i64,
}

/// Looks at one topic. What cannot be asked is told in the probe.
pub async fn probe(project: &Project, topic: &Topic, admin: &Admin) -> Probe {
    let mut probe = Probe {
        topic: topic.name.clone(),
        catalog: topic.catalog.clone(),
        table: topic.table.to_string(),
        state: State::Unknown,
        reason: None,
        lag_records: None,
        lag_seconds: None,
        last_commit_ms: None,
        last_snapshot_id: None,
        rows: 0,
        quarantined: 0,
        partitions: Vec::new(),
    };
    let told = match table_side(project, topic, &mut probe).await {
        Ok(told) => told,
        Err(error) => return Probe { reason: Some(format!("{error:#}")), ..probe },
    };
    if let Err(error) = kafka_side(project, topic, admin, told.as_ref(), &mut probe).await {
        probe.state = State::Unknown;
        probe.reason.get_or_insert(format!("{error:#}"));
    }
    probe
}

/// What the table says; `None` without a ledger of this topic.
async fn table_side(project: &Project, topic: &Topic, probe: &mut Probe) -> anyhow::Result<Option<TopicLedger>> {
    let catalog = tables::open(tables::catalog_of(project, &topic.catalog)?).await?;
    let Some(table) = tables::load(&*catalog, &topic.table).await? else { return Ok(None) };
    let metadata = table.metadata();
    let last = ancestry::line(metadata, metadata.current_snapshot_id())
        .into_iter()
        .find(|snapshot| snapshot.summary().additional_properties.contains_key(ledger::KEY));
    probe.last_commit_ms = last.as_ref().map(|snapshot| snapshot.timestamp_ms());
    probe.last_snapshot_id = last.as_ref().map(|snapshot| snapshot.snapshot_id());
    match ancestry::read(&table, catalog.trust_mirror()).await {
        Ok(reading) => {
            let told = reading.ledger.topic(&topic.name).cloned();
            probe.rows = told.as_ref().map_or(0, |told| told.rows);
            probe.quarantined = told.as_ref().map_or(0, |told| told.rejects);
            Ok(told)
        }
        Err(error) if error.is_retry() => Err(error.into()),
        Err(error) => {
            probe.state = State::Halted;
            probe.reason = Some(error.to_string());
            Ok(None)
        }
    }
}

/// What Kafka says, and what follows from both.
async fn kafka_side(
    project: &Project,
    topic: &Topic,
    admin: &Admin,
    told: Option<&TopicLedger>,
    probe: &mut Probe,
) -> anyhow::Result<()> {
    let log = admin.watermarks(&topic.name, topic.isolation).await?;
    let unread: Vec<i32> = log.keys().copied().filter(|at| told.and_then(|told| told.next(*at)).is_none()).collect();
    let begins = match (topic.start, unread.is_empty()) {
        (Start::Timestamp(ms), false) => admin.offsets_for_time(&topic.name, &unread, ms, topic.isolation).await?,
        _ => BTreeMap::new(),
    };
    for (partition, Watermarks { low, end }) in &log {
        let next = told.and_then(|told| told.next(*partition));
        let from = next.unwrap_or_else(|| match topic.start {
            Start::Latest => *end,
            Start::Earliest => *low,
            Start::Timestamp(_) => begins.get(partition).copied().unwrap_or(*low),
        });
        let lag = (end - from.max(*low)).max(0);
        probe.partitions.push(Partition { partition: *partition, log_start: *low, end: *end, next, lag });
    }
    let lag: i64 = probe.partitions.iter().map(|partition| partition.lag).sum();
    probe.lag_records = Some(lag);
    if probe.state == State::Halted {
        return Ok(());
    }
    if let Some(reason) = contradiction(topic, admin, told, &log).await? {
        probe.state = State::Halted;
        probe.reason = Some(reason);
        return Ok(());
    }
    probe.state = match (told, lag) {
        (None, _) => State::New,
        (Some(_), 0) => State::CaughtUp,
        (Some(_), _) => State::Behind,
    };
    probe.lag_seconds = match lag {
        0 => Some(0.0),
        _ => oldest_unread(project, topic, &probe.partitions).await.map(|ms| (now_ms() - ms).max(0) as f64 / 1000.0),
    };
    Ok(())
}

/// Why the log cannot be the one that the ledger counts, or not all of it is there any more.
pub async fn contradiction(
    topic: &Topic,
    admin: &Admin,
    told: Option<&TopicLedger>,
    log: &BTreeMap<i32, Watermarks>,
) -> anyhow::Result<Option<String>> {
    let Some(told) = told else { return Ok(None) };
    if let (Some(known), Some(found)) = (&told.id, admin.topic_id(&topic.name).await?)
        && *known != found
    {
        return Ok(Some(crate::source::topic_recreated(&topic.name, known, &found).to_string()));
    }
    if let (Some(known), Some(found)) = (&told.cluster, admin.cluster_id().await?)
        && *known != found
    {
        return Ok(Some(format!("topic {}: the ledger is of Kafka cluster {known}, this is {found}", topic.name)));
    }
    for (partition, next) in told.offsets() {
        let Some(Watermarks { low, end }) = log.get(&partition) else { continue };
        if next > *end {
            return Ok(Some(crate::source::end_below_ledger(&topic.name, partition, next, *end).to_string()));
        }
        if next < *low {
            return Ok(Some(crate::source::log_start_moved(&topic.name, partition, next, *low).to_string()));
        }
    }
    Ok(None)
}

/// The timestamp of the oldest record that no table accounts for, as far as it can be read in a few seconds.
async fn oldest_unread(project: &Project, topic: &Topic, partitions: &[Partition]) -> Option<i64> {
    let mut behind: Vec<&Partition> = partitions.iter().filter(|partition| partition.lag > 0).collect();
    behind.sort_by_key(|partition| std::cmp::Reverse(partition.lag));
    let budget = Budget::new(READ_MEMORY_BYTES);
    let reads = behind.into_iter().take(OLDEST_READ_MAX).map(|partition| {
        let budget = &budget;
        async move {
            let range = OffsetRange { from: partition.end - partition.lag, to: partition.end };
            let reader =
                RangeReader::start(&project.kafka, &topic.name, partition.partition, range, topic.isolation, budget);
            let mut reader = reader.ok()?;
            while let Ok(Some(batch)) = reader.next().await {
                let stamped = batch.records.iter().find(|record| record.timestamp_type != TimestampType::NotAvailable);
                if let Some(record) = stamped {
                    return Some(record.timestamp_ms);
                }
            }
            None
        }
    });
    let found = tokio::time::timeout(OLDEST_READ_TIMEOUT, futures::future::join_all(reads)).await.ok()?;
    found.into_iter().flatten().min()
}

/// What a running daemon says of itself; `None` when none answers.
pub async fn daemon(project: &Project) -> Option<Status> {
    if project.daemon.http.ends_with(":0") {
        return None;
    }
    // The environment's proxies are not on the way to one's own daemon.
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build().ok()?;
    let mut request = client.get(format!("http://{}/status", reachable(&project.daemon.http)));
    if let Some(token) = &project.daemon.http_token {
        request = request.bearer_auth(&token.0);
    }
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

/// An address that all interfaces are served on is reached over loopback.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_string(),
    }
}

/// Looks at topics, several at a time, with what the daemon says where it runs.
pub async fn probe_all(project: &Project, topics: &[&Topic], daemon: Option<&Status>) -> anyhow::Result<Vec<Probe>> {
    use futures::StreamExt as _;
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let admin = Admin::new(&project.kafka).context("kafka cannot be asked")?;
    let admin = &admin;
    let probes = futures::stream::iter(topics.iter().map(|topic| probe(project, topic, admin))).buffered(4);
    let mut probes: Vec<Probe> = probes.collect().await;
    for probe in &mut probes {
        let told = daemon.and_then(|daemon| daemon.topics.get(&probe.topic)).filter(|told| told.table == probe.table);
        use crate::telemetry::TopicState;
        if let Some(told) = told {
            // Of what is down it knows more than can be asked.
            probe.lag_records = probe.lag_records.or(told.lag_records);
            probe.lag_seconds = probe.lag_seconds.or(told.lag_seconds);
            probe.last_commit_ms = probe.last_commit_ms.or(told.last_commit_ms);
        }
        match told.map(|told| (told.state, &told.reason)) {
            Some((TopicState::Halted, reason)) => {
                probe.state = State::Halted;
                probe.reason = reason.clone().or(probe.reason.take());
            }
            Some((TopicState::Retrying, reason)) => {
                probe.state = State::Retrying;
                probe.reason = reason.clone().or(probe.reason.take());
            }
            _ => {}
        }
    }
    Ok(probes)
}

pub fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
