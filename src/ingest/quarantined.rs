//! What the quarantine table holds ahead of the main table: after a crash between the two commits.

use std::collections::HashSet;

use iceberg::table::Table;

use super::Ingest;
use super::patience::patiently;
use crate::commit::offsets::scan;
use crate::error::Result;

impl Ingest {
    /// Learns, for these partitions, how far the quarantine table is, and which records at or above the main table's
    /// ledger it has already. Reads the quarantine table only where it is ahead, and only those offsets.
    pub(super) async fn consult_quarantine(&mut self, partitions: &[i32]) -> Result<()> {
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
