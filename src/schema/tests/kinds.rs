//! Fields of another kind than their columns hold: widened, refused, or each record read with its own schema.

use super::super::evolve::compare;
use super::super::mapping::Options;
use super::evolve::{check_evolution, evolve, existing};
use super::{OPTIONS, check, compile, create, options, proto3};
use crate::config::OnIncompatible;

const NAMED: Options = options(OnIncompatible::Halt, true);

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
