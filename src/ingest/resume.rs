//! Where a partition starts: what the table's ledger says, checked against what the log says of itself.
//!
//! The ledger is the truth; group offsets are never read. When the log contradicts it (another topic under the same
//! name, records gone before they were read), the topic halts: only a person may decide to go on.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::source::Watermarks;

/// Who a log is, beyond its name. Absent where the broker does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogIdentity {
    pub cluster_id: Option<String>,
    /// KIP-516.
    pub topic_id: Option<String>,
}

/// Names for messages.
#[derive(Clone, Debug)]
pub struct Feed {
    pub topic: String,
    pub table: String,
}

/// A partition's ledger against its log: nothing before `next` is missing, nothing beyond the end was read.
pub fn check_partition(feed: &Feed, partition: i32, next: i64, log: Watermarks) -> Result<()> {
    let Feed { topic, table } = feed;
    if next < log.low {
        return Err(Error::halt(format!(
            "topic {topic} partition {partition}: {gone} offsets are gone: table {table} has everything below {next}, \
             the log starts at {low} (retention or DeleteRecords was faster). To go on without them: `calve ledger \
             reset {table}`",
            gone = log.low - next,
            low = log.low,
        )));
    }
    if next > log.end {
        return Err(Error::halt(format!(
            "topic {topic} partition {partition}: the log ends at {end}, but table {table} has everything below {next}: \
             the topic was recreated or truncated. If that is meant, `calve ledger reset {table}` reads the log from \
             its start",
            end = log.end,
        )));
    }
    Ok(())
}

/// Checks all `partitions` and gives the offset that each starts at: the ledger's, or `initial` where it has none.
pub fn start_offsets(
    feed: &Feed,
    partitions: &[i32],
    ledger_next: impl Fn(i32) -> Option<i64>,
    log: &BTreeMap<i32, Watermarks>,
    initial: &BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>> {
    let mut start = BTreeMap::new();
    for partition in partitions {
        let Some(watermarks) = log.get(partition) else {
            return Err(Error::retry(format!(
                "topic {} partition {partition}: the broker gives no offsets for it; has it no leader?",
                feed.topic
            )));
        };
        let next = match ledger_next(*partition) {
            Some(next) => {
                check_partition(feed, *partition, next, *watermarks)?;
                next
            }
            None => initial.get(partition).copied().unwrap_or(watermarks.low),
        };
        start.insert(*partition, next);
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Feed {
        Feed { topic: "orders".into(), table: "bronze.orders".into() }
    }

    fn check(next: Option<i64>, low: i64, end: i64, expected: Result<i64, &str>) {
        let log = BTreeMap::from([(0, Watermarks { low, end })]);
        let initial = BTreeMap::from([(0, 40)]);
        match (start_offsets(&feed(), &[0], |_| next, &log, &initial), expected) {
            (Ok(start), Ok(offset)) => assert_eq!(start[&0], offset),
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{error}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn the_ledger_is_the_truth_unless_the_log_contradicts_it() {
        check(None, 0, 100, Ok(40));
        check(Some(0), 0, 100, Ok(0));
        check(Some(100), 0, 100, Ok(100));
        check(Some(7), 10, 100, Err("3 offsets are gone"));
        check(Some(101), 0, 100, Err("the topic was recreated or truncated"));
    }
}
