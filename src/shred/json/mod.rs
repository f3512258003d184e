//! Messages as canonical Protobuf JSON, straight from the wire into the text of a column: `types` says how each message
//! type is written, `write` writes it, `text` spells the values.
//!
//! The JSON is that of the official libraries: lowerCamelCase names, fields without a value left out, 64-bit integers,
//! bytes and map keys as strings, well-known types in their own forms, fields by number. What is legal but rare on the
//! wire needs no plain form first: a message is written from all its pieces at once.

mod collect;
mod maps;
mod scalar;
mod text;
mod types;
mod write;

pub use types::Types;
pub use write::{Scratch, write};
