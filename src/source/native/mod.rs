//! The only unsafe code of the source: librdkafka's C API behind owned, safe types.
//!
//! rdkafka's own consumer hands out one message a call (635–760 ns each); `rd_kafka_consume_batch_queue` fills an array
//! of them in one, and a queue per topic gives back-pressure without pausing (which would throw prefetched data away).

mod client;
mod error;
mod messages;
mod offsets;
mod queue;
mod requests;

pub(super) use client::{Client, Kind, check_property};
pub(super) use error::{NativeError, code};
pub(super) use messages::{Message, Messages};
pub(super) use offsets::Offsets;
pub(super) use queue::{PartitionQueue, Queue};
