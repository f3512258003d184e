//! Admin requests. They wait for the broker: callers put them on a thread that may block.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka_sys as sys;

use super::client::{Client, millis};
use super::error::{self, NativeError, read_code, text};
use super::offsets::{Offsets, partition_offset};
use crate::config::Isolation;

/// What a broker knows of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct TopicDescription {
    /// Base64 as Kafka's tools print it; `None` where the broker is older than topic ids (KIP-516).
    pub id: Option<String>,
    pub partitions: Vec<i32>,
}

/// A request's options, its reply queue and the reply.
struct Exchange {
    options: *mut sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
    reply: *mut sys::rd_kafka_event_t,
}

impl Exchange {
    fn new(client: &Client, operation: sys::rd_kafka_admin_op_t, timeout: Duration) -> Self {
        let mut reason = [0 as c_char; 256];
        // SAFETY: live handle; the options and the queue are ours.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.handle(), operation);
            let timeout_ms = millis(timeout).clamp(1, 3_600_000);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason.as_mut_ptr(), reason.len());
            Exchange { options, queue: sys::rd_kafka_queue_new(client.handle()), reply: ptr::null_mut() }
        }
    }

    /// Waits for the reply and checks that it is one of `kind`.
    fn wait(&mut self, kind: i32, timeout: Duration) -> Result<*const sys::rd_kafka_event_t, NativeError> {
        // librdkafka answers with a time-out by itself; the margin only covers its own scheduling.
        let wait = timeout + Duration::from_secs(5);
        // SAFETY: live queue; the event is ours.
        unsafe {
            self.reply = sys::rd_kafka_queue_poll(self.queue, millis(wait));
            if self.reply.is_null() {
                let code = error::code::TIMED_OUT;
                return Err(NativeError::new(code, error::words(code)));
            }
            let code = read_code(&sys::rd_kafka_event_error(self.reply));
            if code != 0 {
                return Err(NativeError::new(code, text(sys::rd_kafka_event_error_string(self.reply))));
            }
            if sys::rd_kafka_event_type(self.reply) != kind {
                return Err(NativeError::new(0, "unexpected answer to an admin request"));
            }
        }
        Ok(self.reply)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // SAFETY: all three are owned.
        unsafe {
            if !self.reply.is_null() {
                sys::rd_kafka_event_destroy(self.reply);
            }
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_AdminOptions_destroy(self.options);
        }
    }
}

impl Client {
    pub fn describe_topic(&self, topic: &str, timeout: Duration) -> Result<TopicDescription, NativeError> {
        let name = CString::new(topic)
            .map_err(|_| NativeError::new(0, format!("topic name {topic:?} contains a zero byte")))?;
        let mut exchange = Exchange::new(self, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
        // Any broker can answer; librdkafka would ask the controller, which the mock cluster does not have.
        if let Some(broker) = self.any_broker(timeout)? {
            let mut reason = [0 as c_char; 256];
            // SAFETY: live options, and a buffer of the length that is told.
            unsafe {
                sys::rd_kafka_AdminOptions_set_broker(exchange.options, broker, reason.as_mut_ptr(), reason.len());
            }
        }
        // SAFETY: live handle; the collection copies the names; the reply's parts live as long as the exchange.
        unsafe {
            let mut names = [name.as_ptr()];
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            sys::rd_kafka_DescribeTopics(self.handle(), topics, exchange.options, exchange.queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
            let reply = exchange.wait(sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, timeout)?;
            let result = sys::rd_kafka_event_DescribeTopics_result(reply.cast_mut());
            let mut count = 0;
            let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count == 0 {
                return Err(NativeError::new(0, "the broker's answer has no topics"));
            }
            let description = *descriptions;
            let failure = sys::rd_kafka_TopicDescription_error(description);
            if !failure.is_null() {
                let code = read_code(&sys::rd_kafka_error_code(failure));
                if code != 0 {
                    return Err(NativeError::new(code, text(sys::rd_kafka_error_string(failure))));
                }
            }
            let uuid = sys::rd_kafka_TopicDescription_topic_id(description);
            let known = !uuid.is_null()
                && (sys::rd_kafka_Uuid_most_significant_bits(uuid) != 0
                    || sys::rd_kafka_Uuid_least_significant_bits(uuid) != 0);
            let id = known.then(|| text(sys::rd_kafka_Uuid_base64str(uuid)));
            let partitions = sys::rd_kafka_TopicDescription_partitions(description, &mut count);
            let mut partitions: Vec<i32> =
                (0..count).map(|index| sys::rd_kafka_TopicPartitionInfo_partition(*partitions.add(index))).collect();
            partitions.sort_unstable();
            Ok(TopicDescription { id, partitions })
        }
    }

    /// For each `(partition, what)` the offset, or −1 where there is none (no record at or after a timestamp). `what`
    /// is a timestamp in milliseconds, −2 the log's start, −1 its end: with `read_committed` the last stable offset.
    pub fn list_offsets(
        &self,
        topic: &str,
        wanted: impl IntoIterator<Item = (i32, i64)>,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<BTreeMap<i32, i64>, NativeError> {
        let mut list = Offsets::new();
        for (partition, what) in wanted {
            list.add(topic, partition, Some(what))?;
        }
        let mut exchange = Exchange::new(self, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
        let level = match isolation {
            Isolation::ReadCommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::ReadUncommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        // SAFETY: live handle, options, list; the reply's parts live as long as the exchange.
        unsafe {
            let refused = NativeError::take(sys::rd_kafka_AdminOptions_set_isolation_level(exchange.options, level));
            if let Some(error) = refused {
                return Err(error);
            }
            sys::rd_kafka_ListOffsets(self.handle(), list.as_ptr(), exchange.options, exchange.queue);
            let reply = exchange.wait(sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT, timeout)?;
            let result = sys::rd_kafka_event_ListOffsets_result(reply.cast_mut());
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
            let mut offsets = BTreeMap::new();
            for index in 0..count {
                let element = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
                match partition_offset(element) {
                    (partition, Ok(offset)) => offsets.insert(partition, offset),
                    (partition, Err(code)) => {
                        let reason = format!("partition {partition}: {}", error::words(code));
                        return Err(NativeError::new(code, reason));
                    }
                };
            }
            Ok(offsets)
        }
    }
}
