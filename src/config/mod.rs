//! The configuration: read once, checked whole, then immutable and passed down.
//!
//! The doc comments here are the user's reference; the example `calve.toml` shows every key with its default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

mod catalogs;
mod fault;
mod interpolate;
mod load;
mod names;
pub mod nearest;
mod reader;
mod services;
mod topics;
pub mod units;

#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults};
pub use interpolate::{Sources, plain};
pub use load::{load, load_with, locate, read};
pub use services::{OWNED_KAFKA_PROPERTIES, check_http};

/// A calve project: the folder of `calve.toml`, with everything in it read, interpolated and checked.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder of `calve.toml`; relative paths are relative to it.
    pub root: PathBuf,
    pub daemon: Daemon,
    pub kafka: Kafka,
    pub schema_registry: Option<SchemaRegistry>,
    /// By name: the stem of `catalogs/NAME.toml`.
    pub catalogs: BTreeMap<String, Catalog>,
    /// By topic name; defaults applied.
    pub topics: BTreeMap<String, Topic>,
}

#[derive(Clone, Debug)]
pub struct Daemon {
    pub http: String,
    /// Needed to serve any address that is not loopback.
    pub http_token: Option<Secret>,
    pub memory_limit_bytes: u64,
    pub shutdown_timeout: Duration,
}

#[derive(Clone)]
pub struct Kafka {
    pub bootstrap_servers: String,
    /// The consumer group; lag tools see it, calve never reads it back. Default: `calve`.
    pub group_id: String,
    /// Static membership, when set.
    pub instance_id: Option<String>,
    /// librdkafka's own properties, passed through.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct SchemaRegistry {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub token: Option<Secret>,
    pub ca_file: Option<PathBuf>,
}

/// One Iceberg catalog. The keys are Iceberg's own property names; which are known depends on the type.
#[derive(Clone)]
pub struct Catalog {
    pub name: String,
    pub kind: CatalogKind,
    /// All properties but `type`, interpolated; `warehouse` and sqlite paths made absolute.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogKind {
    Sql,
    Rest,
    Glue,
}

/// A registered topic, defaults applied.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// Where in `calve.toml` the topic is registered, for messages: `calve.toml:12`.
    pub place: String,
    pub catalog: String,
    /// The Protobuf message's full name.
    pub message: Option<String>,
    pub schema: SchemaSource,
    pub framing: Framing,
    pub table: TableName,
    pub quarantine: TableName,
    pub start: Start,
    pub isolation: Isolation,
    /// Iceberg partition fields as written: `day(_kafka.timestamp)`, `bucket[16](customer.id)`, `region`.
    pub partition_by: Vec<String>,
    pub commit_interval: Duration,
    pub file_size_target_bytes: u64,
    pub on_incompatible: OnIncompatible,
    pub tombstones: Tombstones,
    pub columns_max: usize,
    /// Fields of messages that become JSON, by dotted names.
    pub json: Vec<String>,
    /// Messages nested deeper than this become JSON.
    pub json_below: Option<usize>,
    /// Iceberg table properties, set at creation.
    pub properties: BTreeMap<String, String>,
}

/// `namespace.table`, the namespace possibly of several levels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub namespace: Vec<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SchemaSource {
    /// A folder of `.proto` files; import path = the folder.
    Protos(PathBuf),
    /// A serialized FileDescriptorSet.
    DescriptorSet(PathBuf),
    Registry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Confluent,
    Header,
    LengthDelimited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// Milliseconds since the epoch.
    Timestamp(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIncompatible {
    Halt,
    NewColumn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstones {
    Row,
    Skip,
}

/// A string that never appears in Debug, logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

// Properties hold passwords and keys under many names: Debug shows which are set, never to what.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("instance_id", &self.instance_id)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for level in &self.namespace {
            write!(f, "{level}.")?;
        }
        f.write_str(&self.name)
    }
}
