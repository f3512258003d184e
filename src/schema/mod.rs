//! Descriptors in, columns out: `.proto` folders and descriptor sets become one resolved [`model`]; a message of it
//! becomes the columns of a table ([`mapping`]), and the columns of a table that exists follow it as it changes
//! ([`evolve`]). The only folder that names a descriptor crate.
//!
//! A user's file, however broken, ends in an error that names it, never in a panic. A table's mapping never changes its
//! meaning: a column is a path of field numbers, and keeps its Iceberg id for as long as the table lives.

pub mod column_map;
pub mod ddl;
pub mod evolve;
pub mod mapping;
pub mod metadata;
pub mod model;
pub mod partition;
pub mod sort;
pub mod source;
pub mod well_known;

mod adopt;
mod build;
mod check;
mod choices;
mod columns;
mod comments;
mod high;
mod lenient;
mod names;
mod options;
mod places;
mod protoc;
mod protos;
mod resolve;
mod settle;
mod width;

pub use settle::settle;
pub use source::load;

#[cfg(test)]
pub(crate) mod tests;
