//! Kafka in: one consumer group for all topics of a daemon, one bounded stream of [`Event`]s per topic.
//!
//! Guarantees:
//! - Ranges join up. Within one assignment of a partition, each batch starts where the previous one ended; gaps by
//!   compaction, aborted transactions and control records lie inside ranges. Where a partition starts is decided by
//!   the topic's loop, which answers [`Event::Assigned`] with offsets from its table's ledger; committed group offsets
//!   are for lag tools and are never read back.
//! - A topic never holds up another. Each topic has its own queue inside librdkafka, its own bounded channel and its
//!   share of the [`Budget`]; a topic whose loop does not keep up is not read from until it does, while the poll
//!   thread goes on serving the group, so that it is never expelled for being slow.
//! - Memory is bounded: what librdkafka prefetches and what lies in batches are both derived from the budget.
//! - Callbacks only enqueue; the poll thread of [`worker`] owns all state.
//!
//! The isolation level is a property of a consumer, not of a topic: where topics of both levels are registered, there
//! are two consumers (members of the same group), each with its own poll thread.
//!
//! The only folder that names rdkafka.

mod admin;
mod assemble;
mod budget;
pub mod demo_broker;
mod event;
mod faults;
mod handle;
mod inbox;
mod native;
mod properties;
mod range;
mod seat;
mod topic;
mod worker;

pub use admin::{Admin, Watermarks};
pub use budget::{Account, Budget};
pub use event::{Event, Events, Stall, Stalled, TopicSubscription};
pub use faults::{end_below_ledger, log_start_moved, topic_recreated};
pub use handle::Source;
pub use properties::check_properties;
pub use range::RangeReader;
