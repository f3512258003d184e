//! Protobuf messages straight from the wire into Arrow columns.
//!
//! A mapping is compiled (`compile`) into flat tables (`plan`); an interpreter (`run`) walks a record's bytes by them and puts
//! values into columns under construction (`columns`), which become arrays at the end (`assemble`). What is legal but
//! rare on the wire is rewritten into the plain form first (`normalize`).
//!
//! Guarantees: every record is a row or a [`Reject`], never both, never neither (but for tombstones that the options
//! skip). A reject leaves every column as it was before that record. What Protobuf's official parsers accept is a row,
//! unless a value has no place in its column; what they refuse is a reject. What the columns cannot say is in `_raw`.
//! No input makes this panic, and it holds no more memory than a small multiple of its input. No async, no I/O, no
//! logging.

mod assemble;
mod bytes;
mod columns;
mod compile;
mod constant;
mod enums;
mod frame;
mod json;
mod kafka;
mod marks;
mod message_set;
mod normalize;
mod plan;
pub mod rebuild;
mod run;
mod shredder;
mod slots;
#[cfg(test)]
mod tests;
mod text;
mod unchecked;
mod well_known;
mod wire;

pub use frame::Framing;
pub use plan::Error;
pub use rebuild::rebuild;
pub use shredder::{BATCH_ROWS, Options, Shredder, Tombstones};
