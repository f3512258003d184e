//! What the quarantine table holds ahead of the main table, after a crash between the two commits; and what it lacks,
//! after one at a catalog that changed only one of them.

use std::collections::HashSet;

use iceberg::table::Table;

use super::Ingest;
use super::patience::patiently;
use crate::commit::Committer;
use crate::commit::offsets::scan;
use crate::error::Result;

impl Ingest {
    /// Learns, for these partitions, how far the quarantine table is, and which records at or above the main table's
    /// ledger it has already. Reads the quarantine table only where it is ahead, and only those offsets.
    pub(super) async fn consult_quarantine(&mut self, partitions: &[i32]) -> Result<()> {
        self.make_up(partitions).await?;
        let Some(quarantine) = &mut self.quarantine else { return Ok(()) };
        let patience = self.patience.clone();
        let topic = &self.topic.name;
        let next = patiently!(patience, quarantine.starts(topic, partitions))?;
        for partition in partitions {
            let Some(progress) = self.owned.get_mut(partition) else { continue };
            progress.quarantine_next = next.get(partition).copied().flatten();
            let Some(ahead) = progress.quarantine_next.filter(|next| *next > progress.committed) else { continue };
            let table = quarantine.table();
            let (from, to) = (progress.committed, ahead);
            let held: HashSet<i64> = patiently!(patience, offsets_between(table, topic, *partition, from, to))?;
            tracing::info!(topic = %topic, partition, from, to, records = held.len(), "the quarantine table is ahead of the main table; its records are left out");
            progress.quarantined = held;
        }
        Ok(())
    }

    /// Sees to it that the rejects are there which the main table's ledger says went with its last rows.
    async fn make_up(&mut self, partitions: &[i32]) -> Result<()> {
        let patience = self.patience.clone();
        for counterpart in self.main.ledger().counterparts(&self.topic.name, partitions) {
            if self.quarantine.is_none() && patiently!(patience, self.rejects.exists())? {
                self.open_quarantine().await?;
            }
            match &mut self.quarantine {
                Some(quarantine) => patiently!(patience, quarantine.make_up_for(&self.topic.name, &counterpart))?,
                None => {
                    tracing::warn!(topic = %self.topic.name, table = %self.rejects.ident, "the quarantine table, which the last rejects were committed to, was dropped")
                }
            }
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

/// The offsets in `[from, to)` of one partition that the table has rows of.
async fn offsets_between(table: &Table, topic: &str, partition: i32, from: i64, to: i64) -> Result<HashSet<i64>> {
    let mut held = HashSet::new();
    scan(table, |origin| {
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
