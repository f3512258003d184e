//! A broker inside the process, for `calve demo`: librdkafka's mock cluster with a producer.
//!
//! The mock cluster keeps at most 5 MiB (as sent, so after compression) and 100,000 record batches a partition, then
//! drops the oldest batch whether it was read or not. So [`DemoBroker::produce`] compresses with zstd and refuses to
//! send more than [`PARTITION_BYTES_MAX`] of uncompressed records to a partition: nothing can be dropped, whatever the
//! records compress to, and the demo need not produce at the pace of its consumer. At 200 bytes a record that is
//! about 25,000 records a partition: [`DemoBroker::partitions_for`] says how many partitions a demo needs.
//!
//! The mock cluster shows aborted transactions, and knows no lookup by time: nothing but the demo may use it.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use crate::error::{Error, Result};

/// What [`DemoBroker::produce`] sends to one partition at most: the mock's 5 MiB less the overhead of batches.
pub const PARTITION_BYTES_MAX: usize = 9 << 19;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// A broker that lives as long as this value.
pub struct DemoBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    /// By topic: bytes sent to each partition.
    sent_bytes: Vec<(String, Vec<usize>)>,
}

/// A record to produce.
#[derive(Clone, Copy, Debug)]
pub struct DemoRecord<'a> {
    pub partition: i32,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub timestamp_ms: i64,
}

impl DemoBroker {
    /// A broker with these topics: `(name, partitions)`.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self> {
        let failed = |what: &str, error: KafkaError| Error::halt(format!("demo broker: cannot {what}: {error}"));
        let cluster = MockCluster::new(1).map_err(|error| failed("start", error))?;
        let mut sent_bytes = Vec::new();
        for (name, partitions) in topics {
            cluster
                .create_topic(name, *partitions, 1)
                .map_err(|error| failed(&format!("create topic {name}"), error))?;
            sent_bytes.push(((*name).to_owned(), vec![0; usize::try_from(*partitions).unwrap_or(0)]));
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("compression.type", "zstd")
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", "100000")
            .create()
            .map_err(|error| failed("start its producer", error))?;
        Ok(DemoBroker { cluster, producer, sent_bytes })
    }

    /// How many partitions (at least 4) `records` of about `record_bytes` bytes need, if spread evenly.
    pub fn partitions_for(records: u64, record_bytes: u64) -> i32 {
        // A tenth is left for uneven spreading.
        let needed = (records * record_bytes).div_ceil(PARTITION_BYTES_MAX as u64 / 10 * 9);
        i32::try_from(needed.max(4)).unwrap_or(i32::MAX)
    }

    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Queues a record to be sent; waits when the queue is full. Blocking.
    pub fn produce(&mut self, topic: &str, record: DemoRecord<'_>) -> Result<()> {
        let DemoRecord { partition, key, value, timestamp_ms } = record;
        let sent = self
            .sent_bytes
            .iter_mut()
            .find(|(name, _)| name == topic)
            .and_then(|(_, partitions)| partitions.get_mut(usize::try_from(partition).ok()?))
            .ok_or_else(|| Error::halt(format!("demo broker: there is no topic {topic} partition {partition}")))?;
        // A record's own overhead in a batch is at most 30 bytes.
        *sent += key.len() + value.len() + 30;
        if *sent > PARTITION_BYTES_MAX {
            return Err(Error::halt(format!(
                "demo broker: topic {topic} partition {partition} is full: it keeps {PARTITION_BYTES_MAX} bytes; use \
                 fewer messages or more partitions"
            )));
        }
        let mut unsent = BaseRecord::to(topic).partition(partition).key(key).payload(value).timestamp(timestamp_ms);
        loop {
            match self.producer.send(unsent) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                    unsent = record;
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => {
                    return Err(Error::halt(format!(
                        "demo broker: cannot produce to topic {topic} partition {partition}: {error}"
                    )));
                }
            }
        }
    }

    /// Waits until everything is in the log. Blocking.
    pub fn flush(&self) -> Result<()> {
        self.producer
            .flush(FLUSH_TIMEOUT)
            .map_err(|error| Error::halt(format!("demo broker: records were not taken: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_records_fit() {
        assert_eq!(DemoBroker::partitions_for(100, 100), 4);
        let partitions = DemoBroker::partitions_for(100_000, 250);
        let mut broker = DemoBroker::start(&[("t", partitions)]).unwrap();
        // Bytes that do not compress.
        let mut state = 1_u64;
        let mut value = [0_u8; 220];
        for number in 0..100_000_i64 {
            for byte in &mut value {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8;
            }
            let partition = (number % i64::from(partitions)) as i32;
            broker.produce("t", DemoRecord { partition, key: b"", value: &value, timestamp_ms: number }).unwrap();
        }
        broker.flush().unwrap();
        for partition in 0..partitions {
            let (low, high) = broker.producer.client().fetch_watermarks("t", partition, FLUSH_TIMEOUT).unwrap();
            assert_eq!((low, high), (0, i64::from((100_000 - partition + partitions - 1) / partitions)));
        }
    }

    #[test]
    fn more_than_fits_is_refused() {
        let mut broker = DemoBroker::start(&[("t", 1)]).unwrap();
        let value = vec![0; 1 << 19];
        let record = DemoRecord { partition: 0, key: b"", value: &value, timestamp_ms: 0 };
        let failure = (0..20).find_map(|_| broker.produce("t", record).err()).unwrap();
        assert!(failure.message.starts_with("demo broker: topic t partition 0 is full"), "{failure}");
    }
}
