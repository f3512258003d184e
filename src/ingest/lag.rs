//! How far the table is behind the log: for people and monitors, never for decisions.

use super::Ingest;
use crate::source::Watermarks;

impl Ingest {
    /// Asks the broker where the log ends, and tells the lag. What cannot be learned is no failure of the loop.
    pub(super) async fn report_lag(&mut self) {
        let Ok(log) = self.context.admin.watermarks(&self.topic.name, self.topic.isolation).await else { return };
        if self.ends.is_some() && log.keys().any(|partition| !self.owned.contains_key(partition)) {
            // Other daemons' progress shows in the table only.
            if let Err(error) = self.main.reload().await {
                tracing::debug!(topic = %self.topic.name, "{error}");
            }
        }
        let ledger = self.main.ledger();
        let next = |partition: i32, log: &Watermarks| ledger.next(&self.topic.name, partition).unwrap_or(log.low);
        self.ledger_seen =
            log.iter().map(|(partition, log)| (*partition, next(*partition, log).max(log.low))).collect();
        self.log_seen = log;
        self.tell_lag();
    }

    /// Tells the lag by what is known without asking: where we are, and what log and ledger said when last asked.
    pub(super) fn tell_lag(&self) {
        if self.log_seen.is_empty() {
            return;
        }
        let ends = |partition: &i32| self.log_seen.get(partition).map_or(0, |log| log.end);
        let accounted = |partition: &i32| match self.owned.get(partition) {
            Some(progress) => progress.committed,
            None => self.ledger_seen.get(partition).copied().unwrap_or(0),
        };
        let lag: i64 = self.log_seen.iter().map(|(partition, log)| (log.end - accounted(partition)).max(0)).sum();
        let unread: i64 = self.owned.iter().map(|(partition, progress)| (ends(partition) - progress.read).max(0)).sum();
        let oldest = self.owned.iter().filter_map(|(partition, progress)| match progress.oldest_ms {
            // What comes next was not seen yet; it is about as old as what came last.
            None if ends(partition) > progress.read => progress.newest_ms,
            oldest => oldest,
        });
        let oldest_ms = oldest.min();
        self.metrics.lag_records.set(lag);
        self.metrics.unread_records.set(unread);
        self.context.board.update(&self.topic.name, |status| {
            status.lag_records = Some(lag);
            status.oldest_ms = oldest_ms;
        });
    }
}
