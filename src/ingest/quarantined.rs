//! What the quarantine table holds ahead of the main table, after a crash between the two commits; and what it lacks,
//! after one at a catalog that changed only one of them.

use std::collections::HashSet;

use iceberg::table::Table;

use super::Ingest;
use super::make_up;
use super::patience::patiently;
use crate::commit::Committer;
use crate::commit::offsets::scan;
use crate::error::Result;

impl Ingest {
    /// Learns, for these partitions, how far the quarantine table is, and which records at or above the main table's
    /// ledger it has already. Reads the quarantine table only where it is ahead, and only those offsets.
    pub(super) async fn consult_quarantine(&mut self, partitions: &[i32]) -> Result<()> {
        let patience = self.patience.clone();
        // Another daemon may have made it.
        if self.quarantine.is_none() && patiently!(patience, self.rejects.exists())? {
            self.open_quarantine().await?;
        }
        self.make_up(partitions).await?;
        let Some(quarantine) = &mut self.quarantine else { return Ok(()) };
        let topic = &self.topic.name;
        let next = patiently!(patience, quarantine.starts(topic, partitions))?;
        for partition in partitions {
            let Some(progress) = self.owned.get_mut(partition) else { continue };
            progress.quarantine_next = next.get(partition).copied().flatten();
            let Some(ahead) = progress.quarantine_next.filter(|next| *next > progress.committed) else { continue };
            let table = quarantine.table();
            let (from, to) = (progress.committed, ahead);
            // What an earlier life of the topic has at these offsets is no record of this one.
            let ledger = quarantine.ledger();
            let former = ledger.topic(topic).and_then(|entry| entry.former.last()).map_or(0, |former| former.sequence);
            let held: HashSet<i64> = patiently!(patience, offsets_between(table, former, topic, *partition, from, to))?;
            tracing::info!(topic = %topic, partition, from, to, records = held.len(), "the quarantine table is ahead of the main table; its records are left out");
            progress.quarantined = held;
        }
        Ok(())
    }

    /// Sees to it that the rejects are there which the main table's ledger says went with rows of these partitions.
    pub(super) async fn make_up(&mut self, partitions: &[i32]) -> Result<()> {
        let patience = self.patience.clone();
        let topic = self.topic.name.clone();
        for counterpart in self.main.ledger().counterparts(&topic, partitions) {
            let ident = &counterpart.table;
            match &mut self.quarantine {
                Some(quarantine) if quarantine.table().identifier() == ident => {
                    patiently!(patience, make_up(quarantine, &topic, &counterpart))?;
                }
                // The topic's quarantine table was another one then.
                _ => {
                    let catalog = &self.context.catalog;
                    match patiently!(patience, Committer::open_if_there(catalog.clone(), ident))? {
                        Some(mut quarantine) => patiently!(patience, make_up(&mut quarantine, &topic, &counterpart))?,
                        None => {
                            tracing::warn!(topic = %topic, table = %ident, "the quarantine table, which the last rejects were committed to, is not there any more")
                        }
                    }
                }
            }
            self.main.settle(counterpart.commit);
        }
        Ok(())
    }

    pub(super) async fn open_quarantine(&mut self) -> Result<()> {
        let (patience, catalog) = (self.patience.clone(), self.context.catalog.clone());
        let opened = patiently!(patience, Committer::open(catalog.clone(), &self.rejects.ident))?;
        self.quarantine = Some(opened.counted_in(self.context.metrics.table(&self.topic.quarantine.to_string())));
        Ok(())
    }
}

/// The offsets in `[from, to)` of one partition that files behind the sequence number `after` have rows of.
async fn offsets_between(
    table: &Table,
    after: i64,
    topic: &str,
    partition: i32,
    from: i64,
    to: i64,
) -> Result<HashSet<i64>> {
    let mut held = HashSet::new();
    scan(table, after, |origin| {
        if let Some(origin) = origin
            && origin.topic == topic
            && origin.partition == partition
            && (from..to).contains(&origin.offset)
        {
            held.insert(origin.offset);
        }
    })
    .await?;
    Ok(held)
}
