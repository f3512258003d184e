//! The only unsafe code of the source: librdkafka's C API behind owned, safe types.
//!
//! rdkafka's own consumer hands out one message a call (635–760 ns each); `rd_kafka_consume_callback_queue` takes all of
//! a queue at once and calls back for each. (`rd_kafka_consume_batch_queue` must not be used with partition EOF
//! events: librdkafka 2.12.1 counts the event as a record, so that after the next rebalance the partition continues
//! one record too far.) A queue per topic gives back-pressure without pausing, which would throw away prefetched data.

mod client;
mod error;
mod messages;
mod offsets;
mod queue;
mod requests;

pub(super) use client::{Client, check_property};
pub(super) use error::{NativeError, code};
pub(super) use messages::Message;
pub(super) use offsets::Offsets;
pub(super) use queue::{PartitionQueue, Queue};
