//! The configuration: read once, checked whole, then immutable and passed down.
//!
//! The doc comments here are the user's reference; the example `calve.toml` shows every key with its default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

mod catalogs;
mod columns;
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
pub use topics::check_tables;

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
    /// Of a table that is named without one.
    pub namespace: Vec<String>,
    /// Which of these calve.toml says; for the others the schema may have something to say.
    pub given: Given,
    pub start: Start,
    pub isolation: Isolation,
    /// Iceberg partition fields as written: `day(_kafka.timestamp)`, `bucket[16](customer.id)`, `region`.
    pub partition_by: Vec<String>,
    /// Iceberg sort fields as written: `placed_at`, `bucket[16](customer.id) desc nulls last`.
    pub sort_by: Vec<String>,
    pub commit_interval: Duration,
    /// None: what the table's properties say.
    pub file_size_target_bytes: Option<u64>,
    pub on_incompatible: OnIncompatible,
    pub tombstones: Tombstones,
    pub columns_max: usize,
    /// Fields of messages that become JSON, by dotted names.
    pub json: Vec<String>,
    /// Messages nested deeper than this become JSON.
    pub json_below: Option<usize>,
    /// By path: the names of fields, joined by dots; lists and maps do not count, so that what is said of them holds for
    /// their elements or values. A oneof is named like a field.
    pub columns: BTreeMap<String, ColumnOptions>,
    /// Paths of the columns that are wanted, with all below them; all there are if there is none.
    pub include: Vec<String>,
    /// Paths of what of these is not wanted.
    pub exclude: Vec<String>,
    /// Iceberg table properties, set at creation.
    pub properties: BTreeMap<String, String>,
    /// Keys of the summary of every snapshot that the topic makes.
    pub snapshot_properties: BTreeMap<String, String>,
}

/// Keys that are written, for the topic or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub table: bool,
    pub quarantine: bool,
    pub partition_by: bool,
    pub sort_by: bool,
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

/// What is said of a column, here or in the schema itself; what is said here wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnOptions {
    pub kind: Option<ColumnType>,
    /// Leave the field out of the table.
    pub exclude: Option<bool>,
    /// Of a oneof: a string column `<oneof>_case` that names the member that is set.
    pub case_column: Option<bool>,
}

/// What a field becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// What the mapping says.
    Default,
    /// uint64, fixed64, UInt64Value: a long; above 2^63−1 the record is out of range. Timestamp, Duration: microseconds
    /// in a long.
    Long,
    /// An enum: its number.
    Int,
    /// A message: Protobuf JSON in a string.
    Json,
    /// Timestamp, Duration: milliseconds in a long, floored; below one, the record is in `_raw` too.
    Millis,
}

impl ColumnType {
    pub fn as_str(self) -> &'static str {
        match self {
            ColumnType::Default => "default",
            ColumnType::Long => "long",
            ColumnType::Int => "int",
            ColumnType::Json => "json",
            ColumnType::Millis => "millis",
        }
    }
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

impl TableName {
    /// A table as it is written: `orders` in the namespace given, or `bronze.orders`. The error follows what was written.
    pub fn parse(text: &str, namespace: &[String]) -> Result<Self, String> {
        names::table(text, namespace)
    }

    /// Where a table's rejected records go unless another table is named.
    pub fn quarantine(&self) -> Self {
        TableName { namespace: self.namespace.clone(), name: format!("{}__quarantine", self.name) }
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
