//! Where a topic began that does not start at its log's beginning: a table property beside the ledger, set by the commit
//! that first accounts for a partition.
//!
//! Nothing is decided by it. It lets [`crate::verify`] look for records before a table's first row, where otherwise
//! nothing would say whether they are missing or were never wanted.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::batch::OffsetRange;

pub const KEY: &str = "calve.began";

/// By topic and partition number the first offset that the table accounts for; −1 where that is not known, or is the
/// log's beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began(BTreeMap<String, Vec<i64>>);

impl Began {
    /// What cannot be read is not known.
    pub fn of(metadata: &TableMetadata) -> Began {
        let json = metadata.properties().get(KEY);
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    pub fn offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let offset = *self.0.get(topic)?.get(usize::try_from(partition).ok()?)?;
        (offset >= 0).then_some(offset)
    }

    /// Takes note of where partitions begin that the ledger has nothing of yet.
    pub fn begin(&mut self, ledger: &Ledger, topic: &str, ranges: &BTreeMap<i32, OffsetRange>) {
        for (partition, range) in ranges {
            if ledger.next(topic, *partition).is_none() {
                self.set(topic, *partition, range.from);
            }
        }
    }

    /// As [`Ledger::reset`]: who is not named begins anew; in another log, so does who is.
    pub fn reset(&mut self, topic: &str, offsets: &BTreeMap<i32, i64>, recreated: bool) {
        let Some(known) = self.0.remove(topic) else { return };
        let known: BTreeMap<i32, i64> = (0..).zip(known).collect();
        for (partition, offset) in offsets {
            let began = if recreated { Some(offset) } else { known.get(partition) };
            self.set(topic, *partition, began.copied().unwrap_or(-1));
        }
    }

    fn set(&mut self, topic: &str, partition: i32, offset: i64) {
        let Ok(index) = usize::try_from(partition) else { return };
        let offsets = self.0.entry(topic.to_owned()).or_default();
        if offsets.len() <= index {
            offsets.resize(index + 1, -1);
        }
        offsets[index] = offset;
    }

    /// The property to set, if this differs from what the table has.
    pub fn changed(&self, metadata: &TableMetadata) -> HashMap<String, String> {
        match *self == Began::of(metadata) {
            true => HashMap::new(),
            false => {
                let json = serde_json::to_string(self).expect("strings and numbers can always be said in JSON");
                HashMap::from([(KEY.to_owned(), json)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(i32, i64, i64)]) -> BTreeMap<i32, OffsetRange> {
        list.iter().map(|(partition, from, to)| (*partition, OffsetRange { from: *from, to: *to })).collect()
    }

    #[test]
    fn a_partition_begins_once() {
        let (mut began, mut ledger) = (Began::default(), Ledger::default());
        for batch in [ranges(&[(0, 5, 10), (2, 70, 70)]), ranges(&[(0, 10, 12), (1, 3, 4)])] {
            began.begin(&ledger, "orders", &batch);
            ledger.account("orders", None, None, &batch, 0, 0);
        }
        assert_eq!(serde_json::to_string(&began).unwrap(), r#"{"orders":[5,3,70]}"#);
        assert_eq!(
            (began.offset("orders", 2), began.offset("orders", 9), began.offset("x", 0)),
            (Some(70), None, None)
        );

        let mut same_log = began.clone();
        same_log.reset("orders", &BTreeMap::from([(0, 100)]), false);
        assert_eq!((same_log.offset("orders", 0), same_log.offset("orders", 2)), (Some(5), None));
        began.reset("orders", &BTreeMap::from([(0, 100)]), true);
        assert_eq!((began.offset("orders", 0), began.offset("orders", 2)), (Some(100), None));
    }
}
