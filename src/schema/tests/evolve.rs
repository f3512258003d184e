//! A message that has changed against the table of what it was: fields that come, go, move and change their names.

use super::super::evolve::{Existing, compare};
use super::super::mapping::{Mapping, Options};
use super::{OPTIONS, check, compile, create, options, proto3, render};
use crate::config::OnIncompatible;

pub(super) const NEW_COLUMN: Options = options(OnIncompatible::NewColumn, false);

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
pub(super) fn check_evolution(before: &str, after: &str, options: &Options, expected: &str) {
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
