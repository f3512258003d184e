//! Other writers on a table that calve feeds: Spark and PyIceberg append, overwrite, delete, compact, expire, roll back
//! (`rows`) and change columns, spec and sort order while the daemon ingests. It goes on, loses nothing, doubles nothing,
//! and drops nobody's change; what it cannot go on with halts the topic concerned, with who and what.

mod row_ids;
mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::support::broker::{Broker, Record};
use crate::support::engines;
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project, event};
use crate::support::spark::Spark;

const PARTITIONS: i64 = 2;
/// Rows of other writers have ids from here on.
const FOREIGN: i64 = 1_000_000;

/// What the table must hold: events by id, each with its name as it is now, and the ids of foreign rows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    events: BTreeMap<i64, String>,
    foreign: BTreeMap<i64, ()>,
}

/// A topic under ingest, other writers, and what must come of it.
struct Scene {
    broker: Broker,
    project: Project,
    daemon: Daemon,
    spark: Spark,
    /// The catalog as PyIceberg is told of it: its address, and where its tables lie.
    catalog: [String; 2],
    _rest: Option<Part>,
    random: StdRng,
    model: Model,
    produced: i64,
    /// What the daemon has committed since it started, rows of before a rollback included.
    committed: u64,
    foreign: i64,
    /// Columns as they are called now, by what the proto calls them.
    name_column: String,
}

/// Rows with these ids and nothing else: Spark wants a value of every column.
fn insert(target: &str, table: &str, ids: &[i64]) -> String {
    let values: Vec<String> = ids.iter().map(|id| format!("({id}L)")).collect();
    format!(
        "INSERT INTO {target} BY NAME SELECT v.id, e.* EXCEPT (id) FROM VALUES {} AS v(id) LEFT JOIN {table} AS e ON false",
        values.join(", ")
    )
}

fn seed() -> u64 {
    let seed = std::env::var("CALVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CALVE_SEED={seed}");
    seed
}

impl Scene {
    /// In a SQLite catalog.
    fn new(keys: &str) -> Scene {
        let broker = Broker::light();
        let project = Scene::project(&broker, keys);
        let warehouse = project.path().join("warehouse");
        let catalog = [format!("sqlite:///{}/catalog.db", warehouse.display()), warehouse.display().to_string()];
        Scene::start(broker, project, catalog, None)
    }

    /// In a REST catalog: SQLite lets one in at a time, and engines that come often do not always wait for it.
    fn on_rest(keys: &str) -> Scene {
        let broker = Broker::light();
        let rest = Part::start("rest", &[]);
        let project = Scene::project(&broker, keys).on_rest(&rest.address);
        let catalog = [rest.address.clone(), rest.folder().join("warehouse").display().to_string()];
        Scene::start(broker, project, catalog, Some(rest))
    }

    fn project(broker: &Broker, keys: &str) -> Project {
        broker.create_topic("events", PARTITIONS as i32, &[]);
        Project::new(broker, &format!("commit_interval = \"100ms\"\n{keys}"))
    }

    fn start(broker: Broker, project: Project, catalog: [String; 2], rest: Option<Part>) -> Scene {
        let daemon = project.start();
        let spark = match &rest {
            Some(rest) => {
                let mut spark = Spark::new();
                spark.catalog("local", &[("type", "rest"), ("uri", &rest.address)]);
                spark
            }
            None => Spark::of_project(project.path()),
        };
        let mut scene = Scene {
            spark,
            broker,
            project,
            daemon,
            catalog,
            _rest: rest,
            random: StdRng::seed_from_u64(seed()),
            model: Model::default(),
            produced: 0,
            committed: 0,
            foreign: FOREIGN,
            name_column: "name".to_owned(),
        };
        scene.produce(40);
        scene.settle();
        scene
    }

    fn pyiceberg(&self, arguments: &[&str]) {
        let [address, warehouse] = &self.catalog;
        engines::run("foreigner.py", &[&[address.as_str(), warehouse, "bronze.events"], arguments].concat());
    }

    fn produce(&mut self, records: i64) {
        let ids = self.produced..self.produced + records;
        let record = |id| Record::new((id % PARTITIONS) as i32, event(id));
        self.broker.produce("events", &ids.clone().map(record).collect::<Vec<_>>());
        self.model.events.extend(ids.map(|id| (id, format!("event number {id}"))));
        self.produced += records;
        self.committed += records as u64;
    }

    /// Waits until all that was produced is in the table.
    fn settle(&mut self) {
        self.daemon.wait_for_rows("events", self.committed);
    }

    fn sql(&mut self, statement: &str) -> Vec<Value> {
        // The table is in use: an engine that notices tells its user to try again.
        for _ in 0..20 {
            match self.spark.try_sql(statement) {
                Err(error) if error.contains("ommit") || error.contains("conflict") || error.contains("stale") => {}
                answer => return answer.unwrap_or_else(|error| panic!("Spark refuses {statement}: {error}")),
            }
        }
        panic!("Spark came to no end with {statement}");
    }

    /// The table's metadata file: the catalog's word, for a writer that came second may have left one behind too.
    fn location(&mut self) -> String {
        let log = self.sql("SELECT file FROM local.bronze.events.metadata_log_entries ORDER BY timestamp, file");
        let last = log.last().unwrap()["file"].as_str().unwrap();
        last.trim_start_matches("file:").trim_start_matches("//").to_owned()
    }

    fn metadata(&mut self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.location()).unwrap()).unwrap()
    }

    /// The table as these engines read it is the model.
    fn check(&mut self, engines: &[&str], after: &str) {
        self.settle();
        for engine in engines {
            let rows = match *engine {
                "spark" => self.spark.rows("local.bronze.events"),
                engine => engines::rows(engine, &self.location()),
            };
            let mut read = Model::default();
            let mut doubled = Vec::new();
            for row in &rows {
                let row: Value = serde_json::from_str(row).unwrap();
                let id = row["id"].as_i64().unwrap_or_else(|| panic!("{engine} after {after}: {row}"));
                let known = if row["_kafka"]["offset"].is_null() {
                    read.foreign.insert(id, ()).is_some()
                } else {
                    assert_eq!(row["_kafka"]["offset"], id / PARTITIONS, "{engine} after {after}: {row}");
                    let name = row[&self.name_column].as_str().unwrap_or_default().to_owned();
                    read.events.insert(id, name).is_some()
                };
                doubled.extend(known.then_some(id));
            }
            assert!(doubled.is_empty(), "{engine} after {after}: doubled {doubled:?}");
            let differ = |one: &Model, other: &Model| {
                let events = one.events.iter().filter(|(id, name)| other.events.get(id) != Some(name));
                let events = events.map(|(id, name)| format!("{id} {name}"));
                let foreign = one.foreign.keys().filter(|id| !other.foreign.contains_key(id)).map(i64::to_string);
                events.chain(foreign).take(8).collect::<Vec<_>>()
            };
            let (lost, strange) = (differ(&self.model, &read), differ(&read, &self.model));
            assert!(lost.is_empty() && strange.is_empty(), "{engine} after {after}: lost {lost:?}, has {strange:?}");
        }
    }
}

/// The data files that are new since `known`: partition spec, sort order, and the ids in them in the file's order.
fn new_files(scene: &mut Scene, known: &mut Vec<String>) -> Vec<(i64, i64, Vec<i64>)> {
    scene.settle();
    let table = "local.bronze.events";
    let files = scene.sql(&format!("SELECT file_path, spec_id, sort_order_id FROM {table}.data_files"));
    let rows = scene.sql(&format!("SELECT _file AS file, id FROM {table} ORDER BY _file, _pos"));
    let mut found = Vec::new();
    for file in files {
        let path = file["file_path"].as_str().unwrap().to_owned();
        if known.contains(&path) {
            continue;
        }
        let ids = rows.iter().filter(|row| row["file"] == path.as_str()).map(|row| row["id"].as_i64().unwrap());
        found.push((file["spec_id"].as_i64().unwrap(), file["sort_order_id"].as_i64().unwrap_or(-1), ids.collect()));
        known.push(path);
    }
    found
}

#[test]
fn a_spec_a_sort_order_and_columns_that_others_changed_are_used_from_the_next_file_on() {
    let mut scene = Scene::new("sort_by = [\"name desc\"]\n");
    let table = "local.bronze.events";
    let mut known = Vec::new();
    let by_name_descending = |ids: &[i64]| {
        let mut sorted = ids.to_vec();
        sorted.sort_by_key(|id| std::cmp::Reverse(format!("event number {id}")));
        sorted == ids
    };
    let files = new_files(&mut scene, &mut known);
    assert!(files.iter().all(|(spec, order, ids)| (*spec, *order) == (0, 1) && by_name_descending(ids)), "{files:?}");

    // A commit tells the daemon what has changed since; the one after that is written so.
    let next = |scene: &mut Scene, known: &mut Vec<String>, statements: &[&str]| {
        for statement in statements {
            scene.sql(&format!("ALTER TABLE {table} {statement}"));
        }
        scene.produce(4);
        new_files(scene, known);
        scene.produce(40);
        new_files(scene, known)
    };
    let files = next(&mut scene, &mut known, &["ADD PARTITION FIELD bucket(4, id)"]);
    assert!(files.len() >= 4 && files.iter().all(|(spec, order, _)| (*spec, *order) == (1, 1)), "{files:?}");
    let files = next(&mut scene, &mut known, &["REPLACE PARTITION FIELD bucket(4, id) WITH bucket(2, _kafka.offset)"]);
    assert!(files.iter().all(|(spec, ..)| *spec == 2), "{files:?}");
    let files = next(
        &mut scene,
        &mut known,
        &[
            "REPLACE PARTITION FIELD bucket(2, _kafka.offset) WITH truncate(name, 14)",
            "DROP PARTITION FIELD _kafka_timestamp_day",
            "WRITE ORDERED BY id DESC",
        ],
    );
    let by_id_descending = |ids: &[i64]| ids.is_sorted_by(|a, b| a > b);
    assert!(files.iter().all(|(spec, order, ids)| *spec > 2 && *order > 1 && by_id_descending(ids)), "{files:?}");
    let files = next(&mut scene, &mut known, &["WRITE UNORDERED"]);
    assert!(files.iter().all(|(_, order, _)| *order == 0), "{files:?}");

    // Columns: a new one, a renamed one, a wider one, another order and comment.
    next(
        &mut scene,
        &mut known,
        &[
            "ADD COLUMNS (note string COMMENT 'ours', inner.extra int)",
            "RENAME COLUMN name TO title",
            "ALTER COLUMN numbers.element TYPE bigint",
            "ALTER COLUMN title FIRST",
        ],
    );
    scene.name_column = "title".to_owned();
    scene.sql(&format!("UPDATE {table} SET note = 'seen' WHERE id = 3"));
    next(&mut scene, &mut known, &[]);
    scene.check(&["spark", "duckdb", "pyiceberg"], "the columns changed");
    let rows = scene.sql(&format!("SELECT note, numbers, inner FROM {table} WHERE id IN (3, 200) ORDER BY id"));
    assert_eq!((&rows[0]["note"], &rows[1]["note"]), (&"seen".into(), &Value::Null), "{rows:?}");
    assert_eq!(rows[1]["numbers"], serde_json::json!([1, 0]), "{rows:?}");

    // A restart finds them as they are, the proto's next change too.
    scene.project.edit(PROTO, "string name = 2;", "string name = 2; string more = 9;");
    let new = scene.project.start();
    assert_eq!(std::mem::replace(&mut scene.daemon, new).terminate(), 0);
    scene.committed = 0;
    next(&mut scene, &mut known, &[]);
    scene.check(&["spark", "duckdb"], "the schema of the topic changed too");
    let metadata = scene.metadata();
    let schemas = metadata["schemas"].as_array().unwrap();
    let schema = schemas.iter().find(|schema| schema["schema-id"] == metadata["current-schema-id"]).unwrap();
    let names: Vec<&str> =
        schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "title", "{names:?}");
    assert!(["note", "more", "numbers"].iter().all(|name| names.contains(name)), "{names:?}");

    // A field that takes the name of somebody else's column is refused, and the columns stay.
    scene.daemon.signal("TERM");
    scene.project.edit(PROTO, "string more = 9;", "string more = 9; string note = 10;");
    let (code, out, errors) = scene.project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}{errors}");
    assert!(
        out.contains("the name note is taken by another column: its field is gone, or somebody else added it"),
        "{out}{errors}"
    );
}

const PROTO: &str = "proto/test/v1/event.proto";

/// Topics of one partition and one message, `events` among them.
fn with_topics(broker: &Broker, all: &[&str]) -> Project {
    let mut more = String::new();
    for topic in all {
        broker.create_topic(topic, 1, &[]);
        if *topic != "events" {
            more += &format!("[topics.{topic}]\nmessage = \"test.v1.Event\"\ncommit_interval = \"100ms\"\n");
        }
    }
    let local = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";
    Project::with(broker, &more, "commit_interval = \"100ms\"\n", local)
}

fn produce_to(broker: &Broker, topics: &[&str], ids: std::ops::Range<i64>) {
    let records: Vec<Record> = ids.map(|id| Record::new(0, event(id))).collect();
    topics.iter().for_each(|topic| broker.produce(topic, &records));
}

/// Waits until the table cannot take its topic's message any more, and why.
fn halted(daemon: &Daemon, topic: &str) -> String {
    daemon.wait_for(&format!("topic {topic}: table bronze.{topic} cannot"), Duration::from_secs(30));
    let status: Value = serde_json::from_str(&daemon.get("/status")).unwrap();
    assert_eq!(status["topics"][topic]["state"], "halted", "{status}");
    status["topics"][topic]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn what_cannot_be_gone_on_with_halts_its_topic_and_says_who_and_what() {
    let all = ["events", "required", "kafka", "others"];
    let broker = Broker::light();
    let project = with_topics(&broker, &all);
    let produce = |ids: std::ops::Range<i64>| produce_to(&broker, &all, ids);
    produce(0..10);
    let daemon = project.start();
    all.iter().for_each(|topic| daemon.wait_for_rows(topic, 10));

    let mut spark = Spark::of_project(project.path());
    spark.sql(&insert("local.bronze.events", "local.bronze.events", &[FOREIGN]));
    spark.sql("ALTER TABLE local.bronze.events DROP COLUMN numbers");
    spark.sql("ALTER TABLE local.bronze.kafka DROP COLUMN _kafka.headers");
    let warehouse = project.path().join("warehouse");
    let database = format!("sqlite:///{}/catalog.db", warehouse.display());
    let required = [&database, warehouse.to_str().unwrap(), "bronze.required", "require", "id"];
    engines::run("foreigner.py", &required);

    produce(10..20);
    for (topic, words) in [
        (
            "events",
            ["test.v1.Event.numbers", "somebody else dropped its column", "by 0", "of spark 4.0.5 (application local-"],
        ),
        ("kafka", ["test.v1.Event", "_kafka is not of the type", "by 0", "without a snapshot"]),
        ("required", ["test.v1.Event.id", "is required (NOT NULL)", "by 0", "without a snapshot"]),
    ] {
        let reason = halted(&daemon, topic);
        println!("{reason}");
        assert!(words.iter().all(|word| reason.contains(word)), "{words:?} are not all in: {reason}");
    }
    // Others go on, and nothing is lost: what the halted topics have not committed they still have to read.
    produce(20..30);
    daemon.wait_for_rows("others", 30);
    assert_eq!(daemon.terminate(), 1);

    // As it says: a column left out, one made new, one made optional again.
    project.edit("calve.toml", "[topics.events]\n", "[topics.events]\nexclude = [\"numbers\"]\n");
    let optional = "ALTER TABLE local.bronze.required ALTER COLUMN id DROP NOT NULL";
    spark.sql(optional);
    spark.sql("DELETE FROM local.bronze.events WHERE id = 1000000");
    let (code, out, errors) = project.calve(&["run", "--until-caught-up", "--topic", "events", "--topic", "required"]);
    assert_eq!(code, 0, "{out}{errors}");
    for topic in ["events", "required", "others"] {
        assert_eq!(
            project.offsets(&format!("bronze.{topic}")).into_keys().filter(|(_, offset)| *offset >= 0).count(),
            30
        );
    }
}

#[test]
fn a_column_that_is_dropped_and_made_again_is_another_one() {
    let all = ["events", "same", "inside", "others"];
    let broken = ["events", "same", "inside"];
    let broker = Broker::light();
    let project = with_topics(&broker, &all);
    produce_to(&broker, &all, 0..10);
    let daemon = project.start();
    all.iter().for_each(|topic| daemon.wait_for_rows(topic, 10));

    let mut spark = Spark::of_project(project.path());
    for topic in broken {
        let table = format!("local.bronze.{topic}");
        spark.sql(&insert(&table, &table, &[FOREIGN]));
    }
    for (topic, column, kind) in [
        ("events", "numbers", "string"),
        ("same", "name", "string"),
        ("same", "inner", "struct<x: double, note: string>"),
        ("inside", "inner.note", "int"),
        ("inside", "inner.x", "double"),
    ] {
        spark.sql(&format!("ALTER TABLE local.bronze.{topic} DROP COLUMN {column}"));
        spark.sql(&format!("ALTER TABLE local.bronze.{topic} ADD COLUMN {column} {kind}"));
    }

    produce_to(&broker, &all, 10..20);
    let gone = |path: &str| format!("test.v1.Event.{path}: somebody else dropped its column");
    let missed =
        [("events", &["numbers"][..]), ("same", &["name", "inner"][..]), ("inside", &["inner.note", "inner.x"][..])];
    for (topic, paths) in missed {
        let reason = halted(&daemon, topic);
        println!("{reason}");
        assert!(paths.iter().all(|path| reason.contains(&gone(path))), "{paths:?} are not all in: {reason}");
        assert!(reason.contains("by 0") && reason.contains("of spark 4.0.5 (application local-"), "{reason}");
    }
    // From now on nothing is committed to these tables, by this daemon or by the next.
    let metadata = || broken.map(|topic| project.metadata(&format!("bronze.{topic}")));
    let left = metadata();
    let committed = |topic: &str| project.offsets(&format!("bronze.{topic}"));
    let before: BTreeMap<&str, usize> = broken.iter().map(|topic| (*topic, committed(topic).len())).collect();
    assert!(before.values().all(|count| *count == 10), "rows went under columns that are gone: {before:?}");
    produce_to(&broker, &all, 20..30);
    daemon.wait_for_rows("others", 30);
    assert_eq!(daemon.terminate(), 1);
    let (code, out, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}{errors}");
    for (topic, path) in [("events", "numbers"), ("same", "inner"), ("inside", "inner.x")] {
        let said = out.lines().find(|line| line.starts_with(&format!("{topic}: halted: ")));
        assert!(said.is_some_and(|line| line.contains(&gone(path))), "{topic}: {out}{errors}");
    }
    assert_eq!(metadata(), left);

    // As it says: a column left out, others made new beside those that have their names.
    project.edit("calve.toml", "[topics.events]\n", "[topics.events]\nexclude = [\"numbers\"]\n");
    for topic in ["same", "inside"] {
        let section = format!("[topics.{topic}]\n");
        project.edit("calve.toml", &section, &format!("{section}on_incompatible = \"new_column\"\n"));
    }
    project.catch_up();
    for topic in all {
        let offsets = committed(topic);
        assert!(offsets.len() == 30 && offsets.values().all(|times| *times == 1), "{topic}: {offsets:?}");
    }
    // Nothing of ours went into theirs.
    for (topic, theirs, ours, filled) in [
        ("events", "numbers", "numbers", false),
        ("same", "name", "name_2", true),
        ("same", "inner", "inner_2", true),
        ("inside", "inner.note", "inner.note_2", false),
        ("inside", "inner.x", "inner.x_2", true),
    ] {
        // Not by Spark, which cannot read a struct of whose fields a file has none.
        let counts = format!("SELECT count({theirs}) AS theirs, count({ours}) AS ours FROM bronze.{topic}");
        let (code, out, errors) = project.calve(&["query", "--format", "csv", &counts]);
        let since = if filled { 30 - before[topic] } else { 0 };
        assert_eq!((code, out.lines().nth(1)), (0, Some(format!("0,{since}").as_str())), "{topic}: {out}{errors}");
    }
}
