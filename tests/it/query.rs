//! `tests/slt/*.slt`: SQL over tables and what it answers, in sqllogictest's form.
//!
//! `query` with its columns' types, the SQL, `----`, the rows; `rowsort` sorts both sides. `statement error TEXT`: the
//! SQL is refused with TEXT. Values are separated by bars. Tables come from `append NAMESPACE.TABLE` records, rows of
//! JSON in one commit each; the tables themselves are made below.

use std::path::Path;

use calve::query::one_line;
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, StructType, Type};

use crate::support::lake::{Lake, texts};

fn field(id: i32, name: &str, of: Type) -> NestedFieldRef {
    NestedField::optional(id, name, of).into()
}

fn primitive(id: i32, name: &str, of: PrimitiveType) -> NestedFieldRef {
    field(id, name, Type::Primitive(of))
}

/// One column of every type that calve makes of Protobuf.
fn types() -> Vec<NestedFieldRef> {
    let point = StructType::new(vec![
        primitive(11, "x", PrimitiveType::Int),
        field(12, "in", Type::Struct(StructType::new(vec![primitive(13, "y", PrimitiveType::String)]))),
    ]);
    let key = NestedField::map_key_element(15, Type::Primitive(PrimitiveType::String));
    let value = NestedField::map_value_element(16, Type::Primitive(PrimitiveType::Long), false);
    vec![
        primitive(1, "id", PrimitiveType::Long),
        primitive(2, "flag", PrimitiveType::Boolean),
        primitive(3, "real", PrimitiveType::Double),
        primitive(4, "text", PrimitiveType::String),
        primitive(5, "raw", PrimitiveType::Binary),
        primitive(6, "big", PrimitiveType::Decimal { precision: 20, scale: 0 }),
        primitive(7, "at", PrimitiveType::Timestamptz),
        primitive(8, "day", PrimitiveType::Date),
        field(9, "list", Type::List(ListType::new(primitive(10, "element", PrimitiveType::Int)))),
        field(14, "map", Type::Map(MapType::new(key.into(), value.into()))),
        field(17, "point", Type::Struct(point)),
    ]
}

async fn check(file: &Path) {
    let lake = Lake::new().await;
    lake.create("bronze.types", types()).await;
    lake.create("bronze.empty", types()).await;
    let text = std::fs::read_to_string(file).unwrap();
    let mut checked = 0;
    let mut line = 1;
    for record in text.split("\n\n") {
        let place = format!("{}:{line}", file.display());
        line += record.matches('\n').count() + 2;
        let lines: Vec<&str> = record.lines().filter(|line| !line.starts_with('#')).collect();
        let Some((head, body)) = lines.split_first() else { continue };
        let words: Vec<&str> = head.split_whitespace().collect();
        match words[..] {
            ["append", table] => {
                lake.append(table, &body.join("\n")).await;
            }
            ["query", _, ref options @ ..] => {
                let split = body.iter().position(|line| *line == "----").unwrap_or_else(|| panic!("{place}: no ----"));
                let sql = body[..split].join("\n");
                let mut want: Vec<String> = body[split + 1..].iter().map(|line| (*line).to_owned()).collect();
                let frame =
                    lake.engine.query(&sql).await.unwrap_or_else(|error| panic!("{place}: {}", one_line(&error)));
                let batches = frame.collect().await.unwrap_or_else(|error| panic!("{place}: {}", one_line(&error)));
                let mut have: Vec<String> = batches.iter().flat_map(texts).collect();
                if options.contains(&"rowsort") {
                    want.sort();
                    have.sort();
                }
                assert_eq!(have, want, "{place}: {sql}");
                checked += 1;
            }
            ["statement", "error", ..] => {
                let says = head.trim_start_matches("statement error ").trim();
                let result = async { lake.engine.query(&body.join("\n")).await?.collect().await };
                let error = one_line(&result.await.expect_err(&place));
                assert!(error.contains(says), "{place}: {error}");
                checked += 1;
            }
            _ => panic!("{place}: `{head}` is not a record"),
        }
    }
    assert!(checked > 0, "{} holds no query", file.display());
}

#[tokio::test]
async fn every_answer_of_the_slt_files_is_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        check(&file).await;
    }
}
