//! From staged files to snapshots: the quarantine table's commit, then the main table's; or both as one, where the
//! catalog can.
//!
//! Quarantine comes first, so that whatever the main table accounts for is never missing there. Killed between the
//! two, the quarantine table is ahead; the restart leaves out what it holds already (see [`super::quarantined`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use rand::Rng;
use uuid::Uuid;

use super::patience::patiently;
use super::worker::Staged;
use super::{CROWD, CROWDED_INTERVAL_MIN, Ingest, REREAD_MAX, REREAD_MIN, open, resolve};
use crate::batch::{OffsetRange, StagedFiles};
use crate::commit::{Append, Outcome};
use crate::config::Start;
use crate::error::{Error, Result};
use crate::schema::evolve::WRITTEN_SCHEMA;
use crate::source::{self, Stall};
use crate::telemetry::TopicState;
use crate::write;

/// What came of a batch's rejects.
enum Rejected {
    /// Its rows are still to be committed.
    Alone,
    /// So are its rows, in this snapshot.
    WithRows(i64),
    /// Somebody else was faster; everything must be dropped.
    Moved,
}

type Ranges = BTreeMap<i32, OffsetRange>;

impl Ingest {
    /// Commits everything that was read so far. On return it is committed, or, if somebody else was faster or a file
    /// could not be written, dropped and being read again.
    pub(super) async fn flush(&mut self, reason: &str) -> Result<()> {
        let ranges = self.pending();
        if ranges.is_empty() {
            return Ok(());
        }
        // However long this takes, nobody reads that there is nothing to do.
        self.tell_lag();
        let started = Instant::now();
        // Asked while the files are finished: what was staged before may be of another log under the same name.
        let (staged, seen) = tokio::join!(self.collect(), self.context.admin.topic_id(&self.topic.name));
        if let (Some(known), Ok(Some(seen))) = (&self.log.topic_id, seen)
            && *known != seen
        {
            let error = source::topic_recreated(&self.topic.name, known, &seen);
            if let Ok(staged) = staged {
                self.discard(staged).await;
            }
            return Err(error);
        }
        let staged = match staged {
            Ok(staged) => staged,
            Err(error) if error.is_retry() => {
                tracing::warn!(topic = %self.topic.name, "{error}; dropping what is staged and reading it again");
                self.context.board.set(&self.topic.name, TopicState::Retrying, Some(error.to_string()));
                let doubled = REREAD_MIN.saturating_mul(1 << self.failures.min(8)).min(REREAD_MAX);
                let wait = doubled.mul_f64(rand::rng().random_range(0.5..=1.0));
                self.failures += 1;
                let stalled = self.patience.stall.as_ref().map(Stall::hold);
                tokio::time::sleep(wait).await;
                drop(stalled);
                return self.rewind().await;
            }
            Err(error) => return Err(error),
        };
        fail::fail_point!("ingest::staged", |_| Err(Error::halt("failpoint ingest::staged")));
        let mut summary = self.topic.snapshot_properties.clone();
        if self.opened.change.is_none() {
            let written = self.opened.table.metadata().current_schema_id();
            summary.insert(WRITTEN_SCHEMA.to_owned(), written.to_string());
        }
        let append = Append {
            commit_id: self.commit_id,
            spec_id: self.opened.table.metadata().default_partition_spec_id(),
            rows: staged.row_count,
            files: staged.rows.files,
            topic: self.topic.name.clone(),
            topic_id: self.log.topic_id.clone(),
            cluster_id: self.log.cluster_id.clone(),
            ranges,
            rejects: staged.reject_count + self.found_quarantined,
            schema: self.opened.change.clone(),
            written: Some(self.opened.mapping.iceberg.clone()),
            late: self.topic.start != Start::Earliest,
            summary,
        };
        self.commit_id = Uuid::now_v7();
        if staged.reject_count > 0 {
            match self.commit_rejects(&append, staged.rejects, staged.reject_count, &staged.rejected).await? {
                Rejected::Alone => fail::fail_point!("ingest::between_commits"),
                Rejected::WithRows(snapshot_id) => {
                    fail::fail_point!("ingest::committed");
                    self.committed(&append, snapshot_id, started, reason);
                    return self.adapt().await;
                }
                Rejected::Moved => {
                    self.metrics.batches_discarded.inc();
                    self.main.discard(append.commit_id, &append.files).await;
                    return self.rewind().await;
                }
            }
        }
        self.approach().await?;
        let patience = self.patience.clone();
        let conflicts = self.context.metrics.table(&self.feed.table).commit_conflicts;
        let met = conflicts.get();
        let outcome = patiently!(patience, self.main.commit(&append))?;
        if conflicts.get() > met {
            self.crowd = CROWD;
        }
        match outcome {
            Outcome::Committed { snapshot_id } => {
                fail::fail_point!("ingest::committed");
                self.committed(&append, snapshot_id, started, reason);
                self.adapt().await
            }
            Outcome::Moved { why } => {
                tracing::warn!(topic = %self.topic.name, table = %self.feed.table, "{why}; dropping what is staged and reading from the ledger");
                self.metrics.batches_discarded.inc();
                self.main.discard(append.commit_id, &append.files).await;
                self.rewind().await
            }
        }
    }

    /// Where others commit to the table too, it is looked at again right before: a conflict would cost more.
    async fn approach(&mut self) -> Result<()> {
        if self.crowd == 0 {
            return Ok(());
        }
        let seen = self.main.table().metadata_location().map(str::to_owned);
        let patience = self.patience.clone();
        patiently!(patience, self.main.reload())?;
        let moved = self.main.table().metadata_location() != seen.as_deref();
        self.crowd = if moved { CROWD } else { self.crowd - 1 };
        Ok(())
    }

    /// The ranges that a commit now would cover.
    pub(super) fn pending(&self) -> Ranges {
        self.owned.iter().filter_map(|(partition, progress)| Some((*partition, progress.pending()?))).collect()
    }

    /// Finishes all workers' files. If one fails, nothing stays staged.
    async fn collect(&self) -> Result<Staged> {
        let results = join_all(self.workers.iter().flatten().map(|worker| worker.finish())).await;
        let mut staged = Staged::default();
        let mut failure = None;
        for result in results {
            match result {
                Ok(part) => staged.merge(part),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(staged),
            Some(error) => {
                self.discard(staged).await;
                Err(error)
            }
        }
    }

    async fn discard(&self, staged: Staged) {
        write::discard(&self.opened.table, staged.rows).await;
        write::discard(&self.opened.table, staged.rejects).await;
    }

    /// Commits a batch's rejects, and with them, where the catalog can, its rows.
    async fn commit_rejects(
        &mut self,
        rows: &Append,
        files: StagedFiles,
        count: u64,
        partitions: &BTreeSet<i32>,
    ) -> Result<Rejected> {
        let ranges = &rows.ranges;
        let patience = self.patience.clone();
        let topic = self.topic.name.clone();
        // Rejects of a batch that the main table already has from someone else must not come into the quarantine
        // table; its own ledger would not notice if that someone had none to commit.
        patiently!(patience, self.main.reload())?;
        let ledger = self.main.ledger();
        let stands = |(partition, range): (&i32, &OffsetRange)| {
            ledger.next(&topic, *partition).is_none_or(|next| next == range.from)
        };
        if !ranges.iter().all(stands) {
            write::discard(&self.rejects.table().await?, files).await;
            return Ok(Rejected::Moved);
        }
        if self.quarantine.is_none() {
            self.open_quarantine().await?;
            let owned: Vec<i32> = self.owned.keys().copied().collect();
            self.consult_quarantine(&owned).await?;
        }
        let Some(quarantine) = &mut self.quarantine else {
            return Err(Error::halt("the quarantine table was opened above"));
        };
        let ahead = ranges.iter().filter(|(partition, _)| partitions.contains(partition)).map(|(partition, range)| {
            let next = self.owned.get(partition).and_then(|progress| progress.quarantine_next).unwrap_or(range.from);
            (*partition, OffsetRange { from: next, to: range.to.max(next) })
        });
        let append = Append {
            commit_id: Uuid::now_v7(),
            files: files.files,
            spec_id: self.rejects.table().await?.metadata().default_partition_spec_id(),
            topic: topic.clone(),
            topic_id: self.log.topic_id.clone(),
            cluster_id: self.log.cluster_id.clone(),
            ranges: ahead.collect(),
            rows: count,
            rejects: 0,
            schema: None,
            written: Some(self.rejects.table().await?.metadata().current_schema().clone()),
            late: false,
            summary: self.topic.snapshot_properties.clone(),
        };
        if self.crowd > 0 && self.context.catalog.commits_together() {
            // Others commit there, too: what was seen last would be a conflict.
            patiently!(patience, quarantine.reload())?;
        }
        let together = patiently!(patience, quarantine.commit_with(&append, &mut self.main, rows))?;
        if together.is_none() && self.context.catalog.commits_together() {
            self.crowd = CROWD;
        }
        let outcome = match together {
            Some([snapshot_id, _]) => Outcome::Committed { snapshot_id },
            None => patiently!(patience, quarantine.commit(&append))?,
        };
        match outcome {
            Outcome::Committed { snapshot_id } => {
                for (partition, range) in &append.ranges {
                    if let Some(progress) = self.owned.get_mut(partition) {
                        progress.quarantine_next = Some(range.to);
                    }
                }
                self.rejects.renew(quarantine.table().clone()).await;
                tracing::info!(topic = %topic, table = %self.rejects.ident, snapshot_id, rejects = append.rows, "rejects committed");
                Ok(together.map_or(Rejected::Alone, |[_, snapshot_id]| Rejected::WithRows(snapshot_id)))
            }
            Outcome::Moved { why } => {
                tracing::warn!(topic = %topic, table = %self.rejects.ident, "{why}");
                quarantine.discard(append.commit_id, &append.files).await;
                self.rejects.renew(quarantine.table().clone()).await;
                Ok(Rejected::Moved)
            }
        }
    }

    fn committed(&mut self, append: &Append, snapshot_id: i64, started: Instant, reason: &str) {
        for (partition, range) in &append.ranges {
            if let Some(progress) = self.owned.get_mut(partition) {
                progress.commit(range.to);
            }
        }
        self.found_quarantined = 0;
        self.pending_since = None;
        self.quiet_since = None;
        self.interval_share = match self.crowd {
            0 => 1.0,
            _ => rand::rng().random_range(CROWDED_INTERVAL_MIN..1.0),
        };
        if std::mem::take(&mut self.failures) > 0 {
            self.context.board.set(&self.topic.name, TopicState::Running, None);
        }
        let offsets = append.ranges.iter().map(|(partition, range)| (*partition, range.to)).collect();
        self.context.source.commit_group_offsets(&self.topic.name, &offsets);
        self.context.board.update(&self.topic.name, |status| {
            status.last_commit_ms = Some(chrono::Utc::now().timestamp_millis());
            status.last_snapshot_id = Some(snapshot_id);
            status.rows += append.rows;
            status.rejects += append.rejects;
        });
        self.tell_lag();
        tracing::info!(
            topic = %self.topic.name,
            table = %self.feed.table,
            snapshot_id,
            rows = append.rows,
            rejects = append.rejects,
            files = append.files.len(),
            milliseconds = started.elapsed().as_micros() as f64 / 1e3,
            reason,
            "committed"
        );
        self.context.refinements.on_commit(&self.topic.table);
    }

    /// Drops everything that is not committed and reads all owned partitions again from the ledger.
    pub(super) async fn rewind(&mut self) -> Result<()> {
        self.abort().await;
        let owned: Vec<i32> = self.owned.keys().copied().collect();
        if owned.is_empty() {
            return Ok(());
        }
        let patience = self.patience.clone();
        let next = patiently!(patience, self.main.starts(&self.topic.name, &owned))?;
        let next = |partition: i32| next.get(&partition).copied().flatten();
        // Rolled back to before their first row: they begin as if there had never been one.
        let emptied =
            self.owned.iter().filter(|(partition, progress)| progress.in_ledger && next(**partition).is_none());
        let emptied: Vec<i32> = emptied.map(|(partition, _)| *partition).collect();
        let mut anew = BTreeMap::new();
        if !emptied.is_empty() {
            let log = patiently!(patience, self.context.admin.watermarks(&self.topic.name, self.topic.isolation))?;
            anew = self.beginnings(&emptied, &log).await?;
        }
        for partition in &owned {
            let Some(progress) = self.owned.get_mut(partition) else { continue };
            let known = next(*partition);
            let offset = known.or(anew.get(partition).copied()).unwrap_or(progress.committed);
            let unrecorded = known.is_none() && self.topic.start != Start::Earliest;
            *progress = super::Progress { in_ledger: known.is_some(), unrecorded, ..super::Progress::at(offset) };
            self.seek(*partition, offset);
        }
        self.consult_quarantine(&owned).await?;
        self.adapt().await
    }

    /// Drops what is staged; what is committed stays.
    pub(super) async fn abort(&mut self) {
        join_all(self.workers.iter().flatten().map(|worker| worker.abort())).await;
        self.found_quarantined = 0;
        self.pending_since = None;
        self.quiet_since = None;
        self.commit_id = Uuid::now_v7();
    }

    /// Opens the table again for writing if somebody, ourselves included, changed its schema, spec or properties.
    pub(super) async fn adapt(&mut self) -> Result<()> {
        if self.opened.change.is_none() && self.opened.fits(self.main.table()) {
            return Ok(());
        }
        if self.pending_since.is_some() {
            // Open files are for the table as it was; they are committed first, or found not to fit.
            return Ok(());
        }
        let resolved = resolve(&self.topic).map_err(|error| {
            Error::halt(format!("topic {}: its schema cannot be read", self.topic.name)).caused_by(error)
        })?;
        let patience = self.patience.clone();
        let opened = patiently!(patience, open(&self.topic, &resolved, &self.context.catalog))?;
        self.opened = Arc::new(opened);
        self.workers.iter_mut().for_each(|worker| *worker = None);
        Ok(())
    }
}
