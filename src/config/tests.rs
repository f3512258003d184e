//! Projects as data: what is read from them, and every kind of fault.

use std::path::Path;

use super::*;

const LOCAL: &str = "type = 'sql'\nuri = 'sqlite:///warehouse/catalog.db'\nwarehouse = 'warehouse'\n";

/// A project's folder, from `path → text`; `calve.toml`, `catalogs/local.toml` and `proto/` are there unless given.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("in the folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("proto/a.proto", "");
    if !files.iter().any(|(path, _)| *path == "catalogs/local.toml") {
        write("catalogs/local.toml", LOCAL);
    }
    files.iter().for_each(|(path, text)| write(path, text));
    folder
}

fn variable(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2".to_string()),
        "TEN" => Some("10s".to_string()),
        _ => None,
    }
}

fn load_folder(folder: &Path) -> Result<Project, Faults> {
    load_with(&folder.join("calve.toml"), &variable)
}

/// The project is good.
fn project(files: &[(&str, &str)]) -> Project {
    let folder = folder(files);
    load_folder(folder.path()).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The project has exactly these faults, in this order; a fault is given by its place and parts of its message, with
/// `…` between.
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let folder = folder(files);
    let faults = load_folder(folder.path()).expect_err("the project has faults");
    let prefix = format!("{}/", folder.path().display());
    let got: Vec<String> = faults.0.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect();
    let shown = got.join("\n");
    assert_eq!(got.len(), expected.len(), "\n{shown}\n");
    for (got, expected) in got.iter().zip(expected) {
        assert!(!got.contains('\n') && !got.contains("hunter2"), "{got}");
        let mut rest = got.as_str();
        for (i, part) in expected.split('…').enumerate() {
            let found = if i == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
            let at = found.unwrap_or_else(|| panic!("\n{got}\ndoes not say\n{expected}\n"));
            rest = &rest[at + part.len()..];
        }
    }
}

/// Like [`check`], for a `calve.toml` that has brokers on line 1 and nothing else wrong.
fn check_toml(text: &str, expected: &[&str]) {
    check(&[("calve.toml", &format!("kafka.bootstrap_servers = 'localhost:9092'\n{text}"))], expected);
}

#[test]
fn the_example_is_a_good_project_and_shows_the_defaults() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = load_with(&root.join("calve.toml"), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let bare = project(&[(
        "calve.toml",
        "[kafka]\nbootstrap_servers = '127.0.0.1:9092'\n[topics.orders]\nmessage = 'shop.v1.Order'\n",
    )]);
    assert_eq!(format!("{:?}", example.daemon), format!("{:?}", bare.daemon));
    assert_eq!(format!("{:?}", example.kafka), format!("{:?}", bare.kafka));
    let (shown, default) = (&example.topics["orders"], &bare.topics["orders"]);
    let same = |topic: &Topic| {
        let topic = Topic {
            place: String::new(),
            schema: SchemaSource::Registry,
            properties: BTreeMap::new(),
            given: Given::default(),
            ..topic.clone()
        };
        format!("{topic:#?}")
    };
    assert_eq!(same(shown), same(default));
    assert_eq!(shown.schema, SchemaSource::Protos(root.join("proto")));
}

#[test]
fn defaults_reach_topics_and_topics_win() {
    let project = project(&[(
        "calve.toml",
        "kafka.bootstrap_servers = 'a:1,b:2'
         kafka.properties = { client.id = 'x', 'fetch.max.bytes' = 1000000, ssl.ca.location = 'ca.pem' }
         [defaults]
         namespace = 'raw.shop'
         commit_interval = '${TEN}'
         partition_by = []
         properties = { 'write.metadata.x' = 'a', both = 'default' }
         snapshot_properties = { team = 'sales', both = 'default' }
         sort_by = ['id desc']
         [topics.'shop.orders-1']
         message = 'a.B'
         [topics.other]
         message = 'a.B'
         table = 'other'
         quarantine = 'q.other'
         commit_interval = '1m'
         start = 2026-01-31T00:00:00Z
         properties = { both = 'topic' }
         snapshot_properties = { both = 'topic' }
         sort_by = []
        ",
    )]);
    let topic = &project.topics["shop.orders-1"];
    assert_eq!(topic.table.to_string(), "raw.shop.shop_orders_1");
    assert_eq!(topic.quarantine.to_string(), "raw.shop.shop_orders_1__quarantine");
    assert_eq!(topic.commit_interval, Duration::from_secs(10));
    assert!(topic.partition_by.is_empty());
    assert!(topic.place.ends_with("calve.toml:10"), "{}", topic.place);
    let other = &project.topics["other"];
    assert_eq!(other.table.to_string(), "raw.shop.other");
    assert_eq!(other.quarantine.to_string(), "q.other");
    assert_eq!(other.commit_interval, Duration::from_secs(60));
    assert_eq!(other.start, Start::Timestamp(1_769_817_600_000));
    let properties: Vec<_> = other.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(properties, ["both=topic", "write.metadata.x=a"]);
    let properties: Vec<_> = other.snapshot_properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(properties, ["both=topic", "team=sales"]);
    assert_eq!((topic.sort_by.as_slice(), other.sort_by.len()), (["id desc".to_string()].as_slice(), 0));
    assert_eq!(project.kafka.properties["fetch.max.bytes"], "1000000");
    assert_eq!(project.kafka.properties["client.id"], "x");
    assert_eq!(project.kafka.properties["ssl.ca.location"], project.root.join("ca.pem").to_string_lossy());
    let catalog = &project.catalogs["local"];
    assert_eq!(catalog.properties["uri"], format!("sqlite:///{}/warehouse/catalog.db", project.root.display()));
    assert_eq!(catalog.properties["warehouse"], project.root.join("warehouse").to_string_lossy());
}

#[test]
fn secrets_are_never_shown() {
    let project = project(&[
        (
            "calve.toml",
            "daemon = { http = '0.0.0.0:8642', http_token = '${SECRET}' }
             kafka = { bootstrap_servers = 'a:1', properties = { 'sasl.password' = '${SECRET}' } }
             schema_registry = { url = 'http://r', username = 'u', password = '${SECRET}' }",
        ),
        ("catalogs/rest.toml", "type = 'rest'\nuri = 'http://c/'\ntoken = '${SECRET}'\nheader.X-Key = '${SECRET}'"),
    ]);
    assert_eq!(project.kafka.properties["sasl.password"], "hunter2");
    assert_eq!(project.catalogs["rest"].properties["header.X-Key"], "hunter2");
    assert_eq!(project.catalogs["rest"].properties["uri"], "http://c");
    let shown = format!("{project:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn all_faults_of_all_files_come_at_once() {
    check(
        &[
            (
                "calve.toml",
                "[daemon]\nhtp = 'x'\nmemory_limit = 1\n[kafka]\nbootstrap_servers = '${BROKERS}'\n[topics.a]\nmessage = 'a.B'\ncatalog = 'locl'\n[topic.b]\n",
            ),
            ("catalogs/local.toml", "type = 'sql'\nuri = 'x'\nwarehous = 'y'\n"),
        ],
        &[
            "calve.toml:2: unknown key htp in [daemon]; did you mean `http`?",
            "calve.toml:3: daemon.memory_limit must be a string: write \"1\" with its unit, in quotes",
            "calve.toml:5: kafka.bootstrap_servers refers to ${BROKERS}, but the environment variable BROKERS is not set",
            "calve.toml:8: topics.a.catalog = \"locl\" is no catalog of this project; did you mean `local`?",
            "calve.toml:9: unknown key topic; did you mean `topics`?",
            "catalogs/local.toml: warehouse is missing: …",
            "catalogs/local.toml:2: uri is no address of a database; …",
            "catalogs/local.toml:3: unknown key warehous; did you mean `warehouse`?",
        ],
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let faults = load_folder(folder.path()).expect_err("nothing is there");
    assert!(faults.to_string().ends_with("calve.toml: cannot be read: no such file or directory; run `calve init` to make a project, or name one with --config"), "{faults}");
    check(&[("calve.toml", "[daemon\n")], &["calve.toml:1: is not TOML: …"]);
    check(&[("calve.toml", "[daemon]\n\nhttp_token = 'hunter2\n")], &["calve.toml:3: is not TOML: …"]);
    check(
        &[("calve.toml", "a.b = 1\n[a]\nb = 2\n[a]\n"), ("catalogs/x.toml", "=")],
        &["calve.toml:…: is not TOML", "catalogs/x.toml:1: is not TOML"],
    );
}

#[test]
fn keys_that_are_unknown_or_of_a_later_version() {
    check_toml("[kafkaa]\n", &["calve.toml:2: unknown key kafkaa; did you mean `kafka`?"]);
    check_toml(
        "[topics.shop.orders]\nmessage = 'a.B'\n",
        &[
            "calve.toml:2: topics.shop.message is missing: …",
            "calve.toml:2: unknown key orders in [topics.shop]; a topic's name with dots needs quotes: [topics.\"shop.orders\"]",
        ],
    );
    check_toml(
        "[topics.a]\nmessage = 'a.B'\nkey_message = 'a.K'\n[[topics.a.tables]]\nmessage = 'a.C'\n",
        &[
            "calve.toml:4: topics.a.key_message is not supported yet: a schema for keys comes with a later version; remove the key",
            "calve.toml:5: topics.a.tables is not supported yet: …",
        ],
    );
    check_toml(
        "[topics.a]\nmessage = 'a.B'\nschema = 'registry'\nframing = 'confluent'\n",
        &["calve.toml:4: topics.a.schema = \"registry\" is not supported yet and needs a [schema_registry]: …"],
    );
    check_toml(
        "[schema_registry]\nurl = 'http://r'\n[topics.a]\nschema = 'registry'\nframing = 'header'\n",
        &["calve.toml:5: topics.a.schema = \"registry\" is not supported yet: …"],
    );
}

#[test]
fn columns_by_path() {
    let project = project(&[(
        "calve.toml",
        "kafka.bootstrap_servers = 'b:1'
         [defaults]
         message = 'a.B'
         exclude = ['trace']
         [defaults.columns]
         trace.case_column = true
         id = { type = 'long' }
         [topics.a]
         include = ['amount', 'id']
         exclude = []
         [topics.a.columns]
         'amount.units' = { type = 'millis' }
         amount.nanos.exclude = true
         type.type.type = 'int'
         id.type = 'default'
         [topics.b]",
    )]);
    let (a, b) = (&project.topics["a"], &project.topics["b"]);
    let none = ColumnOptions::default();
    let typed = |kind| ColumnOptions { kind: Some(kind), ..none };
    let case = ColumnOptions { case_column: Some(true), ..none };
    let expected = [
        ("amount.nanos", ColumnOptions { exclude: Some(true), ..none }),
        ("amount.units", typed(ColumnType::Millis)),
        ("id", typed(ColumnType::Default)),
        ("trace", case),
        ("type.type", typed(ColumnType::Int)),
    ];
    assert_eq!(a.columns, expected.map(|(path, options)| (path.to_string(), options)).into());
    assert_eq!((&a.include, &a.exclude), (&vec!["amount".to_string(), "id".to_string()], &vec![]));
    let expected = [("id", typed(ColumnType::Long)), ("trace", case)];
    assert_eq!(b.columns, expected.map(|(path, options)| (path.to_string(), options)).into());
    assert_eq!((&b.include, &b.exclude), (&vec![], &vec!["trace".to_string()]));
}

#[test]
fn options_of_columns_that_are_wrong() {
    check_toml(
        "[topics.a]\nmessage = 'a.B'\ninclude = []\nexclude = 'x'\n[topics.a.columns]\n\"b.c\" = { type = 'lang' }\nd = { typ = 'long', exclude = 'yes' }\ne = 'long'\nf.case_column = 1\n",
        &[
            "calve.toml:4: topics.a.include names no column; leave it out to have all of them",
            "calve.toml:5: topics.a.exclude must be a list of strings, not a string",
            "calve.toml:7: topics.a.columns.\"b.c\".type = \"lang\" is none of default, long, int, json, millis; did you mean \"long\"?",
            "calve.toml:8: topics.a.columns.d.exclude must be true or false, not a string",
            "calve.toml:8: unknown key typ in [topics.a.columns.d]; did you mean `type`?",
            "calve.toml:9: topics.a.columns.e must be a table, `[topics.a.columns.e]`, not a string",
            "calve.toml:10: topics.a.columns.f.case_column must be true or false, not a whole number",
        ],
    );
}

#[test]
fn framings_with_a_schema_id_need_no_registry() {
    let topics = "kafka.bootstrap_servers = 'b:1'\n[defaults]\nmessage = 'a.B'\n[topics.a]\nframing = 'confluent'\n[topics.b]\nframing = 'header'\n";
    let project = project(&[("calve.toml", topics)]);
    let framings: Vec<Framing> = project.topics.values().map(|topic| topic.framing).collect();
    assert_eq!(framings, [Framing::Confluent, Framing::Header]);
}

#[test]
fn values_of_the_wrong_type() {
    check_toml(
        "topics.a = 5\n[topics.b]\nmessage = true\ntable = ['x']\npartition_by = 'day(x)'\ncolumns_max = 'many'\nproperties = { a = [1] }\ncommit_interval = 10\nstart = {}\n",
        &[
            "calve.toml:2: topics.a must be a table, `[topics.a]`, not a whole number",
            "calve.toml:4: topics.b.message must be a string, not true or false",
            "calve.toml:5: topics.b.table must be a string, not a list",
            "calve.toml:6: topics.b.partition_by must be a list of strings, not a string",
            "calve.toml:7: topics.b.columns_max must be a whole number, not a string",
            "calve.toml:8: topics.b.properties.a must be a string, not a list",
            "calve.toml:9: topics.b.commit_interval must be a string: write \"10\" with its unit, in quotes",
            "calve.toml:10: topics.b.start must be a string, not a table",
        ],
    );
    check(&[("calve.toml", "daemon = 1\n")], &["calve.toml:1: daemon must be a table, not a whole number"]);
}

#[test]
fn values_that_are_wrong() {
    check_toml(
        "[daemon]\nhttp = 'here'\nmemory_limit = '1MB'\nshutdown_timeout = '5 weeks'\nhttp_token = ''\n[topics.a]\nmessage = 'a..B'\nstart = 'erliest'\nisolation = 'commited'\ntombstones = 'skp'\ncommit_interval = '0s'\nfile_size_target = '${TEN}'\ncolumns_max = 0\ntable = 'a/b.c'\nschema = 'nowhere'\non_incompatible = 'stop'\n[topics.b]\nmessage = 'a.B'\nschema = 'proto/a.proto'\nstart = '2026-01-31T00:00:00'\n[topics.\"a b\"]\nmessage = 'a.B'\n",
        &[
            "calve.toml:3: daemon.http = \"here\" is no address to serve; …",
            "calve.toml:4: daemon.memory_limit = \"1MB\" is too little…16MiB",
            "calve.toml:5: daemon.shutdown_timeout = \"5 weeks\" has the unit `weeks`…",
            "calve.toml:6: daemon.http_token is empty; …",
            "calve.toml:8: topics.a.message = \"a..B\" is no message's full name; …",
            "calve.toml:9: topics.a.start = \"erliest\" is none of earliest, latest and a time…",
            "calve.toml:10: topics.a.isolation = \"commited\" is none of read_committed, read_uncommitted…",
            "calve.toml:11: topics.a.tombstones = \"skp\" is none of row, skip; did you mean \"skip\"?",
            "calve.toml:12: topics.a.commit_interval = \"0s\" must be longer than nothing",
            "calve.toml:13: topics.a.file_size_target = \"${TEN}\" has the unit `s`, …",
            "calve.toml:14: topics.a.columns_max = 0 must be at least 1",
            "calve.toml:15: topics.a.table = \"a/b.c\" has a character that a table's name cannot have…",
            "calve.toml:16: topics.a.schema = \"nowhere\" cannot be read (…nowhere): no such file or directory",
            "calve.toml:17: topics.a.on_incompatible = \"stop\" is none of halt, new_column",
            "calve.toml:20: topics.b.schema = \"proto/a.proto\" is a single .proto file; name the folder that its imports start from",
            "calve.toml:21: topics.b.start = \"2026-01-31T00:00:00\" has no offset from UTC; …",
            "calve.toml:22: [topics.\"a b\"] is no topic's name: …",
        ],
    );
}

#[test]
fn things_that_are_missing() {
    check(
        &[("calve.toml", "[topics.a]\n")],
        &["calve.toml:1: kafka.bootstrap_servers is missing: …", "calve.toml:1: topics.a.message is missing: …"],
    );
    check(
        &[("calve.toml", "[schema_registry]\n"), ("catalogs/local.toml", "")],
        &["calve.toml:1: schema_registry.url is missing: …", "catalogs/local.toml: type is missing: …"],
    );
}

#[test]
fn brokers_and_their_properties() {
    check(
        &[(
            "calve.toml",
            "[kafka]\nbootstrap_servers = 'localhost'\ngroup_id = ''\n[kafka.properties]\nenable.auto.commit = true\n\"group.id\" = 'x'\n'auto.offset.reset' = 'earliest'\n",
        )],
        &[
            "calve.toml:2: kafka.bootstrap_servers = \"localhost\" must be `HOST:PORT`, …",
            "calve.toml:3: kafka.group_id = \"\" is empty; …",
            "calve.toml:5: kafka.properties.\"enable.auto.commit\" is calve's own to set: the table is the ledger…",
            "calve.toml:6: kafka.properties.\"group.id\" is calve's own to set: set `group_id` in [kafka]; remove the key",
            "calve.toml:7: kafka.properties.\"auto.offset.reset\" is calve's own to set: …",
        ],
    );
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    check_toml(
        "[daemon]\nhttp = '0.0.0.0:8642'\n",
        &["calve.toml:3: daemon.http = \"0.0.0.0:8642\" can be reached from other machines, which needs a token; …"],
    );
    for (address, has_token, fine) in [
        ("127.0.0.1:0", false, true),
        ("127.8.8.8:80", false, true),
        ("[::1]:80", false, true),
        ("localhost:80", false, true),
        ("[::]:80", false, false),
        ("192.168.0.1:80", false, false),
        ("192.168.0.1:80", true, true),
        ("example.org:80", true, false),
        ("127.0.0.1", false, false),
    ] {
        assert_eq!(check_http(address, has_token).is_ok(), fine, "{address}");
    }
}

#[test]
fn two_topics_in_one_table() {
    check_toml(
        "[topics.a]\nmessage = 'a.B'\n[topics.b]\nmessage = 'a.B'\ntable = 'bronze.a'\n[topics.c]\nmessage = 'a.B'\nquarantine = 'bronze.c'\n",
        &[
            "calve.toml:4: topic b: the quarantine bronze.a__quarantine in catalog local is already the quarantine of topic a (…calve.toml:2)…",
            "calve.toml:4: topic b: the table bronze.a in catalog local is already the table of topic a (…calve.toml:2); set another `table`",
            "calve.toml:7: topic c: the quarantine bronze.c in catalog local is already its own table; set another `quarantine`",
        ],
    );
}

#[test]
fn registries() {
    check_toml(
        "[schema_registry]\nurl = 'r:8081'\npassword = 'hunter2'\nca_file = 'none.pem'\nuser = 'x'\n",
        &[
            "calve.toml:3: schema_registry.url must begin with http:// or https://",
            "calve.toml:4: schema_registry.password needs a username",
            "calve.toml:5: schema_registry.ca_file names …none.pem, which is no file",
            "calve.toml:6: unknown key user in [schema_registry]; did you mean `username`?",
        ],
    );
}

#[test]
fn catalogs_that_are_wrong() {
    let catalog = |text: &str, expected: &[&str]| {
        check(&[("calve.toml", ""), ("catalogs/c.toml", text)], expected);
    };
    catalog("type = 'sqll'", &["catalogs/c.toml:1: type = \"sqll\" is none of sql, rest, glue; did you mean \"sql\"?"]);
    catalog(
        "type = 'glue'\nglue.region = 'x'\nglue.endpoint = 'x:1'\nglue.skip-archive = 'no'\nglue.regoin = 'x'\nuri = 'x'\ns3.sse.type = 'aes'",
        &[
            "catalogs/c.toml:3: glue.endpoint must be an address …",
            "catalogs/c.toml:4: glue.skip-archive must be \"true\" or \"false\"",
            "catalogs/c.toml:5: unknown key glue.regoin; did you mean `glue.region`?",
            "catalogs/c.toml:6: uri is a key of catalogs of type \"rest\"; remove it",
            "catalogs/c.toml:7: s3.sse.type must be one of none, s3, kms, dsse-kms, custom",
        ],
    );
    catalog(
        "type = 'rest'\nuri = 'c:8181'",
        &["catalogs/c.toml:2: uri must be an address that begins with http:// or https://"],
    );
    catalog(
        "type = 'rest'\nuri = 'http://c'\nscope = 'a:${SECRET}'\ns3.path-style-access = 'yes'\ns3.endpont = 'x'\nglue.id = 'x'\ntoken = ''",
        &[
            "catalogs/c.toml:3: scope is of no use without credential; add it, or remove scope",
            "catalogs/c.toml:4: s3.path-style-access must be \"true\" or \"false\"",
            "catalogs/c.toml:5: unknown key s3.endpont; did you mean `s3.endpoint`?",
            "catalogs/c.toml:6: glue.id is a key of catalogs of type \"glue\"; remove it",
            "catalogs/c.toml:7: token is empty; …",
        ],
    );
    catalog(
        "type = 'rest'\nuri = 'http://c'\ncredential = 'a:'\ntoken-file = 't'\noauth2-server-uri = 'ftp://${SECRET}'\nrest-page-size = '0'",
        &[
            "catalogs/c.toml:3: credential ends behind its colon; write CLIENT-ID:CLIENT-SECRET",
            "catalogs/c.toml:4: credential and token-file exclude each other; remove one",
            "catalogs/c.toml:5: oauth2-server-uri must be an address that begins with http:// or https://, …",
            "catalogs/c.toml:6: rest-page-size must be a whole number above 0, in quotes",
        ],
    );
    catalog(
        "type = 'sql'\nuri = 'sqlite:///c.db'\nwarehouse = 'w'\ncredential = '${SECRET}'",
        &["catalogs/c.toml:4: credential is a key of catalogs of type \"rest\"; remove it"],
    );
    catalog(
        "type = 'sql'\nuri = 'mysql://u:${SECRET}@h/d'\nwarehouse = 'ftp://b'\nheader.X = 'y'",
        &[
            "catalogs/c.toml:2: uri has the scheme `mysql`, …",
            "catalogs/c.toml:3: warehouse has the scheme `ftp`, …",
            "catalogs/c.toml:4: unknown key header.X; …",
        ],
    );
    catalog(
        "type = 'sql'\nuri = '${URI}'\nwarehouse = '${file:none}'",
        &[
            "catalogs/c.toml:2: uri refers to ${URI}, but the environment variable URI is not set; …",
            "catalogs/c.toml:3: warehouse refers to the file none, which cannot be read: no such file or directory",
        ],
    );
}

#[test]
fn a_table_property_that_calve_owns() {
    check_toml(
        "[topics.a]\nmessage = 'a.B'\nproperties = { 'calve.ledger' = '{}' }\nsnapshot_properties = { 'total-records' = '1' }\n",
        &[
            "calve.toml:4: topics.a.properties.\"calve.ledger\" is calve's own to set: …",
            "calve.toml:5: topics.a.snapshot_properties.\"total-records\" is calve's own to set: …",
        ],
    );
}

#[test]
fn a_key_is_found_again() {
    let folder = folder(&[(
        "calve.toml",
        "\n[kafka]\nproperties.a.b = 1\n'properties'.'c.d' = 2\n[topics.'x.y']\n\nstart = 'x'\n",
    )]);
    let file = folder.path().join("calve.toml");
    for (path, line) in [
        (&["kafka", "properties", "a.b"][..], Some(3)),
        (&["kafka", "properties", "c.d"], Some(4)),
        (&["topics", "x.y", "start"], Some(7)),
        (&["topics", "x.y"], Some(5)),
        (&["topics", "z"], None),
    ] {
        assert_eq!(locate(&file, path), line, "{path:?}");
    }
}
