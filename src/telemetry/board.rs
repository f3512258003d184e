//! The daemon's state as it wants to be seen: what `/readyz` and `/status` answer from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::metrics::{Metrics, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicState {
    /// Opening its tables, waiting for its partitions.
    Starting,
    /// Reading and committing.
    Running,
    /// Waiting to try again: broker, catalog or store are not reachable.
    Retrying,
    /// Stopped by a failure; a person must act.
    Halted,
    /// Done, or shut down.
    Stopped,
}

impl TopicState {
    const ALL: [TopicState; 5] =
        [TopicState::Starting, TopicState::Running, TopicState::Retrying, TopicState::Halted, TopicState::Stopped];

    pub fn as_str(self) -> &'static str {
        match self {
            TopicState::Starting => "starting",
            TopicState::Running => "running",
            TopicState::Retrying => "retrying",
            TopicState::Halted => "halted",
            TopicState::Stopped => "stopped",
        }
    }
}

/// One topic on the board. Times are milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicStatus {
    pub state: TopicState,
    /// When it came into this state.
    pub since_ms: i64,
    /// Why it halted or waits.
    pub reason: Option<String>,
    pub table: String,
    pub lag_records: Option<i64>,
    /// Age of the oldest record that the table does not account for.
    pub lag_seconds: Option<f64>,
    /// That record's timestamp; none if there is no such record, or none was seen yet.
    #[serde(default)]
    pub oldest_ms: Option<i64>,
    pub last_commit_ms: Option<i64>,
    pub last_snapshot_id: Option<i64>,
    /// Since this daemon started.
    pub rows: u64,
    pub rejects: u64,
    /// By partition, the first offset that the table did not account for when last told.
    #[serde(skip)]
    pub accounted: BTreeMap<i32, i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub started_ms: i64,
    pub ready: bool,
    pub stopping: bool,
    pub topics: BTreeMap<String, TopicStatus>,
}

/// The board itself; clones show the same.
#[derive(Clone, Debug)]
pub struct Board {
    metrics: Metrics,
    status: Arc<Mutex<Status>>,
}

impl Board {
    pub fn new(metrics: Metrics) -> Self {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            started_ms: now_ms(),
            ready: false,
            stopping: false,
            topics: BTreeMap::new(),
        };
        Board { metrics, status: Arc::new(Mutex::new(status)) }
    }

    /// Puts a topic on the board, as starting. All of them come before the server starts: it is ready when none of
    /// the board's topics is starting any more.
    pub fn add(&self, topic: &str, table: &str) {
        let status = TopicStatus {
            state: TopicState::Starting,
            since_ms: now_ms(),
            reason: None,
            table: table.to_string(),
            lag_records: None,
            lag_seconds: None,
            oldest_ms: None,
            last_commit_ms: None,
            last_snapshot_id: None,
            rows: 0,
            rejects: 0,
            accounted: BTreeMap::new(),
        };
        self.locked().topics.insert(topic.to_string(), status);
        self.count(topic, TopicState::Starting);
    }

    /// The topic's state from now on, with the reason where it halts or waits.
    pub fn set(&self, topic: &str, state: TopicState, reason: Option<String>) {
        self.update(topic, |status| {
            if status.state != state {
                status.since_ms = now_ms();
            }
            status.state = state;
            status.reason = reason;
        });
        self.count(topic, state);
    }

    /// Changes what the board says of a topic; nothing when it is not on it.
    pub fn update(&self, topic: &str, change: impl FnOnce(&mut TopicStatus)) {
        let mut status = self.locked();
        if let Some(topic) = status.topics.get_mut(topic) {
            change(topic);
        }
    }

    /// The daemon is shutting down: not ready any more.
    pub fn stopping(&self) {
        self.locked().stopping = true;
    }

    pub fn status(&self) -> Status {
        let mut status = self.locked();
        // Once ready, a topic that starts again after a rebalance does not take that back.
        status.ready |= status.topics.values().all(|topic| topic.state != TopicState::Starting);
        let mut status = status.clone();
        // Of a topic that stands still it grows, though nobody tells.
        for topic in status.topics.values_mut() {
            topic.lag_seconds = match (topic.oldest_ms, topic.lag_records) {
                (Some(oldest), _) => Some((now_ms() - oldest).max(0) as f64 / 1000.0),
                (None, Some(0)) => Some(0.0),
                (None, _) => None,
            };
        }
        status
    }

    fn count(&self, topic: &str, current: TopicState) {
        for state in TopicState::ALL {
            let labels = State { topic: topic.to_string(), state: state.as_str() };
            self.metrics.topic_state.get_or_create(&labels).set(i64::from(state == current));
        }
    }

    fn locked(&self) -> MutexGuard<'_, Status> {
        // Each change is whole by itself: a panic elsewhere does not make the board wrong.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
