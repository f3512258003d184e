//! Every message of the corpus through the daemon: what DuckDB, PyIceberg, Spark and Trino read is what an independent
//! decoder says.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::broker::{Broker, Record};
use crate::support::cells::Cell;
use crate::support::corpus::{Corpus, MESSAGES, folder, generate};
use crate::support::engines::{assert_same_rows, canonical_cell, json_like, rows_of_all};
use crate::support::oracle::{Oracle, Verdict};
use crate::support::project::Project;
use crate::support::spark::Spark;
use crate::support::trino;

const RECORDS: usize = 60;
const PARTITIONS: i32 = 2;
const BASE_MS: i64 = 1_790_000_000_000;

struct Topic {
    name: String,
    message: &'static str,
    records: Vec<Record>,
}

/// Records as writers emit them, in any legal form, and with values that are refused; some are tombstones.
fn topic(corpus: &Corpus, message: &'static str, random: &mut StdRng) -> Topic {
    let styles = [generate::Style::PLAIN, generate::Style::WILD, generate::Style::REFUSED];
    let records = (0..RECORDS).map(|index| {
        let value = generate::message(&corpus.pool, corpus.id(message), styles[index % 3], random);
        let record = match random.random_ratio(1, 20) {
            true => Record::tombstone(0, format!("key {index}")),
            false => Record::new(0, value),
        };
        let record = Record { partition: random.random_range(0..PARTITIONS), ..record };
        let record = record.timestamp(BASE_MS + index as i64);
        let record = if random.random_bool(0.5) { record.key(random.random::<[u8; 5]>()) } else { record };
        match random.random_range(0..3) {
            0 => record,
            1 => record.header("trace", Some(&random.random::<[u8; 3]>())),
            _ => record.header("empty", Some(b"")).header("none", None),
        }
    });
    Topic { name: message.to_lowercase(), message, records: records.collect() }
}

/// What the tables must hold, as an engine reads it: rows, and rejects with their bytes.
fn expected(corpus: &Corpus, topic: &Topic, null_as_empty: bool) -> (Vec<String>, Vec<String>) {
    let mapping = corpus.mapping(topic.message);
    let columns = mapping.arrow.fields();
    let oracle = Oracle { pool: &corpus.pool, descriptors: &corpus.descriptors };
    let (mut rows, mut rejects) = (Vec::new(), Vec::new());
    let mut next = [0; PARTITIONS as usize];
    for record in &topic.records {
        let offset = next[record.partition as usize];
        next[record.partition as usize] += 1;
        let verdict = record.value.as_ref().map(|value| oracle.judge(mapping.message, value));
        let (cells, raw) = match verdict {
            None => {
                let message_columns = &columns[..columns.len() - 2];
                (message_columns.iter().map(|field| (field.name().clone(), Cell::Null)).collect(), false)
            }
            Some(Verdict::Row { columns, raw }) => (columns, raw),
            Some(Verdict::Refused(_)) => {
                let value = hex(record.value.as_deref().unwrap_or_default());
                rejects.push(json!([record.partition, offset, value]).to_string());
                continue;
            }
        };
        assert_eq!(cells.len() + 2, columns.len(), "{}", topic.message);
        let mut row: std::collections::BTreeMap<&str, Value> = cells
            .iter()
            .zip(columns)
            .map(|((name, cell), field)| {
                assert_eq!(name, field.name(), "{}", topic.message);
                (name.as_str(), canonical_cell(cell, field.data_type(), null_as_empty))
            })
            .collect();
        let raw = record.value.clone().filter(|_| raw).map_or(Cell::Null, Cell::Bytes);
        row.insert("_raw", canonical_cell(&raw, &DataType::LargeBinary, null_as_empty));
        let headers: Vec<Value> = record
            .headers
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value.as_ref().map(|value| hex(value))}))
            .collect();
        let kafka = json!({
            "headers": headers,
            "key": record.key.as_ref().map(|key| hex(key)),
            "offset": offset,
            "partition": record.partition,
            "schema_id": null,
            "timestamp": format!("micros {}", record.timestamp_ms.unwrap() * 1000),
            "timestamp_type": "create_time",
            "topic": topic.name,
        });
        row.insert("_kafka", kafka);
        rows.push(json!(row).to_string());
    }
    rows.sort();
    rejects.sort();
    (rows, rejects)
}

/// The rows that were read, with their JSON spelled as in the expected row of the same offset.
fn json_of_any_spelling(read: &[String], expected: &[String]) -> Vec<String> {
    let place = |row: &Value| (row["_kafka"]["partition"].as_i64(), row["_kafka"]["offset"].as_i64());
    let parsed = |row: &String| -> Value { serde_json::from_str(row).expect("a row") };
    let expected: HashMap<_, Value> = expected.iter().map(parsed).map(|row| (place(&row), row)).collect();
    let spelled = |row: Value| match expected.get(&place(&row)) {
        Some(wanted) => json_like(row, wanted).to_string(),
        None => row.to_string(),
    };
    let mut rows: Vec<String> = read.iter().map(parsed).map(spelled).collect();
    rows.sort();
    rows
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_corpus_message_reads_back_value_by_value() {
    let seed = std::env::var("CALVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CALVE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let corpus = Corpus::of_files();
    let broker = Broker::light();
    let topics: Vec<Topic> = MESSAGES.into_iter().map(|message| topic(&corpus, message, &mut random)).collect();
    let mut registered = String::new();
    for topic in &topics {
        broker.create_topic(&topic.name, PARTITIONS, &[]);
        broker.produce(&topic.name, &topic.records);
        let (name, message, schema) = (&topic.name, topic.message, folder());
        registered += &format!("[topics.\"{name}\"]\nmessage = \"{message}\"\nschema = \"{}\"\n", schema.display());
    }
    let project = Project::new(&broker, "");
    let toml = format!(
        "[daemon]\nhttp = \"127.0.0.1:0\"\n[kafka]\nbootstrap_servers = \"{}\"\n[defaults]\ncatalog = \"local\"\n{registered}",
        broker.bootstrap_servers()
    );
    project.write("calve.toml", &toml);
    project.catch_up();

    let tables: Vec<String> = topics.iter().map(|topic| format!("bronze.{}", topic.name.replace('.', "_"))).collect();
    let locations: Vec<String> = tables.iter().map(|table| project.metadata(table)).collect();
    let locations: Vec<&str> = locations.iter().map(String::as_str).collect();
    for engine in ["duckdb", "pyiceberg", "spark", "trino"] {
        let read = match engine {
            "spark" => {
                let mut spark = Spark::of_project(project.path());
                tables.iter().map(|table| spark.rows(&format!("local.{table}"))).collect()
            }
            "trino" => trino::rows_of_all(&trino::of_project(project.path()), &tables),
            _ => rows_of_all(engine, &locations),
        };
        for (topic, read) in topics.iter().zip(read) {
            let (mut rows, _) = expected(&corpus, topic, engine == "pyiceberg");
            if engine == "trino" {
                rows = trino::in_its_case(&rows);
            }
            let read = json_of_any_spelling(&read, &rows);
            assert_same_rows(&format!("{engine}, {}, seed {seed}:", topic.message), &read, &rows);
        }
    }

    let rejected: Vec<(&Topic, String)> = topics
        .iter()
        .zip(&tables)
        .filter(|(topic, _)| !expected(&corpus, topic, false).1.is_empty())
        .map(|(topic, table)| (topic, project.metadata(&format!("{table}__quarantine"))))
        .collect();
    assert!(!rejected.is_empty(), "seed {seed} rejects nothing");
    let locations: Vec<&str> = rejected.iter().map(|(_, location)| location.as_str()).collect();
    for ((topic, _), read) in rejected.iter().zip(rows_of_all("duckdb", &locations)) {
        let mut read: Vec<String> = read
            .iter()
            .map(|row| {
                let row: Value = serde_json::from_str(row).unwrap();
                json!([row["_kafka"]["partition"], row["_kafka"]["offset"], row["value"]]).to_string()
            })
            .collect();
        read.sort();
        assert_same_rows(
            &format!("{}'s rejects, seed {seed}:", topic.message),
            &read,
            &expected(&corpus, topic, false).1,
        );
    }
    for table in &tables {
        let (code, out, errors) = project.calve(&["verify", table, "--deep"]);
        assert_eq!(code, 0, "{table}, seed {seed}: {out}\n{errors}");
    }
}
