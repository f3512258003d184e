//! How far one partition has come: what the table accounts for, and what is on its way there.

use std::collections::HashSet;

use crate::batch::{OffsetRange, RawBatch, Times};

/// One owned partition.
#[derive(Debug)]
pub struct Progress {
    /// The ledger's next offset when we last read or wrote it; where it has none yet, the first one to be read.
    pub committed: i64,
    /// Whether the ledger has one.
    pub in_ledger: bool,
    /// Everything in `[committed, read)` is with the workers.
    pub read: i64,
    /// The quarantine table's next offset, if it has one; it may be ahead of `committed` after a crash between the two
    /// commits.
    pub quarantine_next: Option<i64>,
    /// Offsets at or above `committed` that the quarantine table already holds; they are not rows again.
    pub quarantined: HashSet<i64>,
    /// The partition's initial position must be written to the ledger even if no record ever came: with
    /// `start = "latest"` a restart would otherwise begin somewhere else.
    pub unrecorded: bool,
    /// The timestamp of the oldest record that is with the workers, in milliseconds.
    pub oldest_ms: Option<i64>,
    /// The timestamp of the last record that came, committed or not.
    pub newest_ms: Option<i64>,
}

/// What to do with a batch that the source delivers.
#[derive(Debug, PartialEq, Eq)]
pub enum Join {
    /// It continues where we are (records that we had already are cut off).
    Take,
    /// All of it is behind us: a left-over of before a seek.
    Behind,
    /// It starts past where we are: something in between is missing, read from `read` again.
    Gap,
}

impl Progress {
    pub fn at(next: i64) -> Self {
        Progress {
            committed: next,
            in_ledger: false,
            read: next,
            quarantine_next: None,
            quarantined: HashSet::new(),
            unrecorded: false,
            oldest_ms: None,
            newest_ms: None,
        }
    }

    /// The range that the next commit of this partition covers, if it moves anything.
    pub fn pending(&self) -> Option<OffsetRange> {
        (self.read > self.committed || self.unrecorded).then_some(OffsetRange { from: self.committed, to: self.read })
    }

    /// Fits a delivered batch to where we are; see [`Join`].
    pub fn join(&self, batch: &mut RawBatch) -> Join {
        if batch.range.to <= self.read {
            return Join::Behind;
        }
        if batch.range.from > self.read {
            return Join::Gap;
        }
        if batch.range.from < self.read {
            batch.records.retain(|record| record.offset >= self.read);
            batch.times = Times::of(&batch.records);
            batch.range.from = self.read;
        }
        Join::Take
    }

    /// The ledger's next offset, as far as we know.
    pub fn in_ledger(&self) -> Option<i64> {
        self.in_ledger.then_some(self.committed)
    }

    /// Everything below `next` is in the table now.
    pub fn commit(&mut self, next: i64) {
        self.committed = next;
        self.in_ledger = true;
        self.unrecorded = false;
        self.oldest_ms = None;
        self.quarantined.retain(|offset| *offset >= next);
    }

    /// Takes note of how old a batch's records are; one without a timestamp is as old as the others.
    pub fn note_times(&mut self, batch: &RawBatch) {
        let Some(times) = batch.times else { return };
        self.oldest_ms = Some(self.oldest_ms.map_or(times.oldest_ms, |oldest| oldest.min(times.oldest_ms)));
        self.newest_ms = Some(times.newest_ms);
    }

    /// Takes out the records that the quarantine table holds already; returns how many they were.
    pub fn drop_quarantined(&self, batch: &mut RawBatch) -> u64 {
        if self.quarantined.is_empty() {
            return 0;
        }
        let before = batch.records.len();
        batch.records.retain(|record| !self.quarantined.contains(&record.offset));
        if batch.records.len() < before {
            batch.times = Times::of(&batch.records);
        }
        (before - batch.records.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{RawRecord, Span, TimestampType};

    fn batch(from: i64, offsets: &[i64], to: i64) -> RawBatch {
        let records = offsets
            .iter()
            .map(|offset| RawRecord {
                offset: *offset,
                timestamp_ms: offset * 7 % 10,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: None,
                headers: Span { start: 0, end: 0 },
            })
            .collect::<Vec<_>>();
        let times = Times::of(&records);
        RawBatch {
            topic: "t".into(),
            partition: 0,
            range: OffsetRange { from, to },
            records,
            headers: vec![],
            arena: vec![0; RawBatch::PADDING],
            times,
            permit: Default::default(),
        }
    }

    fn check(read: i64, mut given: RawBatch, expected: Join, left: &[i64]) {
        let progress = Progress::at(read);
        assert_eq!(progress.join(&mut given), expected);
        if expected == Join::Take {
            assert_eq!(given.range.from, read);
            assert_eq!(given.records.iter().map(|record| record.offset).collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn ranges_always_join_up() {
        check(5, batch(5, &[5, 6], 7), Join::Take, &[5, 6]);
        check(5, batch(5, &[9], 10), Join::Take, &[9]); // a compaction gap lies inside
        check(5, batch(3, &[3, 4, 6], 7), Join::Take, &[6]); // delivered twice around a seek
        check(5, batch(1, &[1, 4], 5), Join::Behind, &[]);
        check(5, batch(6, &[6], 7), Join::Gap, &[]);
    }

    #[test]
    fn only_records_that_are_taken_tell_how_old_they_are() {
        let times = |oldest_ms, newest_ms| Some(Times { oldest_ms, newest_ms });
        let mut progress = Progress::at(5);
        let mut given = batch(3, &[3, 4, 6, 7], 8);
        assert_eq!(given.times, times(1, 9));
        assert_eq!(progress.join(&mut given), Join::Take);
        assert_eq!(given.times, times(2, 9));
        progress.quarantined.insert(7);
        progress.drop_quarantined(&mut given);
        assert_eq!(given.times, times(2, 2));
        progress.note_times(&given);
        assert_eq!((progress.oldest_ms, progress.newest_ms), (Some(2), Some(2)));
        progress.note_times(&batch(8, &[8, 9], 10));
        assert_eq!((progress.oldest_ms, progress.newest_ms), (Some(2), Some(3)));
        progress.note_times(&batch(10, &[], 11));
        assert_eq!((progress.oldest_ms, progress.newest_ms), (Some(2), Some(3)));
    }

    #[test]
    fn what_the_quarantine_table_holds_is_not_a_row() {
        let mut progress = Progress::at(5);
        progress.quarantined.insert(6);
        let mut given = batch(5, &[5, 6, 7], 8);
        assert_eq!(progress.drop_quarantined(&mut given), 1);
        assert_eq!(given.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [5, 7]);
    }
}
