//! What the tests stand on: real and embedded parts, started on demand.

pub mod broker;
pub mod cells;
pub mod corpus;
pub mod engines;
pub mod gcs;
pub mod hostile;
pub mod http;
pub mod json;
pub mod lake;
pub mod needs;
pub mod oracle;
pub mod parts;
pub mod project;
pub mod proxy;
pub mod source;
pub mod spark;
pub mod tables;
pub mod trino;
pub mod wire;
