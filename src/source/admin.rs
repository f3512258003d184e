//! What the broker knows of its cluster and topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Isolation, Kafka};
use crate::error::{Error, Result};

use super::faults;
use super::native::{Client, NativeError, code};
use super::properties;

/// How long a request may take, connecting included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long brokers may take to hear of a new topic.
const NEWS_SPREAD: Duration = Duration::from_secs(1);
const LOG_START: i64 = -2;
const LOG_END: i64 = -1;

/// Requests outside of any group. Cheap to clone; connects with its first request.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Arc<Client>,
    bootstrap_servers: Arc<str>,
}

/// The ends of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is still there.
    pub low: i64,
    /// One past the last record that can be read: with `read_committed` the last stable offset, else the high
    /// watermark.
    pub end: i64,
}

impl Admin {
    pub fn new(kafka: &Kafka) -> Result<Self> {
        let client = Client::new(&properties::client(kafka), None)
            .map_err(|error| Error::halt(format!("cannot start the Kafka client: {error}")))?;
        Ok(Admin { client: Arc::new(client), bootstrap_servers: Arc::from(kafka.bootstrap_servers.as_str()) })
    }

    /// Runs a request on a thread that may block.
    async fn ask<T: Send + 'static>(&self, request: impl FnOnce(&Client) -> T + Send + 'static) -> Result<T> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || request(&client))
            .await
            .map_err(|error| Error::retry("a Kafka request was cut off").caused_by(error))
    }

    fn failed(&self, what: &str, topic: &str, error: &NativeError) -> Error {
        faults::of_request(what, topic, error, &self.bootstrap_servers)
    }

    /// The cluster's id; `None` where the broker does not say, or no broker answers in time.
    pub async fn cluster_id(&self) -> Result<Option<String>> {
        self.ask(|client| client.cluster_id(REQUEST_TIMEOUT)).await
    }

    /// The topic's id, as Kafka's tools print it; `None` where the broker has no topic ids. An error when there is no
    /// such topic.
    pub async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let name = topic.to_owned();
        let description = self.ask(move |client| client.describe_topic(&name, REQUEST_TIMEOUT)).await?;
        match description {
            Ok(description) => Ok(description.id),
            Err(error) => Err(self.failed("description", topic, &error)),
        }
    }

    /// Fails for good where there is no such topic, instead of waiting for it. Brokers learn of a new topic one after
    /// the other, so a second one may know it.
    pub async fn require(&self, topic: &str) -> Result<()> {
        for last in [false, true] {
            let name = topic.to_owned();
            let description = self.ask(move |client| client.describe_topic(&name, REQUEST_TIMEOUT)).await?;
            match description {
                Ok(_) => return Ok(()),
                Err(error) if !error.is_unknown_topic() => return Err(self.failed("description", topic, &error)),
                Err(_) if last => break,
                Err(_) => tokio::time::sleep(NEWS_SPREAD).await,
            }
        }
        Err(Error::halt(faults::no_such_topic(topic, &self.bootstrap_servers)))
    }

    /// The topic's partitions, ascending.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let name = topic.to_owned();
        let description = self.ask(move |client| client.describe_topic(&name, REQUEST_TIMEOUT)).await?;
        match description {
            Ok(description) => Ok(description.partitions),
            Err(error) => Err(self.failed("description", topic, &error)),
        }
    }

    async fn list(
        &self,
        topic: &str,
        partitions: &[i32],
        what: i64,
        isolation: Isolation,
    ) -> Result<BTreeMap<i32, i64>> {
        let (name, wanted) = (topic.to_owned(), partitions.iter().map(|of| (*of, what)).collect::<Vec<_>>());
        let listed = self.ask(move |client| client.list_offsets(&name, wanted, isolation, REQUEST_TIMEOUT)).await?;
        listed.map_err(|error| self.failed("offsets", topic, &error))
    }

    /// Where each partition's log begins and ends.
    pub async fn watermarks(&self, topic: &str, isolation: Isolation) -> Result<BTreeMap<i32, Watermarks>> {
        let partitions = self.partitions(topic).await?;
        let low = self.list(topic, &partitions, LOG_START, isolation).await?;
        let end = self.list(topic, &partitions, LOG_END, isolation).await?;
        let both = low.into_iter().filter_map(|(of, low)| Some((of, Watermarks { low, end: *end.get(&of)? })));
        Ok(both.collect())
    }

    /// For each of `partitions` the offset of the first record with this timestamp (milliseconds) or a later one; the
    /// log's end where there is none.
    pub async fn offsets_for_time(
        &self,
        topic: &str,
        partitions: &[i32],
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<BTreeMap<i32, i64>> {
        let mut found = self.list(topic, partitions, timestamp_ms.max(0), isolation).await?;
        let later: Vec<i32> = partitions.iter().copied().filter(|of| found.get(of).is_none_or(|at| *at < 0)).collect();
        if !later.is_empty() {
            found.extend(self.list(topic, &later, LOG_END, isolation).await?);
        }
        Ok(found)
    }

    /// Whether a broker answers: for `calve validate --connect`. The error says why not.
    pub async fn check(&self) -> Result<()> {
        let answer = self.ask(|client| client.check(REQUEST_TIMEOUT)).await?;
        answer.map_err(|error| match error.code {
            code::AUTHENTICATION | code::SSL => Error::halt(format!(
                "cannot log in to {}: {}: check security.protocol, sasl.* and ssl.* in [kafka.properties]",
                self.bootstrap_servers, error.reason
            )),
            _ => Error::retry(format!(
                "no answer from kafka at {}: {}: is the broker up, and the address right?",
                self.bootstrap_servers, error.reason
            )),
        })
    }
}
