//! A catalog that gives the columns ids of its own.

use iceberg::spec::Schema;

use super::super::mapping::Mapping;
use super::evolve::existing;
use super::{OPTIONS, create, proto3, render};

#[test]
fn ids_of_the_catalog() {
    let body = "message M { int32 a = 1; repeated N n = 2; map<string, N> m = 3; } message N { string b = 1; }";
    let mapping = create(&proto3(body), "t.M", &OPTIONS).unwrap();
    let text = serde_json::to_string(&*mapping.iceberg).unwrap();
    // A catalog that counts from 101.
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    shift(&mut json);
    let theirs: Schema = serde_json::from_value(json).unwrap();
    let adopted = mapping.adopt(&theirs).unwrap();
    assert_eq!(adopted.columns, mapping.columns);
    let number = |mapping: &Mapping| render(mapping).replace('#', "");
    let shifted: Vec<String> = number(&adopted).lines().map(str::to_string).collect();
    assert_eq!(shifted.last().map(String::as_str), Some("    b string =3.2.1 110"));
    let evolution = Mapping::evolve(mapping.pool.clone(), mapping.message, &OPTIONS, &existing(&adopted)).unwrap();
    assert!(!evolution.schema_changed && !evolution.column_map_changed);
    let other = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    assert_eq!(
        format!("{:#}", mapping.adopt(&other.iceberg).unwrap_err()),
        "the catalog created other columns than it was asked for: 3 columns where 5 were asked for"
    );
}

fn shift(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match (key.as_str(), value.as_i64()) {
                    ("id" | "element-id" | "key-id" | "value-id", Some(id)) => *value = (id + 100).into(),
                    _ => shift(value),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(shift),
        _ => {}
    }
}
