//! Two tables changed as one: a batch's rejects and its rows, where the catalog has such a thing.
//!
//! Not every catalog that says so does it: there are servers that change one table after the other, and drop the change
//! of one that somebody else changed meanwhile. So the rows' ledger names the rejects that went with them
//! ([`Counterpart`]). Whoever sends both sees what came of it; should it die before, the next one to read on from that
//! ledger finds the rejects there, or commits them itself.

use std::collections::BTreeMap;
use std::time::Instant;

use iceberg::spec::{DataFile, Manifest, ManifestStatus};
use iceberg::table::Table;
use uuid::Uuid;

use super::Committer;
use crate::batch::OffsetRange;
use crate::catalog;
use crate::commit::attempt::{self, Prepared};
use crate::commit::change::{Append, Outcome};
use crate::commit::fence::{self, Fence};
use crate::commit::ledger::Counterpart;
use crate::commit::snapshot::COMMIT_ID;
use crate::error::{Error, Result};

/// What a quarantine table lacks of the rejects that went with a commit of rows.
#[derive(Debug)]
pub enum Missing {
    Nothing,
    /// These files.
    All {
        spec_id: i32,
        files: Vec<DataFile>,
    },
    /// The rows of these files but for those of the offsets that it accounts for by partition.
    Some {
        files: Vec<DataFile>,
        held: BTreeMap<i32, OffsetRange>,
    },
}

impl Committer {
    /// A commit of the batch onto the table as it is known, not sent; none if that is not what comes next, or cannot be
    /// known.
    async fn ready(&mut self, append: &Append, counterpart: Option<Counterpart>) -> Result<Option<Prepared>> {
        if self.doubtful.contains(&append.commit_id) {
            return Ok(None);
        }
        let mut work = match fence::rows(append, self.uuid, &self.table, self.reading.as_ref(), &self.told)? {
            Fence::Go(work) => work,
            Fence::Stop(_) => return Ok(None),
        };
        if let (Some(ledger), Some(counterpart)) = (&mut work.ledger, counterpart) {
            ledger.accompany(&append.topic, counterpart);
        }
        match attempt::prepare(&self.table, *work, &mut self.manifests, &self.needed).await {
            Ok(prepared) => Ok(Some(prepared)),
            Err(error) if error.is_retry() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Commits a batch's rejects and its rows as one change of their catalog: the ids of both snapshots, `self`'s first.
    ///
    /// Only what mostly happens is dealt with. Where something comes in between (a conflict, a lost answer, a batch that
    /// is not what comes next) the answer is none, and [`commit`](Self::commit) of the one and then of the other, under
    /// the same ids, finds out what came of it and does the rest.
    pub async fn commit_with(
        &mut self,
        rejects: &Append,
        other: &mut Committer,
        rows: &Append,
    ) -> Result<Option<[i64; 2]>> {
        if !self.catalog.commits_together() {
            return Ok(None);
        }
        let started = Instant::now();
        if !rejects.files.is_empty() && rejects.ranges.values().any(|range| range.from == range.to) {
            // Rejects below what the table accounts for: its ledger would not tell whether they are there.
            return Ok(None);
        }
        let Some(first) = self.ready(rejects, None).await? else { return Ok(None) };
        let manifest = first.produced.manifest.clone().filter(|_| !self.catalog.is_atomic());
        let counterpart = manifest.map(|manifest| Counterpart {
            table: self.table.identifier().clone(),
            uuid: self.uuid,
            commit: rejects.commit_id,
            manifest,
            ranges: rejects.ranges.iter().map(|(partition, range)| (*partition, (range.from, range.to))).collect(),
        });
        let second = match other.ready(rows, counterpart).await {
            Ok(Some(second)) => second,
            missing => {
                self.abandon(rejects.commit_id, Some(first)).await;
                return missing.map(|_| None);
            }
        };
        let sent = attempt::send_together(&*self.catalog, [&first, &second]).await;
        // Taken at its word only if both snapshots are there.
        let sent = sent.and_then(|tables| match has(&tables[0], &first) && has(&tables[1], &second) {
            true => Ok(tables),
            false => Err(catalog::Error::Unknown("a snapshot is not there, although all went well".to_owned())),
        });
        match sent {
            Ok([of_first, of_second]) => {
                let ids = [&first, &second].map(|prepared| prepared.produced.snapshot.snapshot_id());
                let seen = self.applied(of_first, first).await.and(other.applied(of_second, second).await);
                if let Err(error) = seen {
                    tracing::debug!(table = %other.table.identifier(), %error, "committed as one, but what came of it cannot be read");
                    self.doubtful.insert(rejects.commit_id);
                    other.doubtful.insert(rows.commit_id);
                    return Ok(None);
                }
                self.accounted(rejects, started);
                other.accounted(rows, started);
                other.settle(rejects.commit_id);
                fail::fail_point!("commit::after");
                Ok(Some(ids))
            }
            Err(error) => {
                tracing::debug!(table = %other.table.identifier(), %error, "not committed as one, but one after the other");
                if matches!(error, catalog::Error::Unknown(_)) {
                    for (committer, append) in [(&mut *self, rejects), (&mut *other, rows)] {
                        committer.doubtful.insert(append.commit_id);
                        committer.metrics.commit_unknowns.inc();
                    }
                }
                self.abandon(rejects.commit_id, Some(first)).await;
                other.abandon(rows.commit_id, Some(second)).await;
                Ok(None)
            }
        }
    }

    /// The ledger need not name this commit of rejects any more: it is there.
    pub fn settle(&mut self, commit: Uuid) {
        self.settled.insert(commit);
        let reading = self.reading.take();
        self.set_reading(reading);
    }

    /// What this quarantine table lacks of the rejects that went with a commit of rows.
    pub async fn missing(&mut self, topic: &str, counterpart: &Counterpart) -> Result<Missing> {
        let partitions: Vec<i32> = counterpart.ranges.keys().copied().collect();
        let next = self.starts(topic, &partitions).await?;
        if self.uuid != counterpart.uuid {
            tracing::warn!(table = %self.table.identifier(), commit_id = %counterpart.commit, "the quarantine table is not the one any more that the last rejects were committed to");
            return Ok(Missing::Nothing);
        }
        let next = |partition: i32| next.get(&partition).copied().flatten();
        let open = |(partition, (_, to)): (&i32, &(i64, i64))| next(*partition).is_none_or(|next| next < *to);
        if !counterpart.ranges.iter().any(open) || self.was_committed(counterpart) {
            return Ok(Missing::Nothing);
        }
        let (spec_id, files) = self.files_of(counterpart).await?;
        // Who had a part of these partitions in between has committed its rejects, too.
        let held: BTreeMap<i32, OffsetRange> = counterpart
            .ranges
            .iter()
            .filter_map(|(partition, (from, _))| Some((*partition, OffsetRange { from: *from, to: next(*partition)? })))
            .filter(|(_, held)| held.from < held.to)
            .collect();
        Ok(if held.is_empty() { Missing::All { spec_id, files } } else { Missing::Some { files, held } })
    }

    /// Commits missing rejects, in these files, if nothing has come in between. They have the id that they were sent with:
    /// whoever sent them, and lives, finds them.
    pub async fn make_up_for(
        &mut self,
        topic: &str,
        counterpart: &Counterpart,
        spec_id: i32,
        files: Vec<DataFile>,
    ) -> Result<Outcome> {
        let told = &self.told;
        let open = |(partition, (_, to)): (&i32, &(i64, i64))| {
            let from = told.next(topic, *partition).unwrap_or(*to);
            (from < *to || told.next(topic, *partition).is_none())
                .then_some((*partition, OffsetRange { from, to: *to }))
        };
        let append = Append {
            commit_id: counterpart.commit,
            rows: files.iter().map(DataFile::record_count).sum(),
            files,
            spec_id,
            topic: topic.to_owned(),
            topic_id: None,
            cluster_id: None,
            ranges: counterpart.ranges.iter().filter_map(open).collect(),
            rejects: 0,
            schema: None,
            written: None,
            late: false,
            summary: BTreeMap::new(),
        };
        self.commit(&append).await
    }

    /// Whether a snapshot of this commit is or was on main; that it was rolled back since is somebody's decision.
    fn was_committed(&self, counterpart: &Counterpart) -> bool {
        let id = counterpart.commit.to_string();
        let mut snapshots = self.table.metadata().snapshots();
        snapshots.any(|snapshot| snapshot.summary().additional_properties.get(COMMIT_ID) == Some(&id))
    }

    /// The files that a manifest added, with their partition spec.
    async fn files_of(&self, counterpart: &Counterpart) -> Result<(i32, Vec<DataFile>)> {
        let (name, path) = (self.table.identifier(), &counterpart.manifest);
        let passing = |error: iceberg::Error| {
            Error::retry(format!("table {name}: reading the manifest {path} failed"))
                .caused_by(anyhow::anyhow!("{error}"))
        };
        if !self.table.file_io().exists(path).await.map_err(passing)? {
            return Err(Error::halt(format!(
                "table {name}: the catalog changed only one of two tables, and the manifest {path}, which names the \
                 rejects that are missing, is gone; `calve ledger accept` of the table with the rows goes on without \
                 them"
            )));
        }
        let bytes = self.table.file_io().new_input(path).map_err(passing)?.read().await.map_err(passing)?;
        let manifest = Manifest::parse_avro(&bytes).map_err(passing)?;
        let added = manifest.entries().iter().filter(|entry| entry.status() == ManifestStatus::Added);
        let files = added.map(|entry| entry.data_file().clone()).collect();
        Ok((manifest.metadata().partition_spec().spec_id(), files))
    }
}

fn has(table: &Table, prepared: &Prepared) -> bool {
    table.metadata().snapshot_by_id(prepared.produced.snapshot.snapshot_id()).is_some()
}
