//! The option `(calve.v1.table)`: what it gives a topic that calve.toml says nothing of.

use super::super::settle;
use crate::config::{Project, load_with};

/// A project of topics, and a schema with `option (calve.v1.table)` in `shop.Order`.
fn settled(topics: &str, option: &str) -> (Project, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("calve.toml", &format!("kafka.bootstrap_servers = 'b:1'\ndefaults.namespace = 'raw'\n{topics}"));
    write("catalogs/local.toml", "type = 'sql'\nuri = 'sqlite:///catalog.db'\nwarehouse = 'warehouse'\n");
    let schema = format!(
        "syntax = \"proto3\"; package shop; import \"calve/v1/options.proto\";
         message Order {{ option (calve.v1.table) = {{ {option} }}; int64 id = 1; Line line = 2; }}
         message Line {{ option (calve.v1.table).name = \"lines\"; int32 n = 1; }}
         message Plain {{ Order order = 1; }}"
    );
    write("proto/shop.proto", &schema);
    let mut project =
        load_with(&folder.path().join("calve.toml"), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let faults = settle(&mut project);
    let prefix = format!("{}/", folder.path().display());
    (project, faults.0.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect())
}

const ALL: &str = "name: \"sold\", partition_by: [\"bucket[4](id)\", \"line.n\"], sort_by: \"id desc\", description: \"what was sold\"";

#[test]
fn the_schema_says_what_the_configuration_does_not() {
    let topics = "[topics.a]\nmessage = 'shop.Order'\n[topics.b]\nmessage = 'shop.Plain'\n";
    let (project, faults) = settled(topics, ALL);
    assert_eq!(faults, [""; 0]);
    let (a, b) = (&project.topics["a"], &project.topics["b"]);
    assert_eq!((a.table.to_string(), a.quarantine.to_string()), ("raw.sold".into(), "raw.sold__quarantine".into()));
    assert_eq!(a.partition_by, ["bucket[4](id)", "line.n"]);
    assert_eq!((a.sort_by.as_slice(), b.sort_by.len()), (["id desc".to_string()].as_slice(), 0));
    assert_eq!(a.properties["comment"], "what was sold");
    // Messages inside of the topic's have no say.
    assert_eq!(
        (b.table.to_string(), b.partition_by.as_slice()),
        ("raw.b".into(), ["day(_kafka.timestamp)".to_string()].as_slice())
    );
    assert!(b.properties.is_empty());
}

#[test]
fn the_configuration_wins() {
    let topics = "[topics.a]\nmessage = 'shop.Order'\ntable = 'x.mine'\npartition_by = []\nsort_by = []\nproperties = { comment = 'mine' }\n[topics.b]\nmessage = 'shop.Order'\nquarantine = 'rejects'\n";
    let (project, faults) = settled(topics, ALL);
    assert_eq!(faults, [""; 0]);
    let (a, b) = (&project.topics["a"], &project.topics["b"]);
    assert_eq!((a.table.to_string(), a.quarantine.to_string()), ("x.mine".into(), "x.mine__quarantine".into()));
    assert_eq!((a.partition_by.len(), a.sort_by.len(), a.properties["comment"].as_str()), (0, 0, "mine"));
    assert_eq!((b.table.to_string(), b.quarantine.to_string()), ("raw.sold".into(), "raw.rejects".into()));
}

#[test]
fn what_cannot_be_had() {
    let topics = "[topics.a]\nmessage = 'shop.Order'\n[topics.b]\nmessage = 'shop.Order'\n";
    let (_, faults) = settled(topics, ALL);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0]
            .starts_with("calve.toml:5: topic b: the table raw.sold in catalog local is already the table of topic a"),
        "{faults:?}"
    );
    let topic = "[topics.a]\nmessage = 'shop.Order'\n";
    let (_, faults) = settled(topic, "name: \"a..b\"");
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].starts_with("calve.toml:3: topic a: the option (calve.v1.table) of shop.Order = \"a..b\" "),
        "{faults:?}"
    );
}
