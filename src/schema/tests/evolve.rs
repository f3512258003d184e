//! A message that has changed against the table of what it was.

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};

use super::super::column_map::ColumnMap;
use super::super::evolve::{Existing, compare};
use super::super::mapping::{Column, Leaf, Mapping, Options, Shape};
use super::{OPTIONS, check, compile, create, options, proto3, render};
use crate::config::OnIncompatible;

pub(super) const NEW_COLUMN: Options = options(OnIncompatible::NewColumn, false);
const NAMED: Options = options(OnIncompatible::Halt, true);

pub(super) fn existing(mapping: &Mapping) -> Existing {
    Existing {
        schema: mapping.iceberg.clone(),
        column_map: mapping.column_map.clone(),
        last_column_id: mapping.iceberg.highest_field_id(),
        message: mapping.pool.message(mapping.message).full_name.clone(),
        written: None,
    }
}

/// The changes, then the columns if there is a mapping; and a second look must find nothing left to do.
pub(super) fn evolve(table: &Existing, body: &str, options: &Options) -> (String, Option<Existing>) {
    let pool = proto3(body);
    let id = pool.find("t.M").unwrap();
    let comparison = compare(pool.clone(), id, options, table);
    let mut text: String = comparison
        .changes
        .iter()
        .map(|change| format!("{} {}: {}\n", change.verdict.as_str(), change.path, change.what))
        .collect();
    let Some(evolution) = comparison.evolution else { return (text, None) };
    let mapping = &evolution.mapping;
    text.push_str(&render(mapping));
    assert_eq!(evolution.schema_changed, mapping.iceberg != table.schema);
    assert_eq!(evolution.column_map_changed, mapping.column_map != table.column_map);
    let names: Vec<&str> = mapping.arrow.fields().iter().map(|field| field.name().as_str()).collect();
    let columns: Vec<&str> = mapping.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, [&columns[..], &["_kafka", "_raw"]].concat());
    let after = existing(mapping);
    let again = Mapping::evolve(pool, id, options, &after).unwrap();
    assert!(!again.schema_changed && !again.column_map_changed, "{:?}", again.changes);
    assert_eq!(again.mapping.columns, mapping.columns);
    (text, Some(after))
}

#[track_caller]
fn check_evolution(before: &str, after: &str, options: &Options, expected: &str) {
    let table = existing(&create(&proto3(before), "t.M", options).unwrap());
    check(&evolve(&table, after, options).0, expected);
}

#[test]
fn nothing_changes() {
    let body = "message M { int32 a = 1; repeated N n = 2; map<int32, N> m = 3; } message N { string b = 1; E e = 2; } message E {}";
    let mapping = create(&proto3(body), "t.M", &OPTIONS).unwrap();
    let evolution = Mapping::evolve(mapping.pool.clone(), mapping.message, &OPTIONS, &existing(&mapping)).unwrap();
    assert!(!evolution.schema_changed && !evolution.column_map_changed);
    assert_eq!(evolution.changes, []);
    assert_eq!(evolution.mapping.columns, mapping.columns);
    assert_eq!(evolution.mapping.arrow, mapping.arrow);
}

#[test]
fn added_where_it_is_declared() {
    check_evolution(
        "message M { int32 a = 1; N n = 2; repeated N list = 4; } message N { int32 x = 1; }",
        "message M { int32 first = 9; int32 a = 1; Sub sub = 3; N n = 2; repeated N list = 4; }
         message N { int32 x = 1; int32 y = 2; } message Sub { map<string, bytes> m = 1; }",
        &OPTIONS,
        "
        applied t.M.first: a new column
        applied t.M.sub: a new column
        applied t.M.n.y: a new column
        applied t.M.list.y: a new column
        first int =9 #20
        a int =1 #1
        sub struct =3 #21
          m map =3.1 #22
            key string =3.1.1 #23
            value binary =3.1.2 #24
        n struct =2 #2
          x int =2.1 #6
          y int =2.2 #25
        list list =4 #3
          element struct =- #7
            x int =4.1 #8
            y int =4.2 #26
        ",
    );
}

#[test]
fn renamed_reordered_and_swapped() {
    check_evolution(
        "message M { int32 a = 1; int32 b = 2; N n = 3; } message N { int32 x = 1; int32 y = 2; }",
        "message M { O other = 3; optional int32 b = 1; int32 a = 2; } message O { int32 y = 1; int32 x = 2; }",
        &OPTIONS,
        "
        applied t.M.other.y: the column x is renamed to y
        applied t.M.other.x: the column y is renamed to x
        applied t.M.b: the column a is renamed to b
        applied t.M.a: the column b is renamed to a
        applied t.M.other: the column n is renamed to other
        b int =1 #1
        a int =2 #2
        other struct =3 #3
          y int =3.1 #6
          x int =3.2 #7
        ",
    );
    check_evolution(
        "message M { int32 a = 1; int32 b = 2; }",
        "message M { int32 b = 2; int32 a = 1; }",
        &OPTIONS,
        "
        a int =1 #1
        b int =2 #2
    ",
    );
}

#[test]
fn deleted_and_back_again() {
    let table = existing(
        &create(
            &proto3("message M { int32 a = 1; N n = 2; int32 z = 3; } message N { int32 x = 1; }"),
            "t.M",
            &OPTIONS,
        )
        .unwrap(),
    );
    let (text, table) = evolve(&table, "message M { int32 z = 3; int32 new = 4; }", &OPTIONS);
    check(
        &text,
        "
        applied t.M.new: a new column
        ignored t.M.a: no field fills the column; it stays, null from now on
        ignored t.M.n: no field fills the column; it stays, null from now on
        a int =1 #1
        n struct =2 #2
          x int =2.1 #6
        z int =3 #3
        new int =4 #18
        ",
    );
    let (text, _) = evolve(
        &table.unwrap(),
        "message M { int64 back = 1; N n = 2; int32 z = 3; int32 new = 4; } message N { int32 x = 1; }",
        &OPTIONS,
    );
    check(
        &text,
        "
        applied t.M.back: the column widens from int to long
        applied t.M.back: the column a is renamed to back
        back long =1 #1
        n struct =2 #2
          x int =2.1 #6
        z int =3 #3
        new int =4 #18
        ",
    );
}

#[test]
fn widened() {
    check_evolution(
        "message M { int32 a = 1; repeated sint32 b = 2; map<int32, int32> c = 3; N n = 4; google.protobuf.Int32Value w = 5; } message N { uint32 x = 1; }",
        "message M { int64 a = 1; repeated sint64 b = 2; map<int32, int64> c = 3; N n = 4; google.protobuf.Int64Value w = 5; } message N { int64 x = 1; }",
        &OPTIONS,
        "
        applied t.M.a: the column widens from int to long
        applied t.M.b: the column widens from int to long
        applied t.M.c: the column widens from int to long
        applied t.M.w: the column widens from int to long
        a long =1 #1
        b list =2 #2
          element long =- #8
        c map =3 #3
          key int =3.1 #9
          value long =3.2 #10
        n struct =4 #4
          x long =4.1 #11
        w long =5 #5
        ",
    );
}

#[test]
fn enum_values_and_oneofs() {
    check_evolution(
        "message M { E e = 1; int32 a = 2; oneof pick { int32 b = 3; } } enum E { ZERO = 0; }",
        "message M { F e = 1; oneof pick { int32 a = 2; } int32 b = 3; } enum F { NULL = 0; ONE = 1; }",
        &OPTIONS,
        "
        e string =1 #1
        a int =2 #2
        b int =3 #3
        ",
    );
}

#[test]
fn refused() {
    let hint = "; undo the change, give the field another number, or set on_incompatible = \"new_column\"";
    check_evolution(
        "message M { int64 a = 1; int32 b = 2; int32 c = 3; N d = 4; map<int32, int32> e = 5; N n = 6; string f = 7; repeated int32 g = 8; } message N { int32 x = 1; }",
        "message M { int32 a = 1; string b = 2; repeated int32 c = 3; int32 d = 4; map<int64, int32> e = 5; N n = 6; N f = 7; map<int32, int32> g = 8; } message N { bool x = 1; }",
        &OPTIONS,
        &[
            "refused t.M.a: the field's column type is int, the table's column is long",
            "refused t.M.b: the field's column type is string, the table's column is int",
            "refused t.M.c: the field is repeated, its column is int",
            "refused t.M.d: the field is int, its column is a struct",
            "refused t.M.e: the field's column type is long, the table's column is int",
            "refused t.M.n.x: the field's column type is boolean, the table's column is int",
            "refused t.M.f: the field is a message, its column is string",
            "refused t.M.g: the field is a map, its column is a list",
        ]
        .map(|line| format!("{line}{hint}\n"))
        .concat(),
    );
}

#[test]
fn a_new_wire_type_under_the_old_column() {
    let before = "message M { int32 a = 1; int64 b = 2; float c = 3; E d = 4; fixed32 e = 5; repeated int32 f = 6; map<int32, bool> g = 7; } enum E { ZERO = 0; }";
    let after = "message M { sint32 a = 1; sfixed64 b = 2; double c = 3; string d = 4; int64 e = 5; repeated sint32 f = 6; map<sint32, bool> g = 7; }";
    check_evolution(
        before,
        after,
        &NAMED,
        "
        applied t.M.a: int32 becomes sint32, each record read with its own schema
        applied t.M.b: int64 becomes sfixed64, each record read with its own schema
        applied t.M.c: the column widens from float to double
        applied t.M.d: enum becomes string, each record read with its own schema
        applied t.M.e: fixed32 becomes int64, each record read with its own schema
        applied t.M.f: int32 becomes sint32, each record read with its own schema
        applied t.M.g: int32 becomes sint32, each record read with its own schema
        a int =1 #1
        b long =2 #2
        c double =3 #3
        d string =4 #4
        e long =5 #5
        f list =6 #6
          element int =- #10
        g map =7 #7
          key int =7.1 #11
          value boolean =7.2 #12
        ",
    );
    let table = existing(&create(&proto3(before), "t.M", &OPTIONS).unwrap());
    let (text, after) = evolve(&table, after, &OPTIONS);
    assert!(after.is_none());
    let told: Vec<&str> = text.lines().filter_map(|line| line.split(": the column type would do").next()).collect();
    let fields = [
        "a: the field was int32 and is sint32",
        "b: the field was int64 and is sfixed64",
        "c: the field was float and is double",
        "d: the field was enum and is string",
        "e: the field was fixed32 and is int64",
        "f: the field was int32 and is sint32",
        "g: the field was int32 and is sint32",
    ];
    assert_eq!(told, fields.map(|field| format!("refused t.M.{field}")));
}

#[test]
fn a_new_column_takes_over() {
    let table = existing(&create(&proto3("message M { int32 price = 1; N n = 2; int32 z = 3; int32 price_2 = 4; } message N { N2 n = 1; } message N2 { int32 x = 1; }"), "t.M", &NEW_COLUMN).unwrap());
    let (text, table) = evolve(
        &table,
        "message M { string price = 1; N n = 2; int32 z = 3; int32 price_2 = 4; } message N { repeated N2 n = 1; } message N2 { int32 x = 1; }",
        &NEW_COLUMN,
    );
    check(
        &text,
        "
        applied t.M.price: the field's column type is string, the table's column is int; a new column takes over from price
        applied t.M.n.n: the field is repeated, its column is a struct; a new column takes over from n
        ignored t.M.n.n: no field fills the column; it stays, null from now on
        ignored t.M.price: no field fills the column; it stays, null from now on
        price int =- #1
        price_3 string =1 #20
        n struct =2 #2
          n struct =- #7
            x int =- #8
          n_2 list =2.1 #21
            element struct =- #22
              x int =2.1.1 #23
        z int =3 #3
        price_2 int =4 #4
        ",
    );
    // Renamed under its new column, then changed again.
    let (text, table) =
        evolve(&table.unwrap(), "message M { string cost = 1; int32 z = 3; int32 price_2 = 4; }", &NEW_COLUMN);
    assert!(text.contains("applied t.M.cost: the column price_3 is renamed to cost\n"), "{text}");
    let (text, _) =
        evolve(&table.unwrap(), "message M { bool cost = 1; int32 z = 3; int32 price_2 = 4; }", &NEW_COLUMN);
    assert!(text.contains("cost_2 boolean =1 #24\n"), "{text}");
}

#[test]
fn the_name_of_a_deleted_field() {
    let before = "message M { int32 a = 1; int32 b = 2; }";
    let after = "message M { string A = 3; int32 b = 2; }";
    check_evolution(
        before,
        after,
        &OPTIONS,
        "
        applied t.M.A: a new column
        refused t.M.A: the name A is taken by another column: its field is gone, or somebody else added it or named it so; give the field another name, or set on_incompatible = \"new_column\"
        ignored t.M.a: no field fills the column; it stays, null from now on
        ",
    );
    check_evolution(
        before,
        after,
        &NEW_COLUMN,
        "
        applied t.M.A: a new column
        ignored t.M.a: no field fills the column; it stays, null from now on
        A_2 string =3 #16
        a int =1 #1
        b int =2 #2
        ",
    );
}

#[test]
fn presence_of_an_empty_message_survives() {
    check_evolution(
        "message M { E e = 1; F f = 2; } message E {} message F { int32 x = 1; }",
        "message M { E e = 1; F f = 2; } message E { int32 y = 1; } message F {}",
        &OPTIONS,
        "
        applied t.M.e.y: a new column
        ignored t.M.f.x: no field fills the column; it stays, null from now on
        e struct =1 #1
          _present boolean =1.0 #5
          y int =1.1 #18
        f struct =2 #2
          x int =2.1 #6
        ",
    );
    let table = existing(&create(&proto3("message M {}"), "t.M", &OPTIONS).unwrap());
    let (text, _) = evolve(&table, "message M { int32 a = 1; }", &OPTIONS);
    check(&text, "applied t.M.a: a new column\n_present boolean =0 #1\na int =1 #15");
}

/// The table as somebody else left it: each column of its top level changed, or dropped where `change` says none.
pub(super) fn changed_by_others(table: &Existing, change: impl Fn(NestedField) -> Option<NestedField>) -> Existing {
    let fields = table.schema.as_struct().fields().iter();
    let fields: Vec<_> = fields.filter_map(|field| change(NestedField::clone(field))).map(Arc::new).collect();
    let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
    Existing { schema, written: Some(table.schema.clone()), ..table.clone() }
}

#[test]
fn a_column_that_others_added_stays_and_is_null() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let mut fields = mapping.iceberg.as_struct().fields().to_vec();
    fields.push(Arc::new(NestedField::optional(90, "foreign", Type::Primitive(PrimitiveType::Date))));
    let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
    let table = Existing { schema, last_column_id: 90, ..existing(&mapping) };
    let (text, after) = evolve(&table, "message M { int32 a = 1; int32 b = 2; }", &OPTIONS);
    check(
        &text,
        "
        applied t.M.b: a new column
        ignored t.M.foreign: no field fills the column; it stays, null from now on
        a int =1 #1
        b int =2 #91
        foreign date =- #90
        ",
    );
    let pool = proto3("message M { int32 a = 1; int32 b = 2; }");
    let again = Mapping::evolve(pool.clone(), pool.find("t.M").unwrap(), &OPTIONS, &after.unwrap()).unwrap();
    let retired =
        Column { name: "foreign".into(), number: 0, shape: Shape::Leaf(Leaf::Retired), delimited: false, doc: None };
    assert_eq!(again.mapping.columns[2], retired);
    // A field that comes to be called like it.
    let (text, _) = evolve(&table, "message M { int32 a = 1; string foreign = 3; }", &OPTIONS);
    assert!(text.contains("refused t.M.foreign: the name foreign is taken by another column: its field is gone, or somebody else added it"), "{text}");
    let (text, _) = evolve(&table, "message M { int32 a = 1; string foreign = 3; }", &NEW_COLUMN);
    assert!(text.contains("foreign_2 string =3 #91") && text.contains("foreign date =- #90"), "{text}");
}

#[test]
fn a_column_that_others_dropped_is_refused_unless_no_field_fills_it() {
    let body = "message M { int32 a = 1; N n = 2; } message N { int32 x = 1; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let dropped = changed_by_others(&table, |field| (field.name != "n").then_some(field));
    let (text, _) = evolve(&dropped, body, &OPTIONS);
    check(
        &text,
        "refused t.M.n: somebody else dropped its column (field id 2) from the table; leave the field out with `exclude`, or have a new column for it with on_incompatible = \"new_column\"",
    );
    let (text, _) = evolve(&dropped, body, &NEW_COLUMN);
    check(&text, "applied t.M.n: a new column\na int =1 #1\nn struct =2 #17\n  x int =2.1 #18");
    // Nobody misses it; should the field come back, it is a new one.
    let (text, after) = evolve(&dropped, "message M { int32 a = 1; }", &OPTIONS);
    check(&text, "a int =1 #1");
    let (text, _) = evolve(&after.unwrap(), body, &OPTIONS);
    check(&text, "applied t.M.n: a new column\na int =1 #1\nn struct =2 #17\n  x int =2.1 #18");
}

#[test]
fn a_column_that_others_renamed_keeps_that_name_until_the_fields_changes() {
    let body = "message M { int32 a = 1; int32 b = 2; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let renamed = changed_by_others(&table, |field| {
        let name = if field.name == "a" { "amount".to_string() } else { field.name.clone() };
        Some(NestedField { name, ..field })
    });
    let (text, after) = evolve(&renamed, body, &OPTIONS);
    check(&text, "amount int =1 #1\nb int =2 #2");
    // What calve wrote since has that name too; only the field's own change is one.
    let after = after.unwrap();
    let after = Existing { written: Some(after.schema.clone()), ..after };
    check(&evolve(&after, body, &OPTIONS).0, "amount int =1 #1\nb int =2 #2");
    let kept = ColumnMap::from_json(&after.column_map.to_json()).unwrap();
    assert_eq!(kept, after.column_map);
    let (text, _) = evolve(&after, "message M { int32 total = 1; int32 b = 2; }", &OPTIONS);
    check(&text, "applied t.M.total: the column amount is renamed to total\ntotal int =1 #1\nb int =2 #2");
}

#[test]
fn a_column_that_others_widened_stays_wide_and_a_required_one_is_refused() {
    let body = "message M { int32 a = 1; float f = 2; uint64 u = 3; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let widened = changed_by_others(&table, |mut field| {
        let wide = match field.name.as_str() {
            "a" => PrimitiveType::Long,
            "f" => PrimitiveType::Double,
            "u" => PrimitiveType::Decimal { precision: 38, scale: 0 },
            _ => return Some(field),
        };
        field.field_type = Box::new(Type::Primitive(wide));
        Some(field)
    });
    let (text, after) = evolve(&widened, body, &OPTIONS);
    check(&text, "a long =1 #1\nf double =2 #2\nu decimal(38, 0) =3 #3");
    // A field that was wide and is narrow now is another matter.
    let (_, after) = evolve(&after.unwrap(), "message M { int64 a = 1; float f = 2; uint64 u = 3; }", &OPTIONS);
    let (text, _) = evolve(&after.unwrap(), body, &OPTIONS);
    assert!(text.contains("refused t.M.a: the field's column type is int, the table's column is long"), "{text}");

    let required = changed_by_others(&table, |field| Some(NestedField { required: field.name == "f", ..field }));
    let (text, _) = evolve(&required, body, &OPTIONS);
    assert!(text.starts_with("refused t.M.f: the table's column is required (NOT NULL)"), "{text}");
}

#[test]
fn a_table_without_our_own_columns_is_none_of_ours() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let table = changed_by_others(&existing(&mapping), |field| (field.name != "_raw").then_some(field));
    let (text, _) = evolve(&table, "message M { int32 a = 1; }", &OPTIONS);
    check(&text, "refused t.M: the table has no column _raw; calve cannot write to it without");
}

#[test]
fn the_table_of_another_message() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let table = Existing { message: "t.Other".to_string(), ..existing(&mapping) };
    let faults = Mapping::evolve(mapping.pool.clone(), mapping.message, &OPTIONS, &table).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "t.M: the table holds t.Other; a topic's table is for one message, name another table"
    );
}

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

#[test]
fn extensions_of_a_second_file() {
    let own = "syntax = \"proto2\"; package t;
               message M { optional int32 a = 1; extensions 100 to 200; }
               extend M { optional int32 last = 150; }";
    let more = "syntax = \"proto2\"; package u; import \"t.proto\";
                extend t.M { optional string note = 120; repeated t.M ms = 160; }";
    let before = create(&compile(&[("t.proto", own)]).unwrap(), "t.M", &OPTIONS).unwrap();
    let pool = compile(&[("t.proto", own), ("u.proto", more)]).unwrap();
    let comparison = compare(pool.clone(), pool.find("t.M").unwrap(), &OPTIONS, &existing(&before));
    let changes: Vec<&str> = comparison.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changes, ["t.M.u_note", "t.M.u_ms"]);
    check(
        &render(&comparison.evolution.unwrap().mapping),
        "
        a int =1 #1
        u_note string =120 #16
        t_last int =150 #2
        u_ms list =160 #17
          element string =- #18
        ",
    );
}

#[test]
fn json_and_structs_are_two_types() {
    let body = "message M { A a = 1; repeated A as = 2; string s = 3; google.protobuf.StringValue w = 4; }
                message A { int32 n = 1; B b = 2; } message B { int32 m = 1; }";
    let verdicts = |before: &Options, after: &Options, new: &str| {
        let table = existing(&create(&proto3(body), "t.M", before).unwrap());
        let pool = proto3(new);
        let comparison = compare(pool.clone(), pool.find("t.M").unwrap(), after, &table);
        comparison.changes.iter().map(|change| format!("{}: {}\n", change.path, change.what)).collect::<String>()
    };
    let below = |depth| Options { json_below: Some(depth), ..OPTIONS };
    assert_eq!(verdicts(&below(1), &below(1), body), "");
    let undo = "undo the change, give the field another number, or set on_incompatible = \"new_column\"";
    let text = "JSON text (json, json_below, or a message inside itself)";
    check(
        &verdicts(&OPTIONS, &below(1), body),
        &format!(
            "t.M.a: the field is {text}, its column is a struct; {undo}\nt.M.as: the field is {text}, its column is a struct; {undo}"
        ),
    );
    check(
        &verdicts(&below(1), &below(2), body),
        &format!(
            "t.M.a: the field is a message, its column is string; {undo}\nt.M.as: the field is a message, its column is string; {undo}"
        ),
    );
    // One column type, and still not one text: whatever records name.
    let named = Options { json_below: Some(1), ..NAMED };
    let swapped = body.replace("string s = 3; google.protobuf.StringValue w = 4;", "A s = 3; A w = 4;");
    let swapped = swapped.replace("A a = 1;", "string a = 1;");
    check(
        &verdicts(&below(1), &named, &swapped),
        &format!(
            "t.M.a: the column held JSON text of a message and the field is string; {undo}
            t.M.s: the column held string and the field is JSON text of a message; {undo}
            t.M.w: the column held google.protobuf.StringValue and the field is JSON text of a message; {undo}"
        )
        .replace("\n            ", "\n"),
    );
    // A Struct's text is not another message's.
    let structs = body.replace("A a = 1;", "google.protobuf.Struct a = 1;");
    assert!(verdicts(&below(1), &below(1), &structs).contains("the field was json and is google.protobuf.Struct"));
}

#[test]
fn groups_and_length_prefixed_messages() {
    let body = |field: &str| {
        let source =
            format!("syntax = \"proto2\"; package t; message M {{ {field} }} message A {{ optional int32 x = 1; }}");
        compile(&[("t.proto", &source)]).unwrap()
    };
    let table = existing(&create(&body("optional group A2 = 1 { optional int32 x = 1; }"), "t.M", &OPTIONS).unwrap());
    let verdict = |options: &Options, field: &str| {
        let pool = body(field);
        let comparison = compare(pool.clone(), pool.find("t.M").unwrap(), options, &table);
        (comparison.changes.iter().map(|change| change.what.clone()).collect::<String>(), comparison.evolution)
    };
    let (same, evolution) = verdict(&OPTIONS, "optional group A2 = 1 { optional int32 x = 1; }");
    assert_eq!(same, "");
    assert!(!evolution.unwrap().column_map_changed);
    let (refused, none) = verdict(&OPTIONS, "optional A a2 = 1;");
    assert!(
        refused.starts_with(
            "the message was a group (delimited encoding) and is length-prefixed: records do not name their schema"
        ),
        "{refused}"
    );
    assert!(none.is_none());
    let (applied, evolution) = verdict(&NAMED, "optional A a2 = 1;");
    assert_eq!(
        applied,
        "the message was a group (delimited encoding) and is length-prefixed, each record read with its own schema"
    );
    assert!(evolution.unwrap().column_map_changed);
}
