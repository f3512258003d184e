//! A source as a daemon starts one, and a loop as the ingest loop is, which checks that what it gets joins up.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use calve::batch::RawBatch;
use calve::config::{Isolation, Kafka};
use calve::error::Error;
use calve::source::{Budget, Event, Events, Source, TopicSubscription};
use calve::telemetry::metrics::KafkaMetrics;
use tokio::time::timeout;

use super::broker::Record;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn committed(name: &str) -> TopicSubscription {
    TopicSubscription { name: name.to_owned(), isolation: Isolation::ReadCommitted }
}

pub fn start(kafka: &Kafka, topics: &[&str]) -> (Source, HashMap<String, Events>, Budget) {
    let budget = Budget::new(64 << 20);
    let subscriptions = topics.iter().map(|name| committed(name)).collect();
    let (source, streams) = Source::start(kafka, subscriptions, &budget, &KafkaMetrics::default()).unwrap();
    (source, streams, budget)
}

/// A loop as the ingest loop is, which keeps what it got in memory: its ledger.
#[derive(Debug)]
pub struct Loop {
    pub events: Events,
    /// By partition: the next offset, as the ledger counts it.
    pub ledger: BTreeMap<i32, i64>,
    /// By partition: offset → value.
    pub records: BTreeMap<i32, BTreeMap<i64, Option<Vec<u8>>>>,
    pub ends: BTreeMap<i32, i64>,
    pub owned: Vec<i32>,
    pub lost: bool,
}

/// What [`Loop::step`] met that tests look at.
#[derive(Debug)]
pub enum Met {
    Assigned,
    Revoked,
    Batch(RawBatch),
    End,
    Positioned(i32, i64),
    Failed(Error),
    Closed,
}

impl Loop {
    pub fn new(events: Events) -> Self {
        Self::at(events, BTreeMap::new())
    }

    pub fn at(events: Events, ledger: BTreeMap<i32, i64>) -> Self {
        let (records, ends) = (BTreeMap::new(), BTreeMap::new());
        Loop { events, ledger, records, ends, owned: Vec::new(), lost: false }
    }

    pub async fn step(&mut self) -> Met {
        let event = timeout(PATIENCE, self.events.recv()).await.unwrap_or_else(|_| {
            panic!("the source says nothing; owned {:?}, ledger {:?}, ends {:?}", self.owned, self.ledger, self.ends)
        });
        match event {
            None => Met::Closed,
            Some(Event::Assigned { partitions, start }) => {
                let offsets: BTreeMap<i32, i64> =
                    partitions.iter().map(|of| (*of, self.ledger.get(of).copied().unwrap_or(0))).collect();
                self.ledger.extend(offsets.clone());
                self.owned.extend(partitions);
                start.send(offsets).unwrap();
                Met::Assigned
            }
            Some(Event::Revoked { partitions, lost, done }) => {
                self.owned.retain(|of| !partitions.contains(of));
                self.ends.retain(|of, _| !partitions.contains(of));
                self.lost |= lost;
                // The wait for it may be over by now: it is bounded.
                let _ = done.send(());
                Met::Revoked
            }
            Some(Event::Batch(batch)) => {
                let partition = batch.partition;
                assert!(self.owned.contains(&partition), "a batch of a partition that is not ours");
                assert_eq!(batch.range.from, self.ledger[&partition], "ranges of partition {partition} join up");
                assert_eq!(batch.range.to, batch.records.last().unwrap().offset + 1);
                self.ledger.insert(partition, batch.range.to);
                let records = self.records.entry(partition).or_default();
                for record in &batch.records {
                    assert!(record.offset >= batch.range.from);
                    let value = record.value.map(|value| batch.bytes(value).to_vec());
                    assert!(records.insert(record.offset, value).is_none(), "offset {} came twice", record.offset);
                }
                Met::Batch(batch)
            }
            Some(Event::End { partition, offset }) => {
                assert!(offset >= self.ledger[&partition]);
                self.ledger.insert(partition, offset);
                self.ends.insert(partition, offset);
                Met::End
            }
            Some(Event::Positioned { partition, offset }) => Met::Positioned(partition, offset),
            Some(Event::Failed(error)) => Met::Failed(error),
        }
    }

    /// Goes on until each of `partitions` has ended at its offset.
    pub async fn until(&mut self, ends: &[(i32, i64)]) {
        while !ends.iter().all(|(of, end)| self.ends.get(of) == Some(end)) {
            match self.step().await {
                Met::Failed(error) if error.is_retry() => {}
                Met::Failed(error) => panic!("{error}"),
                Met::Closed => panic!("the stream ended at {:?}", self.ledger),
                _ => {}
            }
        }
    }

    pub async fn until_failed(&mut self) -> Error {
        loop {
            if let Met::Failed(error) = self.step().await {
                return error;
            }
        }
    }

    /// The values of a partition in offset order, as text.
    pub fn values(&self, partition: i32) -> Vec<(i64, String)> {
        let records = self.records.get(&partition).into_iter().flatten();
        let text = |value: &Option<Vec<u8>>| match value {
            Some(value) => String::from_utf8(value.clone()).unwrap(),
            None => "(tombstone)".to_owned(),
        };
        records.map(|(offset, value)| (*offset, text(value))).collect()
    }
}

pub fn numbered(partition: i32, range: std::ops::Range<usize>) -> Vec<Record> {
    range.map(|number| Record::new(partition, format!("value {number}"))).collect()
}

pub fn expected(range: std::ops::Range<usize>) -> Vec<(i64, String)> {
    range.map(|number| (number as i64, format!("value {number}"))).collect()
}
