//! calve: Kafka topics in, Iceberg tables out.
//!
//! Modules in reading order; the tree is the data flow. Start with [`ingest`].

pub mod ingest;

pub mod batch;
pub mod error;

pub mod source;

pub mod schema;
pub mod shred;

pub mod write;

pub mod catalog;
pub mod commit;
pub mod quarantine;

pub mod query;
pub mod refine;
pub mod verify;

pub mod config;
pub mod daemon;
pub mod telemetry;

pub mod cli;
