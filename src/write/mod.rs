//! Arrow in, durable Parquet files out; nothing here commits.
//!
//! The guarantee: when [`TableWriter::finish`] returns, every row that was given to the writer is in exactly one of
//! the returned files, each file is closed (and, on a local disk, synced) in its place, and its metrics are true of its
//! contents. When it fails, or after [`TableWriter::abort`], the files that were put are deleted again, as far as the
//! store allows; what remains is an orphan that no snapshot names.
//!
//! Memory is bounded by [`Limits`]: too many open partitions close the least recently used file, too many buffered
//! bytes put the largest row group. Neither is ever a failure.

mod bounds;
mod encode;
mod encoding;
mod file;
#[cfg(test)]
mod fixtures;
mod layout;
mod metrics;
mod nan;
mod options;
mod partition;
mod path;
mod sample;
mod sort;
mod table;
#[cfg(test)]
mod tests;
mod transform;

pub use options::Limits;
pub use table::{TableWriter, discard};
