//! Two tables changed as one: a batch's rejects and its rows, where the catalog has such a thing.

use std::time::Instant;

use iceberg::table::Table;

use super::Committer;
use crate::catalog;
use crate::commit::attempt::{self, Prepared};
use crate::commit::change::Append;
use crate::commit::fence::{self, Fence};
use crate::error::Result;

impl Committer {
    /// A commit of the batch onto the table as it is known, not sent; none if that is not what comes next, or cannot be
    /// known.
    async fn ready(&mut self, append: &Append) -> Result<Option<Prepared>> {
        if self.doubtful.contains(&append.commit_id) {
            return Ok(None);
        }
        let Fence::Go(work) = fence::rows(append, self.uuid, &self.table, self.reading.as_ref(), &self.told)? else {
            return Ok(None);
        };
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
        let Some(first) = self.ready(rejects).await? else { return Ok(None) };
        let second = match other.ready(rows).await {
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
}

fn has(table: &Table, prepared: &Prepared) -> bool {
    table.metadata().snapshot_by_id(prepared.produced.snapshot.snapshot_id()).is_some()
}
