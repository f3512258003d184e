//! How far the table is behind the log: for people and monitors, never for decisions.

use std::collections::BTreeMap;

use super::{Ingest, LAG_INTERVAL};
use crate::config::Isolation;
use crate::source::{Admin, Watermarks};
use crate::telemetry::metrics::Topic as TopicLabel;
use crate::telemetry::{Board, Metrics, TopicState};

/// Keeps up the lag of topics whose loops cannot: halted, or waiting for what is down. The log goes on growing.
pub async fn watch_stuck(topics: Vec<(String, Isolation)>, admin: Admin, board: Board, metrics: Metrics) {
    loop {
        tokio::time::sleep(LAG_INTERVAL).await;
        for (topic, isolation) in &topics {
            let Some(status) = board.status().topics.remove(topic) else { continue };
            let stuck = matches!(status.state, TopicState::Halted | TopicState::Retrying);
            if !stuck || status.accounted.is_empty() {
                continue;
            }
            let Ok(log) = admin.watermarks(topic, *isolation).await else { continue };
            let lag = lag_of(&log, |partition| status.accounted.get(&partition).copied());
            metrics.lag_records.get_or_create(&TopicLabel { topic: topic.clone() }).set(lag);
            board.update(topic, |status| {
                status.lag_records = Some(lag);
                if lag > 0 {
                    // It had everything when it got stuck: what came since is younger than that.
                    status.oldest_ms.get_or_insert(status.since_ms);
                }
            });
        }
    }
}

fn lag_of(log: &BTreeMap<i32, Watermarks>, accounted: impl Fn(i32) -> Option<i64>) -> i64 {
    log.iter().map(|(partition, log)| (log.end - accounted(*partition).unwrap_or(log.low)).max(0)).sum()
}

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
    pub(super) fn tell_lag(&mut self) {
        if self.log_seen.is_empty() {
            return;
        }
        // What was read is in the log, even if that has to be read again.
        for (partition, progress) in &self.owned {
            if let Some(log) = self.log_seen.get_mut(partition) {
                log.end = log.end.max(progress.read);
            }
        }
        let ends = |partition: &i32| self.log_seen.get(partition).map_or(0, |log| log.end);
        let accounted = |partition: &i32| match self.owned.get(partition) {
            Some(progress) => progress.committed,
            None => self.ledger_seen.get(partition).copied().unwrap_or(0),
        };
        let lag = lag_of(&self.log_seen, |partition| Some(accounted(&partition)));
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
            status.accounted = self.log_seen.keys().map(|partition| (*partition, accounted(partition))).collect();
        });
    }
}
