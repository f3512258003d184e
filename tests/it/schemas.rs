//! Schemas of others, as their owners publish them: each message maps, or is refused with a remedy that works; random
//! records of it are shredded as the oracle says and come back from their rows.

use calve::schema::mapping::{Column, Mapping, Options, Shape};
use calve::shred::Shredder;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::rebuild::round_trip;
use crate::shred::compare;
use crate::support::corpus::{Corpus, generate};
use crate::support::parts::schema_sets;

/// Records of each message and style.
const RECORDS: usize = 60;
/// With the salts of their seeds.
const STYLES: [(generate::Style, u64); 3] =
    [(generate::Style::PLAIN, 21), (generate::Style::WILD, 22), (generate::Style::REFUSED, 23)];

fn check(set: &str, messages: &[&str]) {
    let corpus = Corpus::of_set(&schema_sets().join(format!("{set}.binpb")));
    for (number, name) in messages.iter().enumerate() {
        let whole = mapping(&corpus, name, Options::default().columns_max);
        // And in a table that has no room for most of them, so that what is nested becomes JSON.
        let narrow = mapping(&corpus, name, 40);
        for (mapping, below) in [Some(whole), Some(narrow).filter(|(_, below)| below.is_some())].into_iter().flatten() {
            let mut shredder =
                Shredder::new(&mapping, Default::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
            for (style, salt) in STYLES {
                let seed = salt << 32 | number as u64;
                let mut rng = StdRng::seed_from_u64(seed);
                let record = || generate::message(&corpus.pool, mapping.message, style, &mut rng);
                let records: Vec<_> = std::iter::repeat_with(record).take(RECORDS).collect();
                // The oracle's rows are those of mappings without options.
                if below.is_none() {
                    compare(&corpus, &mapping, &mut shredder, seed, &records, false, |_, _| false);
                }
                round_trip(&corpus, &mapping, seed, &records, below.is_none());
            }
            let below = below.map_or(String::new(), |depth| format!(" with json_below = {depth}"));
            println!("{name}: {} leaf columns{below}", leaves(&mapping.columns));
        }
    }
}

/// The mapping as it comes, or else with the `json_below` that the refusal proposes.
fn mapping(corpus: &Corpus, name: &str, columns_max: usize) -> (Mapping, Option<usize>) {
    let create = |json_below| {
        let options = Options { columns_max, json_below, ..Options::default() };
        let mapping = Mapping::create(corpus.pool.clone(), corpus.id(name), &options);
        mapping.map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    let refused = match create(None) {
        Ok(mapping) => return (mapping, None),
        Err(refused) => refused,
    };
    let proposed = refused.split_once("json_below = ").map(|(_, rest)| rest);
    let depth = proposed.and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok());
    assert!(depth.is_some(), "{name} is refused without a remedy: {refused}");
    let mapping = create(depth).unwrap_or_else(|error| panic!("{name} with json_below = {depth:?}: {error}"));
    (mapping, depth)
}

fn leaves(columns: &[Column]) -> usize {
    fn of(shape: &Shape) -> usize {
        match shape {
            Shape::Leaf(_) => 1,
            Shape::Struct(inner) => leaves(&inner.columns),
            Shape::List(element) => of(element),
            Shape::Map { value, .. } => 1 + of(value),
        }
    }
    columns.iter().map(|column| of(&column.shape)).sum()
}

#[test]
fn opentelemetry() {
    check(
        "opentelemetry",
        &[
            "opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest",
            "opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest",
            "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest",
        ],
    );
}

#[test]
fn envoy_access_logs() {
    check(
        "envoy",
        &[
            "envoy.data.accesslog.v3.HTTPAccessLogEntry",
            "envoy.data.accesslog.v3.TCPAccessLogEntry",
            "envoy.service.accesslog.v3.StreamAccessLogsMessage",
        ],
    );
}

#[test]
fn gtfs_realtime() {
    check("gtfs", &["transit_realtime.FeedMessage"]);
}

#[test]
fn googleapis_common_types() {
    check(
        "googleapis",
        &[
            "google.api.Distribution",
            "google.api.Metric",
            "google.api.MetricDescriptor",
            "google.api.MonitoredResource",
            "google.api.MonitoredResourceMetadata",
            "google.logging.type.HttpRequest",
            "google.longrunning.Operation",
            "google.protobuf.FileDescriptorSet",
            "google.rpc.BadRequest",
            "google.rpc.DebugInfo",
            "google.rpc.ErrorInfo",
            "google.rpc.Help",
            "google.rpc.LocalizedMessage",
            "google.rpc.PreconditionFailure",
            "google.rpc.QuotaFailure",
            "google.rpc.RequestInfo",
            "google.rpc.ResourceInfo",
            "google.rpc.RetryInfo",
            "google.rpc.Status",
            "google.rpc.context.AttributeContext",
            "google.type.Color",
            "google.type.Date",
            "google.type.DateTime",
            "google.type.Decimal",
            "google.type.Expr",
            "google.type.Fraction",
            "google.type.Interval",
            "google.type.LatLng",
            "google.type.LocalizedText",
            "google.type.Money",
            "google.type.PhoneNumber",
            "google.type.PostalAddress",
            "google.type.Quaternion",
            "google.type.TimeOfDay",
        ],
    );
}
