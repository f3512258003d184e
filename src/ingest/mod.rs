//! One topic → its table: the loop. Read this first.
//!
//! Events come from the source in order. Batches go to workers, which shred and write; now and then everything staged
//! becomes one commit, quarantine table first ([`flush`]). The table's ledger says where each partition starts
//! ([`resume`]), and what its quarantine table must hold already ([`quarantined`], [`make_up`](mod@make_up)); whoever
//! finds the ledger moved throws its staged files away and starts again from there. A topic's loop shares nothing with
//! the others but the Kafka client and the memory limit: its failure is its own.

mod flush;
mod lag;
mod make_up;
mod open;
mod patience;
mod progress;
mod quarantined;
mod resume;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use lag::watch_stuck;
pub use make_up::make_up;
pub use open::{Opened, Resolved, fit, open, resolve, wanted};
pub use patience::Patience;
pub(crate) use patience::patiently;
pub use resume::{Feed, LogIdentity};

use crate::batch::RawBatch;
use crate::catalog::{self, Catalog};
use crate::commit::Committer;
use crate::config::{Start, Topic};
use crate::error::{Error, Result};
use crate::refine::Refinements;
use crate::source::{Admin, Event, Events, Source, Watermarks};
use crate::telemetry::metrics::{Share, TopicMetrics};
use crate::telemetry::{Board, Metrics, TopicState};
use crate::write::Limits;
use open::Rejects;
use progress::{Join, Progress};
use worker::Worker;

/// How often the loop looks around: lag, what others did to the table, whether it is done.
const TICK: Duration = Duration::from_millis(500);
const LAG_INTERVAL: Duration = Duration::from_secs(5);
const TEND_INTERVAL: Duration = Duration::from_secs(60);
/// Ranges that moved without a record (control records, compaction) are written at this low rate.
const QUIET_COMMIT_INTERVAL: Duration = Duration::from_secs(60);

/// So many times in a row nobody else must have committed until we take it that nobody does.
const CROWD: u8 = 3;
/// Where several daemons commit to one table, each waits between so much of the interval and all of it, so that they do
/// not go on meeting once they have met.
const CROWDED_INTERVAL_MIN: f64 = 0.75;
/// After files could not be written: how long until the records are read again, doubling.
const REREAD_MIN: Duration = Duration::from_secs(1);
const REREAD_MAX: Duration = Duration::from_secs(15);

/// What a loop needs from the daemon.
#[derive(Clone)]
pub struct Context {
    pub catalog: Arc<dyn Catalog>,
    pub source: Arc<Source>,
    pub admin: Admin,
    pub board: Board,
    pub metrics: Metrics,
    /// Told of every commit; they run downstream of it.
    pub refinements: Refinements,
    /// Bytes that the columns and open files of one topic may hold.
    pub memory_bytes: u64,
    /// Stop once everything up to the ends at start is committed.
    pub until_caught_up: bool,
}

/// Feeds one topic's table until it is cancelled, done, or halted by an error that a person must see to.
pub async fn run(topic: Topic, events: Events, context: Context, cancel: CancellationToken) -> Result<()> {
    let patience = Patience {
        topic: topic.name.clone(),
        board: context.board.clone(),
        limit: context.until_caught_up.then_some(Duration::from_secs(300)),
        stall: Some(events.stall()),
    };
    let mut ingest = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        ingest = Ingest::open(topic, context, patience) => ingest?,
    };
    let result = ingest.feed(events, cancel).await;
    if result.is_err() {
        ingest.abort().await;
    }
    result
}

struct Ingest {
    topic: Topic,
    feed: Feed,
    context: Context,
    metrics: TopicMetrics,
    patience: Patience,
    log: LogIdentity,
    main: Committer,
    /// There once the quarantine table is.
    quarantine: Option<Committer>,
    opened: Arc<Opened>,
    rejects: Arc<Rejects>,
    workers: Vec<Option<Worker>>,
    owned: BTreeMap<i32, Progress>,
    /// Partitions that were told to seek, whose events are void until they are positioned.
    seeking: BTreeSet<i32>,
    /// Records left out because the quarantine table has them already; the next commit counts them as rejects.
    found_quarantined: u64,
    /// When the oldest record that is not committed came.
    pending_since: Option<Instant>,
    /// When a range first moved without a record.
    quiet_since: Option<Instant>,
    /// With `until_caught_up`: the ends at start.
    ends: Option<BTreeMap<i32, Watermarks>>,
    /// Where the log ended, and what the table accounted for, when they were last asked for the lag.
    log_seen: BTreeMap<i32, Watermarks>,
    ledger_seen: BTreeMap<i32, i64>,
    commit_id: Uuid,
    /// Above 0 while others commit to the table too.
    crowd: u8,
    /// The share of `commit_interval` after which the next commit is due.
    interval_share: f64,
    /// Times in a row that files could not be written.
    failures: u32,
}

impl Ingest {
    async fn open(topic: Topic, context: Context, patience: Patience) -> Result<Ingest> {
        let resolved = resolve(&topic).map_err(|error| {
            Error::halt(format!("topic {}: its schema cannot be read", topic.name)).caused_by(error)
        })?;
        // The topic before the table: a name that is wrong leaves no table behind.
        if context.until_caught_up {
            patiently!(patience, context.admin.require(&topic.name))?;
        }
        let log = LogIdentity {
            topic_id: patiently!(patience, context.admin.topic_id(&topic.name))?,
            cluster_id: patiently!(patience, context.admin.cluster_id())?,
        };
        let opened = patiently!(patience, open(&topic, &resolved, &context.catalog))?;
        let table = opened.table.identifier().clone();
        let mut main = patiently!(patience, Committer::open(context.catalog.clone(), &table))?;
        main = main.counted_in(context.metrics.table(&topic.table.to_string()));
        main.set_needed(context.refinements.watermarks(&topic.table).await);
        let rejects =
            Arc::new(Rejects::new(catalog::ident(&topic.quarantine)?, opened.message(), context.catalog.clone())?);
        let mut quarantine = None;
        if patiently!(patience, rejects.exists())? {
            let opened = patiently!(patience, Committer::open(context.catalog.clone(), &rejects.ident))?;
            quarantine = Some(opened.counted_in(context.metrics.table(&topic.quarantine.to_string())));
        }
        let ends = match context.until_caught_up {
            true => Some(patiently!(patience, context.admin.watermarks(&topic.name, topic.isolation))?),
            false => None,
        };
        let feed = Feed { topic: topic.name.clone(), table: topic.table.to_string() };
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Ingest {
            feed,
            metrics: context.metrics.topic(&topic.name),
            context,
            patience,
            log,
            main,
            quarantine,
            opened: Arc::new(opened),
            rejects,
            workers: (0..workers).map(|_| None).collect(),
            owned: BTreeMap::new(),
            seeking: BTreeSet::new(),
            found_quarantined: 0,
            pending_since: None,
            quiet_since: None,
            log_seen: BTreeMap::new(),
            ledger_seen: BTreeMap::new(),
            ends,
            commit_id: Uuid::now_v7(),
            crowd: 0,
            interval_share: 1.0,
            failures: 0,
            topic,
        })
    }

    async fn feed(&mut self, mut events: Events, cancel: CancellationToken) -> Result<()> {
        self.check_log()?;
        self.context.board.set(&self.topic.name, TopicState::Running, None);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut lag_at, mut tend_at) = (Instant::now(), Instant::now() + TEND_INTERVAL);
        loop {
            if self.is_caught_up().await? {
                self.flush("caught up").await?;
                // What was staged may have been dropped, to be read again.
                if !self.is_caught_up().await? {
                    continue;
                }
                let all: Vec<i32> = self.ends.iter().flat_map(|ends| ends.keys().copied()).collect();
                self.make_up(&all).await?;
                self.report_lag().await;
                return Ok(());
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.flush("shutdown").await?;
                    return Ok(());
                }
                _ = tick.tick() => self.tell_lag(),
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await?,
                    None => return Ok(()),
                },
            }
            if let Some(reason) = self.due() {
                self.flush(reason).await?;
            }
            if lag_at <= Instant::now() {
                lag_at = Instant::now() + LAG_INTERVAL;
                self.report_lag().await;
            }
            if tend_at <= Instant::now() {
                tend_at = Instant::now() + TEND_INTERVAL;
                self.tend().await?;
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Assigned { partitions, start } => {
                let offsets = self.assigned(&partitions).await?;
                // The source is shutting down if nobody listens.
                let _ = start.send(offsets);
            }
            Event::Revoked { partitions, lost, done } => {
                let dropped = self.revoked(&partitions, lost).await?;
                let _ = done.send(());
                if dropped {
                    self.rewind().await?;
                }
            }
            Event::Batch(batch) => self.take(batch).await?,
            Event::End { partition, offset } => self.reached(partition, offset),
            Event::Positioned { partition, offset } => {
                self.seeking.remove(&partition);
                tracing::debug!(topic = %self.topic.name, partition, offset, "positioned");
            }
            Event::Failed(error) if error.is_retry() => {
                tracing::warn!(topic = %self.topic.name, "{error}");
                self.context.board.set(&self.topic.name, TopicState::Retrying, Some(error.to_string()));
            }
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    async fn take(&mut self, mut batch: RawBatch) -> Result<()> {
        let partition = batch.partition;
        let Some(progress) = self.owned.get_mut(&partition).filter(|_| !self.seeking.contains(&partition)) else {
            return Ok(());
        };
        match progress.join(&mut batch) {
            Join::Behind => return Ok(()),
            Join::Gap => {
                let read = progress.read;
                tracing::warn!(topic = %self.topic.name, partition, expected = read, got = batch.range.from, "a batch does not join up; reading again");
                self.seek(partition, read);
                return Ok(());
            }
            Join::Take => {}
        }
        self.found_quarantined += progress.drop_quarantined(&mut batch);
        progress.read = batch.range.to;
        progress.note_times(&batch);
        self.pending_since.get_or_insert_with(Instant::now);
        self.metrics.records_read.inc_by(batch.records.len() as u64);
        self.metrics.bytes_read.inc_by(batch.arena.len().saturating_sub(RawBatch::PADDING) as u64);
        let place = partition as usize % self.workers.len();
        let worker = self.workers[place].get_or_insert_with(|| {
            let limits = Limits {
                file_size_bytes_target: self.topic.file_size_target_bytes,
                buffered_bytes_max: (self.context.memory_bytes / 2).clamp(4 << 20, 128 << 20),
                ..Limits::default()
            };
            let memory = Share::of(&self.context.metrics.memory("writing"));
            let open_files = Share::of(&self.context.metrics.table(&self.feed.table).open_files);
            let metrics = self.metrics.clone();
            Worker::start(self.opened.clone(), self.rejects.clone(), limits, metrics, memory, open_files)
        });
        worker.take(batch).await
    }

    /// Everything below `offset` was delivered; a range may be extended over what is not a record.
    fn reached(&mut self, partition: i32, offset: i64) {
        let Some(progress) = self.owned.get_mut(&partition).filter(|_| !self.seeking.contains(&partition)) else {
            return;
        };
        if offset > progress.read {
            progress.read = offset;
            self.quiet_since.get_or_insert_with(Instant::now);
        }
        if self.failures == 0 {
            self.context.board.set(&self.topic.name, TopicState::Running, None);
        }
    }

    fn seek(&mut self, partition: i32, offset: i64) {
        self.seeking.insert(partition);
        self.context.source.seek(&self.topic.name, partition, offset);
    }

    /// Why a commit is due, if it is.
    fn due(&self) -> Option<&'static str> {
        let loads = || self.workers.iter().flatten().map(|worker| &worker.load);
        let interval = self.topic.commit_interval.mul_f64(self.interval_share);
        if self.pending_since.is_some_and(|since| since.elapsed() >= interval) {
            return Some("interval");
        }
        if self.quiet_since.is_some_and(|since| since.elapsed() >= QUIET_COMMIT_INTERVAL)
            || self.owned.values().any(|progress| progress.unrecorded)
        {
            return Some("quiet");
        }
        if loads().any(|load| load.full.load(Ordering::Relaxed)) {
            return Some("size");
        }
        let held: u64 = loads().map(|load| load.buffered_bytes.load(Ordering::Relaxed)).sum();
        (held > self.context.memory_bytes).then_some("memory")
    }

    /// Where each partition that was given to us starts.
    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>> {
        let patience = self.patience.clone();
        let name = &self.topic.name;
        let next = patiently!(patience, self.main.starts(name, partitions))?;
        self.check_log()?;
        let admin = &self.context.admin;
        let log = patiently!(patience, admin.watermarks(name, self.topic.isolation))?;
        let fresh: Vec<i32> = partitions.iter().copied().filter(|p| next.get(p).copied().flatten().is_none()).collect();
        let initial = self.beginnings(&fresh, &log).await?;
        let start = resume::start_offsets(&self.feed, partitions, |p| next.get(&p).copied().flatten(), &log, &initial)?;
        for (partition, offset) in &start {
            let mut progress = Progress::at(*offset);
            progress.in_ledger = !fresh.contains(partition);
            progress.unrecorded = !progress.in_ledger && self.topic.start != Start::Earliest;
            self.owned.insert(*partition, progress);
            self.seeking.remove(partition);
        }
        self.consult_quarantine(partitions).await?;
        tracing::info!(topic = %self.topic.name, ?start, "partitions assigned");
        Ok(start)
    }

    /// Where `start` says that partitions begin of which the table has nothing.
    pub(super) async fn beginnings(
        &self,
        fresh: &[i32],
        log: &BTreeMap<i32, Watermarks>,
    ) -> Result<BTreeMap<i32, i64>> {
        let (patience, admin, isolation) = (self.patience.clone(), &self.context.admin, self.topic.isolation);
        let mut initial = BTreeMap::new();
        for partition in fresh {
            if let Some(offsets) = log.get(partition) {
                let start = if self.topic.start == Start::Latest { offsets.end } else { offsets.low };
                initial.insert(*partition, start);
            }
        }
        if let (Start::Timestamp(milliseconds), false) = (self.topic.start, fresh.is_empty()) {
            let name = &self.topic.name;
            initial.extend(patiently!(patience, admin.offsets_for_time(name, fresh, milliseconds, isolation))?);
        }
        Ok(initial)
    }

    /// True if what was staged had to be dropped, so that the partitions that stay must be read again.
    async fn revoked(&mut self, partitions: &[i32], lost: bool) -> Result<bool> {
        let mut dropped = false;
        if lost {
            self.abort().await;
            dropped = true;
        } else {
            self.flush("rebalance").await?;
        }
        for partition in partitions {
            self.owned.remove(partition);
            self.seeking.remove(partition);
        }
        tracing::info!(topic = %self.topic.name, ?partitions, lost, "partitions revoked");
        Ok(dropped && !self.owned.is_empty())
    }

    /// The log's identity against the ledger's: offsets of one log mean nothing in another.
    fn check_log(&self) -> Result<()> {
        let (topic, table) = (&self.topic.name, &self.feed.table);
        let (id, cluster) = (self.log.topic_id.as_deref(), self.log.cluster_id.as_deref());
        self.main.ledger().check_identity(topic, id, cluster).map_err(|why| {
            Error::halt(format!(
                "topic {topic}: {why}; its offsets do not go on from those of table {table}. If that is meant, `calve \
                 ledger reset {table}` reads the new log from its start"
            ))
        })
    }

    /// Whether everything up to the ends at start is with us or with other daemons' commits.
    async fn is_caught_up(&mut self) -> Result<bool> {
        let Some(ends) = &self.ends else { return Ok(false) };
        if self.owned.values().any(|progress| progress.unrecorded) {
            return Ok(false);
        }
        let ledger = self.main.ledger();
        Ok(ends.iter().all(|(partition, log)| match self.owned.get(partition) {
            Some(progress) => progress.read >= log.end,
            None => match ledger.next(&self.topic.name, *partition) {
                Some(next) => next >= log.end,
                None => log.low == log.end && self.topic.start == Start::Earliest,
            },
        }))
    }

    /// Looks at the table now and then: other writers' snapshots, other daemons' ledger entries, a rollback, which a topic
    /// without new records would otherwise not meet.
    async fn tend(&mut self) -> Result<()> {
        let patience = self.patience.clone();
        patiently!(patience, self.main.tend())?;
        let ledger = self.main.ledger();
        let moved = |(partition, progress): (&i32, &Progress)| {
            ledger.next(&self.topic.name, *partition) != progress.in_ledger()
        };
        if self.owned.iter().any(moved) {
            tracing::warn!(topic = %self.topic.name, table = %self.feed.table, "the ledger moved: the table was rolled back, or others commit in our place; dropping what is staged and reading from the ledger");
            self.metrics.batches_discarded.inc_by(u64::from(!self.pending().is_empty()));
            return self.rewind().await;
        }
        self.main.set_needed(self.context.refinements.watermarks(&self.topic.table).await);
        self.adapt().await
    }
}
