//! The fenced commit: one committer a table, owned by the loop that feeds it.
//!
//! A commit goes onto the very head whose ledger was checked. A conflict (409) means reload and check again; a moved
//! ledger means that someone else accounted for part of the batch, and the batch is thrown away whole. Without a clear
//! answer the commit id is looked for among the ancestors, and if it is not there the same files go out again under the
//! same id: whichever of the two requests comes second finds the head moved.

mod pair;

pub use pair::Missing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceberg::TableIdent;
use iceberg::spec::{DataFile, Operation};
use iceberg::table::Table;
use rand::Rng;
use uuid::Uuid;

use super::ancestry::{self, Reading};
use super::attempt::{self, Prepared, Sent, Work};
use super::change::{Append, Change, Limits, Outcome, Published};
use super::expire;
use super::fence::{self, Fence};
use super::ledger::{KEY, Ledger};
use super::manifests::Manifests;
use super::snapshot::COMMIT_ID;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::telemetry::metrics::TableMetrics;

/// How far a lost commit is looked for below the head.
const ANCESTORS_MAX: usize = 10_000;

/// A foreign head gets the ledger written on top of it after so long, commits or not.
const FOREIGN_HEAD_AGE_MAX: Duration = Duration::from_secs(3600);

/// Files of the last removed snapshots that wait for their deletion; more are left to the orphan sweep.
const REMOVED_MAX: usize = 256;

/// A table with what is known of its head.
#[derive(Debug)]
pub struct Committer {
    catalog: Arc<dyn Catalog>,
    table: Table,
    /// The ledger that holds at `table`'s head; none for a table that no topic feeds.
    reading: Option<Reading>,
    /// What the reader was told to start from or has committed since; see [`Ledger::admits`].
    told: Ledger,
    /// The table that readers were told about; files staged for it do not fit one of the same name made later.
    uuid: Uuid,
    manifests: Manifests,
    needed: BTreeSet<i64>,
    /// Commits of which an answer was lost: their files may be in the table, whatever came after.
    doubtful: BTreeSet<Uuid>,
    foreign_since: Option<Instant>,
    limits: Limits,
    metrics: TableMetrics,
    /// A person decides about the ledger: that none can be proved is no reason to stop.
    unproved: bool,
    /// Commits of rejects that are known to be there, which the ledger need not name any more.
    settled: BTreeSet<Uuid>,
    sweep: Option<tokio::task::JoinHandle<()>>,
    removed: Vec<iceberg::spec::SnapshotRef>,
}

enum Driven {
    Committed(i64),
    Stopped(String),
}

impl Committer {
    /// Opens a table that a topic feeds. Halts where its ledger cannot be proved.
    pub async fn open(catalog: Arc<dyn Catalog>, ident: &TableIdent) -> Result<Committer> {
        let table = load(&*catalog, ident).await?;
        let reading = ancestry::read(&table, catalog.trust_mirror()).await?;
        Ok(Committer::new(catalog, table, Some(reading)))
    }

    /// The same; none where there is no such table.
    pub async fn open_if_there(catalog: Arc<dyn Catalog>, ident: &TableIdent) -> Result<Option<Committer>> {
        match catalog.load(ident).await {
            Err(catalog::Error::NotFound(_)) => Ok(None),
            _ => Committer::open(catalog, ident).await.map(Some),
        }
    }

    /// Opens the target of a refinement. If a topic feeds it too, its ledger is carried forward.
    pub async fn open_target(catalog: Arc<dyn Catalog>, ident: &TableIdent) -> Result<Committer> {
        let table = load(&*catalog, ident).await?;
        let reading = match table.metadata().properties().contains_key(KEY) {
            true => Some(ancestry::read(&table, catalog.trust_mirror()).await?),
            false => None,
        };
        Ok(Committer::new(catalog, table, reading))
    }

    pub(super) fn new(catalog: Arc<dyn Catalog>, table: Table, reading: Option<Reading>) -> Committer {
        let told = reading.as_ref().map(|reading| reading.ledger.clone()).unwrap_or_default();
        let mut committer = Committer {
            catalog,
            uuid: table.metadata().uuid(),
            table,
            reading: None,
            told,
            manifests: Manifests::default(),
            needed: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            foreign_since: None,
            limits: Limits::default(),
            metrics: TableMetrics::default(),
            unproved: false,
            settled: BTreeSet::new(),
            sweep: None,
            removed: Vec::new(),
        };
        committer.set_reading(reading);
        committer
    }

    /// The table as last seen.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The ledger at the head as last seen.
    pub fn ledger(&self) -> Ledger {
        self.reading.as_ref().map(|reading| reading.ledger.clone()).unwrap_or_default()
    }

    pub(super) fn allow_unproved(&mut self) {
        self.unproved = true;
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Counts its commits there.
    #[must_use]
    pub fn counted_in(mut self, metrics: TableMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Snapshots that expiry must keep, with what came after them: the watermarks of refinements that read this table.
    pub fn set_needed(&mut self, snapshots: BTreeSet<i64>) {
        self.needed = snapshots;
    }

    /// Loads the table again and says where a reader of these partitions starts; none = nothing is accounted for yet,
    /// the topic's configured start applies.
    pub async fn starts(&mut self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>> {
        self.reload().await?;
        let ledger = self.ledger();
        self.told.tell(&ledger, topic, partitions);
        self.uuid = self.table.metadata().uuid();
        Ok(partitions.iter().map(|partition| (*partition, ledger.next(topic, *partition))).collect())
    }

    /// Loads the table again. What readers were told stays as it was.
    pub async fn reload(&mut self) -> Result<()> {
        let table = load(&*self.catalog, self.table.identifier()).await?;
        if is_same(&table, &self.table) {
            return Ok(());
        }
        let reading = match self.reading.is_some() || table.metadata().properties().contains_key(KEY) {
            true if self.unproved => None,
            true => Some(ancestry::read(&table, self.catalog.trust_mirror()).await?),
            false => None,
        };
        self.table = table;
        self.set_reading(reading);
        Ok(())
    }

    fn set_reading(&mut self, mut reading: Option<Reading>) {
        if let Some(reading) = &mut reading {
            self.settled = reading.ledger.settle(&self.settled);
        }
        match reading.as_ref().is_some_and(|reading| reading.foreign_above > 0) {
            true => drop(self.foreign_since.get_or_insert_with(Instant::now)),
            false => self.foreign_since = None,
        }
        self.reading = reading;
    }

    /// Commits a batch if its ranges are what comes next, as one snapshot with the ledger moved over them.
    ///
    /// A passing error leaves open whether the batch was committed: call again with the same `append`.
    pub async fn commit(&mut self, append: &Append) -> Result<Outcome> {
        let uuid = self.uuid;
        let started = Instant::now();
        let fence =
            |table: &Table, reading: Option<&Reading>, told: &Ledger| fence::rows(append, uuid, table, reading, told);
        let driven = self.drive(append.commit_id, fence).await?;
        let partitions: Vec<i32> = append.ranges.keys().copied().collect();
        let ledger = self.ledger();
        Ok(match driven {
            Driven::Committed(snapshot_id) => {
                self.accounted(append, started);
                Outcome::Committed { snapshot_id }
            }
            Driven::Stopped(why) => {
                self.told.tell(&ledger, &append.topic, &partitions);
                Outcome::Moved { why }
            }
        })
    }

    fn accounted(&mut self, append: &Append, started: Instant) {
        self.count(started, &append.files);
        self.told.account(&append.topic, None, None, &append.ranges, 0, 0);
    }

    /// Publishes a refinement's result onto the head that it was computed for, and onto no other.
    pub async fn publish(&mut self, pinned: Option<i64>, change: &Change) -> Result<Published> {
        if self.table.metadata().current_snapshot_id() != pinned {
            // The head may have been pinned after this committer last looked.
            self.reload().await?;
        }
        let started = Instant::now();
        let driven = self
            .drive(change.run_id, |table, reading, _| {
                if table.metadata().current_snapshot_id() != pinned {
                    return Ok(Fence::Stop("the target has another head".to_owned()));
                }
                if let Some(schema) = &change.schema
                    && let Some(why) = fence::schema_moved(table, schema)
                {
                    return Ok(Fence::Stop(why));
                }
                Ok(Fence::Go(Box::new(Work {
                    commit_id: change.run_id,
                    operation: change.operation.clone(),
                    files: &change.files,
                    spec_id: change.spec_id,
                    schema: change.schema.as_ref(),
                    ledger: reading.map(|reading| reading.ledger.clone()),
                    summary: &change.summary,
                    properties: change.properties.clone(),
                })))
            })
            .await?;
        Ok(match driven {
            Driven::Committed(snapshot_id) => {
                self.count(started, &change.files);
                Published::Committed { snapshot_id }
            }
            Driven::Stopped(_) => Published::Conflict { head: self.table.metadata().current_snapshot_id() },
        })
    }

    /// For the loop to call now and then, once a minute say: if other writers' snapshots lie on top of the ledger for
    /// an hour, it is written again, so that their expiry cannot take it away. True if it was.
    pub async fn tend(&mut self) -> Result<bool> {
        self.reload().await?;
        if self.foreign_since.is_none_or(|since| since.elapsed() < FOREIGN_HEAD_AGE_MAX) {
            return Ok(false);
        }
        self.write_ledger().await
    }

    /// Commits the ledger as it is read, without rows. False if the head moved meanwhile.
    pub async fn write_ledger(&mut self) -> Result<bool> {
        let head = self.table.metadata().current_snapshot_id();
        self.commit_ledger(self.ledger(), head, BTreeMap::new(), HashMap::new()).await
    }

    /// Commits `ledger` onto `head` and no other.
    pub(super) async fn commit_ledger(
        &mut self,
        ledger: Ledger,
        head: Option<i64>,
        summary: BTreeMap<String, String>,
        properties: HashMap<String, String>,
    ) -> Result<bool> {
        let commit_id = Uuid::now_v7();
        let driven = self
            .drive(commit_id, |table, _, _| {
                if table.metadata().current_snapshot_id() != head {
                    return Ok(Fence::Stop("the table has another head".to_owned()));
                }
                Ok(Fence::Go(Box::new(Work {
                    commit_id,
                    operation: Operation::Append,
                    files: &[],
                    spec_id: table.metadata().default_partition_spec_id(),
                    schema: None,
                    ledger: Some(ledger.clone()),
                    summary: &summary,
                    properties: properties.clone(),
                })))
            })
            .await?;
        Ok(matches!(driven, Driven::Committed(_)))
    }

    /// Deletes the files of a batch or a run that was not committed, best effort: what is left is swept as an orphan.
    /// Nothing is deleted if an answer about it was lost: the table may have had them, and be rolled back to them.
    pub async fn discard(&self, commit_id: Uuid, files: &[DataFile]) {
        if !self.doubtful.contains(&commit_id) {
            delete(&self.table, files.iter().map(|file| file.file_path().to_owned()).collect()).await;
        }
    }

    /// Waits for deletions that are under way.
    pub async fn close(mut self) {
        self.swept().await;
    }

    pub(super) async fn swept(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            // A sweep that panicked leaves orphans behind, like one that failed.
            let _ = sweep.await;
        }
    }

    async fn drive<'a>(
        &mut self,
        commit_id: Uuid,
        fence: impl Fn(&Table, Option<&Reading>, &Ledger) -> Result<Fence<'a>>,
    ) -> Result<Driven> {
        let name = self.table.identifier().clone();
        let mut stale = self.doubtful.contains(&commit_id);
        let mut pending: Option<Prepared> = None;
        let mut last = String::new();
        let (mut attempts, mut silent) = (0, 0);
        for attempt in 1..=self.limits.attempts_max {
            if silent >= self.limits.silent_max {
                break;
            }
            attempts = attempt;
            if attempt > 1 {
                tokio::time::sleep(self.backoff(attempt)).await;
            }
            if stale {
                match self.reload().await {
                    Ok(()) => (stale, silent) = (false, 0),
                    Err(error) if error.is_retry() => {
                        last = error.to_string();
                        silent += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if let Some(snapshot_id) = self.find(commit_id) {
                    tracing::info!(table = %name, %commit_id, snapshot_id, "the commit whose answer was lost is there");
                    self.doubtful.remove(&commit_id);
                    return Ok(Driven::Committed(snapshot_id));
                }
            }
            let work = match fence(&self.table, self.reading.as_ref(), &self.told)? {
                Fence::Go(work) => work,
                Fence::Stop(why) => {
                    self.abandon(commit_id, pending.take()).await;
                    return Ok(Driven::Stopped(why));
                }
            };
            let prepared = match pending.take() {
                Some(prepared) if is_same(&prepared.base, &self.table) => prepared,
                outdated => {
                    self.abandon(commit_id, outdated).await;
                    match attempt::prepare(&self.table, *work, &mut self.manifests, &self.needed).await {
                        Ok(prepared) => prepared,
                        Err(error) if error.is_retry() => {
                            // The head's files may be gone because the table moved on.
                            last = described(&error);
                            stale = true;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            match attempt::send(&*self.catalog, &prepared).await {
                Sent::Applied(table) => {
                    let snapshot_id = prepared.produced.snapshot.snapshot_id();
                    tracing::debug!(table = %name, %commit_id, snapshot_id, attempt, "committed");
                    self.doubtful.remove(&commit_id);
                    self.applied(*table, prepared).await?;
                    fail::fail_point!("commit::after");
                    return Ok(Driven::Committed(snapshot_id));
                }
                Sent::Conflict(why) => {
                    self.metrics.commit_conflicts.inc();
                    tracing::debug!(table = %name, %commit_id, attempt, why, "conflict, the table is loaded again");
                    last = why;
                    stale = true;
                    pending = Some(prepared);
                }
                Sent::Unknown(why) => {
                    self.metrics.commit_unknowns.inc();
                    tracing::warn!(table = %name, %commit_id, attempt, why, "no clear answer, the table is asked");
                    self.doubtful.insert(commit_id);
                    last = why;
                    stale = true;
                    pending = Some(prepared);
                }
                Sent::Unavailable(why) => {
                    tracing::debug!(table = %name, %commit_id, attempt, why, "the catalog is not available");
                    last = why;
                    silent += 1;
                    pending = Some(prepared);
                }
                Sent::Refused(error) => {
                    self.abandon(commit_id, Some(prepared)).await;
                    return Err(error);
                }
            }
        }
        self.abandon(commit_id, pending).await;
        let message = match silent >= self.limits.silent_max {
            true => format!("table {name}: its catalog does not take commits: {last}; what is staged is kept"),
            false => format!("table {name}: commit {commit_id} came to no end in {attempts} attempts: {last}"),
        };
        Err(Error::retry(message))
    }

    fn count(&self, started: Instant, files: &[DataFile]) {
        self.metrics.commits.inc();
        self.metrics.commit_duration.observe(started.elapsed().as_secs_f64());
        self.metrics.files_written.inc_by(files.len() as u64);
        self.metrics.bytes_written.inc_by(files.iter().map(DataFile::file_size_in_bytes).sum());
    }

    /// Full jitter around a doubling wait, so that racing daemons do not meet again.
    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self.limits.backoff_min.saturating_mul(1 << attempt.min(12)).min(self.limits.backoff_max);
        doubled.mul_f64(rand::rng().random_range(0.25..1.0))
    }

    /// The snapshot of an earlier attempt, if one of the head's ancestors is it.
    fn find(&self, commit_id: Uuid) -> Option<i64> {
        ancestry::ancestor_with(self.table.metadata(), COMMIT_ID, &commit_id.to_string(), ANCESTORS_MAX)
            .map(|snapshot| snapshot.snapshot_id())
    }

    async fn applied(&mut self, table: Table, prepared: Prepared) -> Result<()> {
        let Prepared { produced, removed, ledger, .. } = prepared;
        let snapshot_id = produced.snapshot.snapshot_id();
        let ours = table.metadata().current_snapshot_id() == Some(snapshot_id);
        self.table = table;
        if ours {
            self.manifests.advance(snapshot_id, produced.list, produced.manifest.zip(produced.entries));
            self.set_reading(ledger.map(|ledger| Reading {
                ledger,
                found: ancestry::Found::Snapshot(snapshot_id),
                foreign_above: 0,
            }));
        } else if ledger.is_some() && !self.unproved {
            // The catalog answered with a later state.
            let reading = ancestry::read(&self.table, self.catalog.trust_mirror()).await?;
            self.set_reading(Some(reading));
        }
        self.sweep(removed);
        Ok(())
    }

    /// Deletes in the background what only the removed snapshots reached. One sweep at a time.
    fn sweep(&mut self, removed: Vec<iceberg::spec::SnapshotRef>) {
        self.removed.extend(removed);
        let surplus = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..surplus);
        if self.removed.is_empty() || self.sweep.as_ref().is_some_and(|sweep| !sweep.is_finished()) {
            return;
        }
        let removed = std::mem::take(&mut self.removed);
        let table = self.table.clone();
        self.sweep = Some(tokio::spawn(async move {
            match expire::unreachable(&table, &removed).await {
                Ok(files) => delete(&table, files).await,
                Err(error) => {
                    tracing::debug!(table = %table.identifier(), %error, "expired files are left to the orphan sweep")
                }
            }
        }));
    }

    /// Deletes the manifests of an attempt that surely was not applied.
    async fn abandon(&self, commit_id: Uuid, prepared: Option<Prepared>) {
        if let Some(prepared) = prepared
            && !self.doubtful.contains(&commit_id)
        {
            delete(&self.table, prepared.produced.written).await;
        }
    }
}

async fn delete(table: &Table, files: Vec<String>) {
    for file in files {
        if let Err(error) = table.file_io().delete(&file).await {
            tracing::debug!(table = %table.identifier(), file, %error, "a file is left to the orphan sweep");
        }
    }
}

pub(super) async fn load(catalog: &dyn Catalog, ident: &TableIdent) -> Result<Table> {
    catalog.load(ident).await.map_err(|error| not_loaded(catalog, ident, error))
}

pub(super) fn not_loaded(catalog: &dyn Catalog, ident: &TableIdent, error: catalog::Error) -> Error {
    let name = catalog.name();
    match error {
        catalog::Error::NotFound(_) => Error::halt(format!(
            "table {ident} is not in catalog {name} any more: it was dropped or renamed; bring it back, or start calve \
             again, which makes it anew and fills it from the beginning"
        )),
        catalog::Error::Refused(why) => Error::halt(format!(
            "table {ident}: catalog {name} does not let it be loaded: {why}; mend the credentials in \
                 catalogs/{name}.toml, or what they may do, and start calve again"
        )),
        error => Error::retry(format!("table {ident}: loading it from catalog {name} failed: {error}")),
    }
}

/// Whether two loads saw the very same state.
fn is_same(one: &Table, other: &Table) -> bool {
    one.metadata_location().is_some() && one.metadata_location() == other.metadata_location()
}

fn described(error: &Error) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
