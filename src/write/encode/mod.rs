//! Record batches into Parquet, a column of a batch at a time.
//!
//! parquet's own Arrow writer does several things for each value: finds its level, appends it to a run, hashes it,
//! compares it to the least and the largest one. For shredded messages, whose many columns are mostly small, that was
//! most of the cost of a file. Here a batch's column becomes levels ([`levels`]) and present values ([`values`]) by loops
//! over whole arrays; a page is encoded once it is complete, when all of it is known ([`column`]). What is in the file
//! around the pages (headers, chunks' metadata, page index, footer) is parquet's work.

mod bits;
mod codec;
mod column;
mod delta;
mod dictionary;
mod levels;
mod numbers;
mod statistics;
#[cfg(test)]
mod tests;
mod texts;
mod values;
mod writer;

pub use writer::Writer;
