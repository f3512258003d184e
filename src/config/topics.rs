//! `[defaults]` and `[topics.*]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::interpolate::plain;
use super::reader::{Located, Section};
use super::{
    Catalog, ColumnOptions, Framing, Given, Isolation, OnIncompatible, SchemaRegistry, SchemaSource, Start, TableName,
    Tombstones, Topic, columns, names, nearest, units,
};

/// The keys of a topic as far as they are given: here, or in `[defaults]`.
#[derive(Clone, Default)]
pub struct Keys {
    catalog: Option<Located<String>>,
    namespace: Option<Located<Vec<String>>>,
    message: Option<Located<String>>,
    schema: Option<Located<SchemaSource>>,
    framing: Option<Located<Framing>>,
    table: Option<Located<String>>,
    quarantine: Option<Located<String>>,
    start: Option<Located<Start>>,
    isolation: Option<Located<Isolation>>,
    partition_by: Option<Located<Vec<String>>>,
    sort_by: Option<Located<Vec<String>>>,
    commit_interval: Option<Located<Duration>>,
    file_size_target: Option<Located<u64>>,
    on_incompatible: Option<Located<OnIncompatible>>,
    tombstones: Option<Located<Tombstones>>,
    columns_max: Option<Located<usize>>,
    json: Option<Located<Vec<String>>>,
    json_below: Option<Located<usize>>,
    columns: BTreeMap<String, ColumnOptions>,
    include: Option<Located<Vec<String>>>,
    exclude: Option<Located<Vec<String>>>,
    properties: BTreeMap<String, Located<String>>,
    snapshot_properties: BTreeMap<String, Located<String>>,
    /// Keys that are there but wrong; nobody is told to add them.
    wrong: Vec<&'static str>,
}

/// What a topic refers to outside its own section.
pub struct Surroundings<'a> {
    pub root: &'a Path,
    pub catalogs: &'a BTreeMap<String, Option<Catalog>>,
    pub registry: Option<&'a SchemaRegistry>,
}

/// Reads the keys of `[defaults]` or of one topic.
pub fn keys(section: &Section<'_>, root: &Path) -> Keys {
    let mut keys = Keys {
        catalog: section.text("catalog"),
        namespace: section.parsed("namespace", names::namespace),
        message: section.parsed("message", names::check_message),
        schema: section.parsed("schema", |text| schema_source(text, root)),
        framing: section.choice(
            "framing",
            &[
                ("none", Framing::None),
                ("confluent", Framing::Confluent),
                ("header", Framing::Header),
                ("length_delimited", Framing::LengthDelimited),
            ],
        ),
        table: section.parsed("table", |text| names::table(text, &[]).map(|_| text.to_string())),
        quarantine: section.parsed("quarantine", |text| names::table(text, &[]).map(|_| text.to_string())),
        start: section.parsed("start", |text| match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            time => units::timestamp(time).map(Start::Timestamp).map_err(|reason| {
                match reason.starts_with("is not a time") {
                    true => "is none of earliest, latest and a time like `2026-01-31T00:00:00Z`".to_string(),
                    false => reason,
                }
            }),
        }),
        isolation: section.choice(
            "isolation",
            &[("read_committed", Isolation::ReadCommitted), ("read_uncommitted", Isolation::ReadUncommitted)],
        ),
        partition_by: section.list("partition_by"),
        sort_by: section.list("sort_by"),
        commit_interval: section.parsed("commit_interval", units::duration),
        file_size_target: section.parsed("file_size_target", units::size),
        on_incompatible: section
            .choice("on_incompatible", &[("halt", OnIncompatible::Halt), ("new_column", OnIncompatible::NewColumn)]),
        tombstones: section.choice("tombstones", &[("row", Tombstones::Row), ("skip", Tombstones::Skip)]),
        columns_max: section.count("columns_max"),
        json: section.list("json"),
        json_below: section.count("json_below"),
        columns: section.section("columns").map(columns::columns).unwrap_or_default(),
        include: section.list("include"),
        exclude: section.list("exclude"),
        properties: section.properties("properties"),
        snapshot_properties: section.properties("snapshot_properties"),
        wrong: Vec::new(),
    };
    if let Some(include) = keys.include.take_if(|include| include.value.is_empty()) {
        let remedy = "names no column; leave it out to have all of them";
        section.file.fault(include.line, format!("{} {remedy}", section.name("include")));
    }
    for (key, missing) in [
        ("message", keys.message.is_none()),
        ("schema", keys.schema.is_none()),
        ("catalog", keys.catalog.is_none()),
        ("table", keys.table.is_none()),
        ("framing", keys.framing.is_none()),
    ] {
        if missing && section.has(key) {
            keys.wrong.push(key);
        }
    }
    for (key, what) in [
        ("tables", "one topic into several tables"),
        ("key_message", "a schema for keys"),
        ("key_schema", "a schema for keys"),
        ("key_framing", "a schema for keys"),
    ] {
        section.later(key, what);
    }
    section.finish();
    keys
}

/// A topic from its own keys and the defaults; `None` if something is missing, which is then among the faults.
pub fn topic(
    name: &str,
    section: &Section<'_>,
    own: Keys,
    defaults: &Keys,
    around: &Surroundings<'_>,
) -> Option<Topic> {
    let file = section.file;
    let is_wrong = |key| own.wrong.contains(&key) || defaults.wrong.contains(&key);
    if let Err(reason) = names::check_topic(name) {
        file.fault(section.line, format!("[{}] {reason}", section.path()));
    }

    let framing = own.framing.or(defaults.framing.clone()).map_or(Framing::None, |framing| framing.value);

    let schema = match own.schema.or(defaults.schema.clone()) {
        Some(schema) => Some(schema),
        None if is_wrong("schema") => None,
        None => match schema_source("proto", around.root) {
            Ok(value) => Some(Located { value, line: section.line }),
            Err(_) => {
                section.missing("schema", "name a folder of .proto files or a FileDescriptorSet; there is no folder `proto` beside calve.toml");
                None
            }
        },
    };
    if let Some(Located { value: SchemaSource::Registry, line }) = &schema {
        let need = if around.registry.is_none() { " and needs a [schema_registry]" } else { "" };
        file.fault(*line, format!("{} = \"registry\" is not supported yet{need}: schema registries come with a later version; name a folder of .proto files or a FileDescriptorSet", section.name("schema")));
    }

    let message = own.message.or(defaults.message.clone()).map(|message| message.value);
    let told_by_registry = matches!(&schema, Some(Located { value: SchemaSource::Registry, .. }));
    if message.is_none() && !is_wrong("message") && !told_by_registry {
        section.missing("message", "write the full name of the topic's Protobuf message, like \"shop.v1.Order\"");
    }

    let catalog = own.catalog.or(defaults.catalog.clone());
    let catalog = catalog.unwrap_or(Located { value: "local".to_string(), line: section.line });
    if !is_wrong("catalog") && !around.catalogs.contains_key(&catalog.value) {
        let names = around.catalogs.keys().map(String::as_str);
        let hint = match around.catalogs.is_empty() {
            true => format!("make catalogs/{}.toml", catalog.value),
            false => nearest::suggest(&catalog.value, names),
        };
        file.fault(
            catalog.line,
            format!("{} = \"{}\" is no catalog of this project; {hint}", section.name("catalog"), catalog.value),
        );
    }

    let namespace =
        own.namespace.or(defaults.namespace.clone()).map_or(vec!["bronze".to_string()], |namespace| namespace.value);
    let in_namespace = |key: &str, text: Located<String>| match names::table(&text.value, &namespace) {
        Ok(name) => Some(name),
        Err(reason) => {
            file.fault(text.line, format!("{} = \"{}\" {reason}", section.name(key), text.value));
            None
        }
    };
    let given = Given {
        table: own.table.is_some() || defaults.table.is_some(),
        quarantine: own.quarantine.is_some() || defaults.quarantine.is_some(),
        partition_by: own.partition_by.is_some() || defaults.partition_by.is_some(),
        sort_by: own.sort_by.is_some() || defaults.sort_by.is_some(),
    };
    let table = match own.table.or(defaults.table.clone()) {
        Some(text) => in_namespace("table", text),
        None => Some(TableName { namespace: namespace.clone(), name: names::table_of_topic(name) }),
    };
    let quarantine = match own.quarantine.or(defaults.quarantine.clone()) {
        Some(text) => in_namespace("quarantine", text),
        None => table.as_ref().map(TableName::quarantine),
    };

    let mut properties: BTreeMap<String, String> =
        defaults.properties.iter().map(|(key, text)| (key.clone(), text.value.clone())).collect();
    properties.extend(own.properties.into_iter().map(|(key, text)| (key, text.value)));
    for (key, why) in OWNED_TABLE_PROPERTIES {
        if properties.contains_key(*key) {
            file.fault(
                section.line_of("properties"),
                format!("{}.\"{key}\" is calve's own to set: {why}; remove the key", section.name("properties")),
            );
        }
    }

    let mut snapshot_properties: BTreeMap<String, String> =
        defaults.snapshot_properties.iter().map(|(key, text)| (key.clone(), text.value.clone())).collect();
    snapshot_properties.extend(own.snapshot_properties.into_iter().map(|(key, text)| (key, text.value)));
    for key in snapshot_properties.keys().filter(|key| is_own_in_summaries(key)) {
        file.fault(
            section.line_of("snapshot_properties"),
            format!(
                "{}.\"{key}\" is calve's own to set: it says what a snapshot is; give it another name",
                section.name("snapshot_properties")
            ),
        );
    }

    let mut columns = defaults.columns.clone();
    for (path, options) in own.columns {
        let known = columns.entry(path).or_default();
        *known = columns::over(options, *known);
    }

    Some(Topic {
        name: name.to_string(),
        place: match section.line {
            Some(line) => format!("{}:{line}", file.shown),
            None => file.shown.to_string(),
        },
        catalog: catalog.value,
        message,
        schema: schema?.value,
        framing,
        table: table?,
        quarantine: quarantine?,
        namespace,
        given,
        start: own.start.or(defaults.start.clone()).map_or(Start::Earliest, |start| start.value),
        isolation: own
            .isolation
            .or(defaults.isolation.clone())
            .map_or(Isolation::ReadCommitted, |isolation| isolation.value),
        partition_by: own
            .partition_by
            .or(defaults.partition_by.clone())
            .map_or(vec!["day(_kafka.timestamp)".to_string()], |fields| fields.value),
        sort_by: own.sort_by.or(defaults.sort_by.clone()).map(|fields| fields.value).unwrap_or_default(),
        commit_interval: own
            .commit_interval
            .or(defaults.commit_interval.clone())
            .map_or(Duration::from_secs(10), |interval| interval.value),
        file_size_target_bytes: own.file_size_target.or(defaults.file_size_target.clone()).map(|size| size.value),
        on_incompatible: own
            .on_incompatible
            .or(defaults.on_incompatible.clone())
            .map_or(OnIncompatible::Halt, |decision| decision.value),
        tombstones: own
            .tombstones
            .or(defaults.tombstones.clone())
            .map_or(Tombstones::Row, |tombstones| tombstones.value),
        columns_max: own.columns_max.or(defaults.columns_max.clone()).map_or(2000, |columns| columns.value),
        json: own.json.or(defaults.json.clone()).map_or(Vec::new(), |paths| paths.value),
        json_below: own.json_below.or(defaults.json_below.clone()).map(|depth| depth.value),
        columns,
        include: own.include.or(defaults.include.clone()).map(|paths| paths.value).unwrap_or_default(),
        exclude: own.exclude.or(defaults.exclude.clone()).map(|paths| paths.value).unwrap_or_default(),
        properties,
        snapshot_properties,
    })
}

/// Keys of a snapshot's summary that readers, other writers and calve itself go by.
fn is_own_in_summaries(key: &str) -> bool {
    ["calve.", "total-", "added-", "deleted-", "removed-", "changed-partition", "engine-"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
        || key == "operation"
}

/// Table properties that carry the exactly-once promise.
const OWNED_TABLE_PROPERTIES: &[(&str, &str)] = &[
    ("calve.mapping", "it says how the table's columns came about"),
    ("calve.columns", "it says how the table's columns came about"),
    ("calve.message", "it follows from the topic's `message`"),
    ("calve.ledger", "it says what the table has"),
];

/// No two topics may fill one table, nor may a quarantine table be another's.
pub fn check_tables<'a>(topics: impl IntoIterator<Item = &'a Topic>, mut fault: impl FnMut(&Topic, String)) {
    let mut seen: BTreeMap<(&str, &TableName), (&Topic, &str)> = BTreeMap::new();
    for topic in topics {
        for (table, role) in [(&topic.table, "table"), (&topic.quarantine, "quarantine")] {
            match seen.get(&(topic.catalog.as_str(), table)) {
                Some((other, other_role)) => {
                    let whose = match other.name == topic.name {
                        true => format!("its own {other_role}"),
                        false => format!("the {other_role} of topic {} ({})", other.name, other.place),
                    };
                    fault(
                        topic,
                        format!(
                            "topic {}: the {role} {table} in catalog {} is already {whose}; set another `{role}`",
                            topic.name, topic.catalog
                        ),
                    );
                }
                None => {
                    seen.insert((topic.catalog.as_str(), table), (topic, role));
                }
            }
        }
    }
}

/// `registry`, a folder of `.proto` files, or a FileDescriptorSet.
fn schema_source(text: &str, root: &Path) -> Result<SchemaSource, String> {
    if text == "registry" {
        return Ok(SchemaSource::Registry);
    }
    if text.is_empty() {
        return Err("is empty; name a folder of .proto files or a FileDescriptorSet".to_string());
    }
    let path = root.join(text);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(SchemaSource::Protos(path)),
        Ok(_) if path.extension().is_some_and(|extension| extension == "proto") => {
            Err("is a single .proto file; name the folder that its imports start from".to_string())
        }
        Ok(_) => Ok(SchemaSource::DescriptorSet(path)),
        Err(error) => Err(format!("cannot be read ({}): {}", path.display(), plain(&error))),
    }
}
