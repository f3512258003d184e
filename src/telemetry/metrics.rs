//! Every metric of calve, in one table with its unit.
//!
//! To add one: a line in the table below, and in `topic()`, `table()` or `model()` if a stage should hold it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::batch::RejectCode;

/// A gauge of something that is not a whole number.
pub type GaugeF64 = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Topic {
    pub topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Rejected {
    pub topic: String,
    pub code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    pub topic: String,
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Table {
    pub table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    pub catalog: String,
    /// In its protocol's words: an endpoint, an action, a statement; `get`, `put`, `part`, … of a store.
    pub request: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Model {
    pub model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelResult {
    pub model: String,
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Part {
    /// `fetched` (batches that were read and not shredded yet), `writing` (columns and open row groups), `refining`
    /// (what refinements sort and join).
    pub part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Build {
    pub version: &'static str,
}

/// From 10 ms to a little under three minutes.
fn seconds() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.01, 2.0, 15))
}

macro_rules! metrics {
    ($($field:ident: $kind:ty = $make:expr, $name:literal, $unit:literal, $help:literal;)*) => {
        /// All metrics. Cheap to clone; every clone counts into the same.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Arc<Registry>,
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// Name (without the prefix `calve_`), unit and meaning of each.
        pub const TABLE: &[(&str, &str, &str)] = &[$(($name, $unit, $help)),*];

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("calve");
                $(let $field: $kind = $make;)*
                $(match $unit {
                    "" => registry.register($name, $help, $field.clone()),
                    unit => registry.register_with_unit($name, $help, unit_of(unit), $field.clone()),
                })*
                Metrics { registry: Arc::new(registry), $($field,)* }
            }
        }
    };
}

// The name on the wire is `calve_<name>_<unit>`, and counters end in `_total`: `calve_read_records_total`.
metrics! {
    records_read: Family<Topic, Counter> = Family::default(), "read", "records", "Records that came from Kafka";
    bytes_read: Family<Topic, Counter> = Family::default(), "read", "bytes", "Keys, values and headers that came from Kafka";
    rows: Family<Topic, Counter> = Family::default(), "shredded", "rows", "Records that became rows, committed or not";
    rejects: Family<Rejected, Counter> = Family::default(), "rejected", "records", "Records that went to quarantine, by cause";
    batches_discarded: Family<Topic, Counter> = Family::default(), "discarded_batches", "", "Batches that were staged and thrown away, because the table had part of them from another daemon or was rewound";
    lag_records: Family<Topic, Gauge> = Family::default(), "lag", "records", "Offsets between the topic's end and what its table accounts for, all partitions together";
    unread_records: Family<Topic, Gauge> = Family::default(), "unread", "records", "Offsets between the topic's end and what was read of it, this daemon's partitions together";
    lag_seconds: Family<Topic, GaugeF64> = Family::default(), "lag", "seconds", "Age of the oldest record that the table does not account for, 0 when there is none";
    topic_state: Family<State, Gauge> = Family::default(), "topic_state", "", "1 for the state that a topic is in, 0 for the others";
    rebalances: Counter = Counter::default(), "rebalances", "", "Times that the group gave or took partitions";
    kafka_errors: Counter = Counter::default(), "kafka_errors", "", "Errors that the Kafka client reported and goes on from";
    commits: Family<Table, Counter> = Family::default(), "commits", "", "Snapshots that were committed";
    commit_duration: Family<Table, Histogram> = Family::new_with_constructor(seconds as fn() -> Histogram), "commit", "seconds", "Time of a commit, from staged files to the catalog's yes";
    commit_conflicts: Family<Table, Counter> = Family::default(), "commit_conflicts", "", "Attempts at a commit that found the table changed; each costs new metadata, the data files stay";
    commit_unknowns: Family<Table, Counter> = Family::default(), "commit_unknown_outcomes", "", "Commits whose answer was lost, and which were then looked for in the table";
    files_written: Family<Table, Counter> = Family::default(), "written", "files", "Data files that were committed";
    bytes_written: Family<Table, Counter> = Family::default(), "written", "bytes", "Size of the data files that were committed";
    catalog_requests: Family<Request, Counter> = Family::default(), "catalog_requests", "", "Requests of ingest to a catalog, each attempt counted";
    store_requests: Family<Request, Counter> = Family::default(), "store_requests", "", "Requests of ingest for files of a catalog's tables, on a local disk too; what is repeated after a failure counts once";
    open_files: Family<Table, Gauge> = Family::default(), "open", "files", "Data files of a table and its quarantine that are being written";
    memory_used: Family<Part, Gauge> = Family::default(), "memory_used", "bytes", "Buffers that count against memory_limit, by part";
    memory_limit: Gauge = Gauge::default(), "memory_limit", "bytes", "The configured memory_limit";
    refinement_runs: Family<ModelResult, Counter> = Family::default(), "refinement_runs", "", "Refinement runs, by result: done, nothing, conflict or failed";
    refinement_rows: Family<Model, Counter> = Family::default(), "refinement", "rows", "Rows that refinements committed";
    refinement_duration: Family<Model, Histogram> = Family::new_with_constructor(seconds as fn() -> Histogram), "refinement", "seconds", "Time of a refinement run, commit included";
    build: Family<Build, Gauge> = Family::default(), "build", "", "1; the label tells the version";
}

/// What one topic's stages count; held by its loop, so that counting takes no lock.
#[derive(Clone, Debug)]
pub struct TopicMetrics {
    pub topic: String,
    pub records_read: Counter,
    pub bytes_read: Counter,
    pub rows: Counter,
    pub batches_discarded: Counter,
    pub lag_records: Gauge,
    pub unread_records: Gauge,
    pub lag_seconds: GaugeF64,
    rejects: Family<Rejected, Counter>,
}

impl TopicMetrics {
    pub fn rejected(&self, code: RejectCode) {
        self.rejects.get_or_create(&Rejected { topic: self.topic.clone(), code: code.as_str() }).inc();
    }
}

/// What the source counts, all topics together.
#[derive(Clone, Debug, Default)]
pub struct KafkaMetrics {
    pub rebalances: Counter,
    pub errors: Counter,
}

/// Requests to one catalog, and to the stores where its tables lie.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    catalog: String,
    to_catalog: Family<Request, Counter>,
    to_store: Family<Request, Counter>,
}

impl Requests {
    pub fn catalog(&self, request: &'static str) {
        self.to_catalog.get_or_create(&Request { catalog: self.catalog.clone(), request }).inc();
    }

    pub fn store(&self, request: &'static str) {
        self.to_store.get_or_create(&Request { catalog: self.catalog.clone(), request }).inc();
    }
}

/// A holder's part of a gauge that several feed: it is taken back when the holder is dropped.
#[derive(Debug)]
pub struct Share {
    gauge: Gauge,
    held: i64,
}

impl Share {
    pub fn of(gauge: &Gauge) -> Share {
        Share { gauge: gauge.clone(), held: 0 }
    }

    pub fn set(&mut self, value: i64) {
        self.gauge.inc_by(value - self.held);
        self.held = value;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What is counted for one table.
#[derive(Clone, Debug)]
pub struct TableMetrics {
    pub commits: Counter,
    pub commit_duration: Histogram,
    pub commit_conflicts: Counter,
    pub commit_unknowns: Counter,
    pub files_written: Counter,
    pub bytes_written: Counter,
    pub open_files: Gauge,
}

impl Default for TableMetrics {
    /// For who commits without being asked for figures.
    fn default() -> Self {
        TableMetrics {
            commits: Counter::default(),
            commit_duration: seconds(),
            commit_conflicts: Counter::default(),
            commit_unknowns: Counter::default(),
            files_written: Counter::default(),
            bytes_written: Counter::default(),
            open_files: Gauge::default(),
        }
    }
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Metrics::default();
        metrics.build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        metrics
    }

    pub fn topic(&self, topic: &str) -> TopicMetrics {
        let labels = Topic { topic: topic.to_string() };
        TopicMetrics {
            topic: topic.to_string(),
            records_read: self.records_read.get_or_create_owned(&labels),
            bytes_read: self.bytes_read.get_or_create_owned(&labels),
            rows: self.rows.get_or_create_owned(&labels),
            batches_discarded: self.batches_discarded.get_or_create_owned(&labels),
            lag_records: self.lag_records.get_or_create_owned(&labels),
            unread_records: self.unread_records.get_or_create_owned(&labels),
            lag_seconds: self.lag_seconds.get_or_create_owned(&labels),
            rejects: self.rejects.clone(),
        }
    }

    pub fn kafka(&self) -> KafkaMetrics {
        KafkaMetrics { rebalances: self.rebalances.clone(), errors: self.kafka_errors.clone() }
    }

    /// The gauge of memory that one part holds; see [`Part`].
    pub fn memory(&self, part: &'static str) -> Gauge {
        self.memory_used.get_or_create_owned(&Part { part })
    }

    pub fn requests(&self, catalog: &str) -> Requests {
        Requests {
            catalog: catalog.to_owned(),
            to_catalog: self.catalog_requests.clone(),
            to_store: self.store_requests.clone(),
        }
    }

    pub fn table(&self, table: &str) -> TableMetrics {
        let labels = Table { table: table.to_string() };
        TableMetrics {
            commits: self.commits.get_or_create_owned(&labels),
            commit_duration: self.commit_duration.get_or_create_owned(&labels),
            commit_conflicts: self.commit_conflicts.get_or_create_owned(&labels),
            commit_unknowns: self.commit_unknowns.get_or_create_owned(&labels),
            files_written: self.files_written.get_or_create_owned(&labels),
            bytes_written: self.bytes_written.get_or_create_owned(&labels),
            open_files: self.open_files.get_or_create_owned(&labels),
        }
    }

    /// One refinement run: how it ended, how many rows it committed, how long it took.
    pub fn refined(&self, model: &str, result: &'static str, rows: u64, seconds: f64) {
        let labels = Model { model: model.to_string() };
        self.refinement_runs.get_or_create(&ModelResult { model: model.to_string(), result }).inc();
        self.refinement_rows.get_or_create(&labels).inc_by(rows);
        self.refinement_duration.get_or_create(&labels).observe(seconds);
    }

    /// All metrics in OpenMetrics' text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn unit_of(unit: &str) -> Unit {
    match unit {
        "bytes" => Unit::Bytes,
        "seconds" => Unit::Seconds,
        other => Unit::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_is_rendered_with_its_unit() {
        let metrics = Metrics::new();
        let topic = metrics.topic("orders");
        topic.records_read.inc_by(3);
        topic.bytes_read.inc_by(300);
        topic.rows.inc_by(2);
        topic.lag_records.set(7);
        topic.lag_seconds.set(1.5);
        topic.rejected(RejectCode::BadVarint);
        metrics.topic_state.get_or_create(&State { topic: "orders".into(), state: "running" }).set(1);
        let table = metrics.table("bronze.orders");
        table.commits.inc();
        table.commit_duration.observe(0.02);
        let requests = metrics.requests("lake");
        requests.catalog("GetTable");
        requests.store("put");
        metrics.refined("silver.x", "done", 5, 0.1);
        let mut held = Share::of(&metrics.memory("writing"));
        let mut more = Share::of(&metrics.memory("writing"));
        held.set(500);
        more.set(70);
        held.set(300);
        drop(more);
        let text = metrics.render().expect("rendered");
        for (name, unit, help) in TABLE {
            let full = if unit.is_empty() { format!("calve_{name}") } else { format!("calve_{name}_{unit}") };
            assert!(text.contains(&format!("# HELP {full} {help}.")), "{full} is missing in\n{text}");
        }
        for line in [
            "calve_read_records_total{topic=\"orders\"} 3",
            "calve_lag_seconds{topic=\"orders\"} 1.5",
            "calve_rejected_records_total{topic=\"orders\",code=\"bad_varint\"} 1",
            "calve_commit_seconds_count{table=\"bronze.orders\"} 1",
            "calve_refinement_runs_total{model=\"silver.x\",result=\"done\"} 1",
            "calve_catalog_requests_total{catalog=\"lake\",request=\"GetTable\"} 1",
            "calve_store_requests_total{catalog=\"lake\",request=\"put\"} 1",
            "calve_memory_used_bytes{part=\"writing\"} 300",
            "calve_written_bytes_total{table=\"bronze.orders\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
