//! The ledger: for each topic and partition the first offset that a table does not yet account for, and how many rows
//! and rejects the topic has given so far. Compact, because every snapshot carries it: one array by partition number.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::TableIdent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::OffsetRange;
use crate::error::{Error, Result};

/// The summary key under which a snapshot carries the ledger, and the table property that mirrors it.
pub const KEY: &str = "calve.ledger";

/// How many foreign deletions are remembered one by one; older ones are only in the sum.
const DELETIONS_MAX: usize = 16;

/// What a table accounts for. The JSON form is `{"v":1,"topics":{NAME:{…}},"foreign":{…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Version of this form; a reader refuses one that it does not know.
    v: u32,
    #[serde(default)]
    pub topics: BTreeMap<String, TopicLedger>,
    #[serde(default, skip_serializing_if = "Foreign::is_empty")]
    pub foreign: Foreign,
}

/// What a table accounts for of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLedger {
    /// Kafka's topic id, where the broker tells it: a recreated topic has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// By partition number: the first offset not yet accounted for; −1 = nothing yet.
    pub next: Vec<i64>,
    /// Rows that this topic has given the table, since the beginning.
    pub rows: u64,
    /// Records of this topic that were rejected instead, since the beginning.
    pub rejects: u64,
    /// Earlier lives of a topic that was recreated, in order; their rows are still in the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// Commits of rejects that went with commits of this table, until the next commit of the same partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counterparts: Vec<Counterpart>,
}

/// A batch's rejects, whose commit was sent together with the commit of its rows. Not every catalog that says that it
/// changes two tables as one does so: whoever reads on from the rows' ledger looks whether the rejects are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterpart {
    /// The quarantine table, and its uuid.
    pub table: TableIdent,
    pub uuid: Uuid,
    pub commit: Uuid,
    /// Names the rejects' files.
    pub manifest: String,
    /// By partition: from which offset and up to which the rejects account for it.
    pub ranges: BTreeMap<i32, (i64, i64)>,
}

/// A topic's earlier life under the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    pub next: Vec<i64>,
    /// The table's last sequence number: files with a greater one hold nothing of it.
    #[serde(default)]
    pub sequence: i64,
}

/// Rows that other writers' snapshots added and deleted, read from their summaries before these could expire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    pub added: u64,
    pub deleted: u64,
    /// The last deletions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletions: Vec<Deletion>,
}

/// A snapshot that took rows out. Engines that copy on write put most of them back in the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub snapshot: i64,
    pub rows: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub added: u64,
    /// The engine, as far as the snapshot names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The ledger as a table property, with the snapshot that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub snapshot: i64,
    pub ledger: Ledger,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { v: 1, topics: BTreeMap::new(), foreign: Foreign::default() }
    }
}

impl Foreign {
    fn is_empty(&self) -> bool {
        *self == Foreign::default()
    }

    pub fn count(&mut self, snapshot: i64, added: u64, deleted: u64, by: Option<String>) {
        self.added += added;
        self.deleted += deleted;
        if deleted > 0 {
            self.deletions.push(Deletion { snapshot, rows: deleted, added, by });
            let surplus = self.deletions.len().saturating_sub(DELETIONS_MAX);
            self.deletions.drain(..surplus);
        }
    }
}

impl TopicLedger {
    /// The first offset of `partition` not yet accounted for.
    pub fn next(&self, partition: i32) -> Option<i64> {
        let next = *self.next.get(usize::try_from(partition).ok()?)?;
        (next >= 0).then_some(next)
    }

    /// All partitions that have an entry.
    pub fn offsets(&self) -> BTreeMap<i32, i64> {
        (0i32..).zip(&self.next).filter(|(_, next)| **next >= 0).map(|(partition, next)| (partition, *next)).collect()
    }

    fn set(&mut self, partition: i32, offset: i64) {
        let Ok(index) = usize::try_from(partition) else { return };
        if self.next.len() <= index {
            self.next.resize(index + 1, -1);
        }
        self.next[index] = offset;
    }
}

impl Ledger {
    pub fn from_json(json: &str) -> Result<Ledger> {
        let ledger: Ledger = serde_json::from_str(json)
            .map_err(|error| Error::halt(format!("the ledger in {KEY} is not readable: {error}")))?;
        ledger.checked()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a ledger holds strings and numbers only, which JSON can always say")
    }

    fn checked(self) -> Result<Ledger> {
        if self.v != 1 {
            return Err(Error::halt(format!(
                "the ledger in {KEY} has version {}, this calve knows version 1: run the newer calve",
                self.v
            )));
        }
        Ok(self)
    }

    pub fn topic(&self, topic: &str) -> Option<&TopicLedger> {
        self.topics.get(topic)
    }

    /// The first offset of the partition that is not yet accounted for, if the table has anything of it.
    pub fn next(&self, topic: &str, partition: i32) -> Option<i64> {
        self.topic(topic)?.next(partition)
    }

    /// All partitions of a topic that have an entry: where a reader starts.
    pub fn offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.topic(topic).map(TopicLedger::offsets).unwrap_or_default()
    }

    /// Whether `ranges` are what comes next. `told` is the ledger that their reader started from: where the table has
    /// no entry yet, the reader must have found none either, or it went on from a state that was rolled back since.
    pub fn admits(&self, told: &Ledger, topic: &str, ranges: &BTreeMap<i32, OffsetRange>) -> bool {
        ranges.iter().all(|(partition, range)| match self.next(topic, *partition) {
            Some(next) => next == range.from,
            None => told.next(topic, *partition).is_none(),
        })
    }

    /// Whether a topic's identity is the one that the ledger was written for; ids that either side does not know
    /// are no contradiction.
    pub fn check_identity(&self, topic: &str, id: Option<&str>, cluster: Option<&str>) -> Result<(), String> {
        let Some(entry) = self.topic(topic) else { return Ok(()) };
        let differ = |known: &Option<String>, seen: Option<&str>| match (known.as_deref(), seen) {
            (Some(known), Some(seen)) if known != seen => Some((known.to_owned(), seen.to_owned())),
            _ => None,
        };
        if let Some((known, seen)) = differ(&entry.cluster, cluster) {
            return Err(format!("the ledger is of Kafka cluster {known}, the topic is now on cluster {seen}"));
        }
        if let Some((known, seen)) = differ(&entry.id, id) {
            return Err(format!("the topic was recreated: the ledger is of topic id {known}, it now has {seen}"));
        }
        Ok(())
    }

    /// Moves the ledger over `ranges`.
    pub fn account(
        &mut self,
        topic: &str,
        id: Option<&str>,
        cluster: Option<&str>,
        ranges: &BTreeMap<i32, OffsetRange>,
        rows: u64,
        rejects: u64,
    ) {
        let entry = self.topics.entry(topic.to_owned()).or_default();
        if let Some(id) = id {
            entry.id = Some(id.to_owned());
        }
        if let Some(cluster) = cluster {
            entry.cluster = Some(cluster.to_owned());
        }
        for (partition, range) in ranges {
            entry.set(*partition, range.to);
        }
        // Whoever has these partitions has looked whether it is there.
        entry
            .counterparts
            .retain(|counterpart| !counterpart.ranges.keys().any(|partition| ranges.contains_key(partition)));
        entry.rows += rows;
        entry.rejects += rejects;
    }

    /// Rejects go with the commit that this ledger is of.
    pub fn accompany(&mut self, topic: &str, counterpart: Counterpart) {
        self.topics.entry(topic.to_owned()).or_default().counterparts.push(counterpart);
    }

    /// The rejects that must be there before one of these partitions is read on.
    pub fn counterparts(&self, topic: &str, partitions: &[i32]) -> Vec<Counterpart> {
        let known = self.topic(topic).map_or(&[][..], |entry| &entry.counterparts);
        let concerns = |counterpart: &&Counterpart| partitions.iter().any(|p| counterpart.ranges.contains_key(p));
        known.iter().filter(concerns).cloned().collect()
    }

    /// Leaves out the counterparts of these commits, which are known to be there; the ids that it had.
    pub fn settle(&mut self, commits: &BTreeSet<Uuid>) -> BTreeSet<Uuid> {
        let mut settled = BTreeSet::new();
        for entry in self.topics.values_mut() {
            entry.counterparts.retain(|counterpart| {
                let known = commits.contains(&counterpart.commit);
                settled.extend(known.then_some(counterpart.commit));
                !known
            });
        }
        settled
    }

    /// A person's decision: go on with the rejects that there are.
    pub fn forget_counterparts(&mut self) {
        self.topics.values_mut().for_each(|entry| entry.counterparts.clear());
    }

    /// A person's decision: go on at `offsets`; partitions that it does not name lose their entry, so that the
    /// topic's configured start applies. The topic's identity is forgotten and taken from the next commit. With
    /// `recreated`, what there is, up to the table's sequence number `sequence`, becomes a former life, whose offsets may
    /// come again.
    pub fn reset(&mut self, topic: &str, offsets: &BTreeMap<i32, i64>, recreated: bool, sequence: i64) {
        let entry = self.topics.entry(topic.to_owned()).or_default();
        let id = entry.id.take();
        let cluster = entry.cluster.take();
        let next = std::mem::take(&mut entry.next);
        entry.counterparts.clear();
        if recreated && next.iter().any(|next| *next > 0) {
            entry.former.push(Former { id, cluster, next, sequence });
        }
        for (partition, offset) in offsets {
            entry.set(*partition, *offset);
        }
    }

    /// Takes over what `other` says of these partitions, nothing included.
    pub fn tell(&mut self, other: &Ledger, topic: &str, partitions: &[i32]) {
        let entry = self.topics.entry(topic.to_owned()).or_default();
        for partition in partitions {
            entry.set(*partition, other.next(topic, *partition).unwrap_or(-1));
        }
    }
}

impl Mirror {
    pub fn from_json(json: &str) -> Result<Mirror> {
        let mirror: Mirror = serde_json::from_str(json)
            .map_err(|error| Error::halt(format!("the table property {KEY} is not readable: {error}")))?;
        Ok(Mirror { snapshot: mirror.snapshot, ledger: mirror.ledger.checked()? })
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a mirror holds strings and numbers only, which JSON can always say")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(i32, i64, i64)]) -> BTreeMap<i32, OffsetRange> {
        list.iter().map(|(partition, from, to)| (*partition, OffsetRange { from: *from, to: *to })).collect()
    }

    #[test]
    fn a_commit_moves_the_ledger_and_counts() {
        let mut ledger = Ledger::default();
        ledger.account("orders", Some("id"), None, &ranges(&[(0, 5, 10), (2, 0, 3)]), 7, 1);
        ledger.account("orders", None, Some("c"), &ranges(&[(0, 10, 12)]), 2, 0);
        assert_eq!(
            ledger.to_json(),
            r#"{"v":1,"topics":{"orders":{"id":"id","cluster":"c","next":[12,-1,3],"rows":9,"rejects":1}}}"#
        );
        assert_eq!(ledger.next("orders", 1), None);
        assert_eq!(ledger.next("orders", 9), None);
        assert_eq!(ledger.offsets("orders"), BTreeMap::from([(0, 12), (2, 3)]));
        assert_eq!(Ledger::from_json(&ledger.to_json()).unwrap(), ledger);
    }

    #[test]
    fn a_counterpart_stays_until_its_partitions_move() {
        let mut ledger = Ledger::default();
        ledger.account("orders", None, None, &ranges(&[(0, 0, 5), (1, 0, 5), (2, 0, 9)]), 10, 2);
        let uuid = Uuid::from_u128(7);
        let table = TableIdent::from_strs(["bronze", "q"]).unwrap();
        let offsets = BTreeMap::from([(0, (0, 5)), (1, (2, 5))]);
        let counterpart = Counterpart { table, uuid, commit: uuid, manifest: "m.avro".into(), ranges: offsets };
        ledger.accompany("orders", counterpart.clone());
        let json = ledger.to_json();
        let id = "00000000-0000-0000-0000-000000000007";
        let table = r#""table":{"namespace":["bronze"],"name":"q"}"#;
        let kept = format!(
            r#""counterparts":[{{{table},"uuid":"{id}","commit":"{id}","manifest":"m.avro","ranges":{{"0":[0,5],"1":[2,5]}}}}]"#
        );
        assert!(json.contains(&kept), "{json}");
        assert_eq!(Ledger::from_json(&json).unwrap(), ledger);
        ledger.account("orders", None, None, &ranges(&[(2, 9, 12)]), 3, 0);
        assert_eq!(ledger.counterparts("orders", &[1, 2]), [counterpart]);
        assert_eq!(ledger.counterparts("orders", &[2]), []);
        let mut other = ledger.clone();
        other.account("orders", None, None, &ranges(&[(1, 5, 6)]), 1, 0);
        assert_eq!(other.counterparts("orders", &[0, 1]), []);
        // Or until it is known to be there.
        let known = BTreeSet::from([uuid, Uuid::nil()]);
        assert_eq!((ledger.settle(&known), ledger.settle(&known)), (BTreeSet::from([uuid]), BTreeSet::new()));
        assert_eq!(ledger.counterparts("orders", &[0, 1]), []);
    }

    #[test]
    fn a_thousand_partitions_stay_under_ten_kilobytes() {
        let mut ledger = Ledger::default();
        let all: BTreeMap<i32, OffsetRange> =
            (0..1000).map(|p| (p, OffsetRange { from: 0, to: 10_000_000 + i64::from(p) })).collect();
        ledger.account("orders", Some("bG9uZyBpZA"), Some("cluster"), &all, u64::MAX, 0);
        assert!(ledger.to_json().len() < 10 * 1024, "{}", ledger.to_json().len());
    }

    #[test]
    fn only_what_comes_next_is_admitted() {
        let mut ledger = Ledger::default();
        ledger.account("orders", None, None, &ranges(&[(0, 0, 10)]), 10, 0);
        let none = Ledger::default();
        assert!(ledger.admits(&ledger, "orders", &ranges(&[(0, 10, 20)])));
        assert!(!ledger.admits(&ledger, "orders", &ranges(&[(0, 9, 20)])));
        assert!(!ledger.admits(&ledger, "orders", &ranges(&[(0, 11, 20)])));
        assert!(ledger.admits(&ledger, "orders", &ranges(&[(0, 10, 20), (1, 77, 90)])));
        // The table was rolled back to before this topic: who read on from 10 must not commit.
        assert!(!none.admits(&ledger, "orders", &ranges(&[(0, 10, 20)])));
        assert!(none.admits(&none, "orders", &ranges(&[(0, 10, 20)])));
    }

    #[test]
    fn another_cluster_or_topic_id_is_told() {
        let mut ledger = Ledger::default();
        ledger.account("orders", Some("a"), Some("x"), &ranges(&[(0, 0, 1)]), 1, 0);
        assert!(ledger.check_identity("orders", Some("a"), Some("x")).is_ok());
        assert!(ledger.check_identity("orders", None, None).is_ok());
        assert!(ledger.check_identity("other", Some("z"), None).is_ok());
        assert!(ledger.check_identity("orders", Some("b"), None).unwrap_err().contains("recreated"));
        assert!(ledger.check_identity("orders", Some("a"), Some("y")).unwrap_err().contains("cluster y"));
    }

    #[test]
    fn a_reset_forgets_the_identity_and_keeps_the_counts() {
        let mut ledger = Ledger::default();
        ledger.account("orders", Some("a"), Some("x"), &ranges(&[(0, 0, 5), (1, 0, 5)]), 10, 0);
        ledger.reset("orders", &BTreeMap::from([(1, 2)]), true, 9);
        let entry = ledger.topic("orders").unwrap();
        assert_eq!((entry.id.clone(), entry.next.clone(), entry.rows), (None, vec![-1, 2], 10));
        assert_eq!(
            entry.former,
            [Former { id: Some("a".into()), cluster: Some("x".into()), next: vec![5, 5], sequence: 9 }]
        );
    }

    #[test]
    fn a_later_form_is_refused() {
        assert!(Ledger::from_json(r#"{"v":2,"topics":{}}"#).unwrap_err().message.contains("version 2"));
        assert!(Ledger::from_json("{").unwrap_err().message.contains("not readable"));
    }
}
