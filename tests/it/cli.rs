//! The command line from outside: what goes to stdout and stderr, and exit codes.

use std::path::Path;
use std::process::{Command, Output};

/// Runs calve in a folder, without this process's configuration.
fn calve(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_calve"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("CALVE_CONFIG")
        .env_remove("CALVE_LOG")
        .env_remove("KAFKA_BOOTSTRAP")
        .output()
        .expect("calve runs")
}

/// The exit code, stdout and stderr.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = calve(folder, arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("not killed"), text(output.stdout), text(output.stderr))
}

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, _, errors) = run(folder.path(), &["init"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    folder
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).expect("read");
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replace(from, to)).expect("written");
}

#[test]
fn a_new_project_is_valid_and_says_what_it_makes() {
    let folder = project();
    let (code, out, errors) = run(folder.path(), &["validate"]);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(out.contains("shop.v1.Order") && out.contains("bronze.orders"), "{out}");
    let (code, out, _) = run(folder.path(), &["-o", "json", "validate"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &json["ok"], &json["topics"][0]["table"]), (0, &true.into(), &"bronze.orders".into()));
    assert!(!folder.path().join("warehouse").exists(), "validate makes nothing");
}

#[test]
fn faults_of_every_kind_come_at_once_with_file_and_line() {
    let folder = project();
    edit(folder.path(), "calve.toml", "memory_limit =", "memory_limits =");
    edit(folder.path(), "calve.toml", "day(_kafka.timestamp)", "day(_kafka.offset)");
    edit(folder.path(), "calve.toml", "# \"sasl.mechanism\"", "\"sasl.mechanim\"");
    edit(folder.path(), "catalogs/local.toml", "warehouse = \"warehouse\"", "warehouse = \"${NOWHERE}\"");
    let (code, out, errors) = run(folder.path(), &["validate"]);
    assert_eq!((code, out.as_str()), (2, ""), "{errors}");
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 4, "{errors}");
    for (line, (place, says)) in lines.iter().zip([
        ("calve.toml:9: ", "memory_limit"),
        ("calve.toml:19: ", "sasl.mechanim"),
        ("calve.toml:43: ", "_kafka.offset"),
        ("catalogs/local.toml:13: ", "NOWHERE is not set"),
    ]) {
        assert!(line.starts_with(place) && line.contains(says), "{line}");
    }
    let (code, out, _) = run(folder.path(), &["-o", "json", "validate"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, json["faults"].as_array().map(Vec::len)), (2, Some(4)));
    assert_eq!(json["faults"][0]["line"], 9);
}

#[test]
fn schemas_that_do_not_compile_or_cannot_be_tables_are_refused() {
    let folder = project();
    edit(folder.path(), "proto/shop/v1/money.proto", "int64 units = 2;", "int64 units = 1;");
    let (code, _, errors) = run(folder.path(), &["validate"]);
    assert_eq!(code, 2);
    assert!(errors.contains("money.proto:"), "{errors}");
    edit(folder.path(), "proto/shop/v1/money.proto", "int64 units = 1;", "int64 units = 2;\n  int64 Units = 4;");
    let (code, _, errors) = run(folder.path(), &["validate"]);
    assert_eq!(code, 2);
    assert!(errors.starts_with("calve.toml:28: topic orders: ") && errors.contains("Units"), "{errors}");
}

#[test]
fn exit_codes() {
    let folder = project();
    let empty = tempfile::tempdir().expect("a temporary folder");
    for (folder, arguments, code, says) in [
        (folder.path(), &["--version"][..], 0, ""),
        (folder.path(), &["--help"], 0, ""),
        (folder.path(), &["completions", "bash"], 0, ""),
        (folder.path(), &["man"], 0, ""),
        (folder.path(), &["nonsense"], 2, "unrecognized subcommand"),
        (folder.path(), &["validate", "--nonsense"], 2, "unexpected argument"),
        (folder.path(), &["init"], 2, "has calve.toml"),
        (folder.path(), &["schema", "show", "ordrs"], 2, "did you mean `orders`?"),
        (folder.path(), &["ledger", "show", "orders"], 2, "has no namespace"),
        (folder.path(), &["ledger", "show", "bronze.orders"], 1, "bronze.orders"),
        (empty.path(), &["validate"], 2, "calve.toml: cannot be read: no such file or directory"),
        (empty.path(), &["topics"], 2, "calve.toml: cannot be read"),
        (empty.path(), &["-c", "elsewhere/calve.toml", "validate"], 2, "elsewhere/calve.toml: cannot be read"),
    ] {
        let (got, out, errors) = run(folder, arguments);
        assert_eq!(got, code, "{arguments:?}\n{out}\n{errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
        assert_eq!(out.is_empty(), code != 0, "{arguments:?}: {out}");
        assert!(!errors.contains("panicked") && !errors.contains("stack backtrace"), "{errors}");
    }
}

#[test]
fn schema_show_tells_fields_and_ids_and_speaks_sql() {
    let folder = project();
    let (code, out, errors) = run(folder.path(), &["-o", "json", "schema", "show", "orders"]);
    assert_eq!(code, 0, "{errors}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let columns = json["columns"].as_array().expect("columns");
    let city = columns.iter().find(|column| column["column"] == "customer.address.city").expect("nested");
    assert_eq!((&city["field"], &city["type"]), (&"4.4.2".into(), &"string".into()));
    assert_eq!(json["table_exists"], false);
    for (engine, says) in
        [("trino", "timestamp(6) with time zone"), ("spark", "USING iceberg"), ("snowflake", "ICEBERG TABLE")]
    {
        let (code, out, _) = run(folder.path(), &["schema", "show", "orders", "--ddl", engine]);
        assert!(code == 0 && out.to_lowercase().contains(&says.to_lowercase()), "{engine}: {out}");
    }
}

#[test]
fn without_a_broker_topics_say_so_and_fail() {
    let folder = project();
    // A port that nothing listens on.
    edit(folder.path(), "calve.toml", "${KAFKA_BOOTSTRAP:-127.0.0.1:9092}", "127.0.0.1:1");
    let (code, out, errors) = run(folder.path(), &["-o", "json", "status"]);
    assert_eq!(code, 1, "{errors}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&json["daemon"], &json["topics"][0]["state"]), (&serde_json::Value::Null, &"unknown".into()));
    let reason = json["topics"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("127.0.0.1:1"), "{reason}");
    let (code, _, errors) = run(folder.path(), &["validate", "--connect"]);
    assert_eq!(code, 2);
    let fault = errors.lines().find(|line| line.starts_with("calve.toml:13: ")).expect("the fault");
    assert!(fault.contains("127.0.0.1:1"), "{errors}");
}
