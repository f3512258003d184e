//! Reading schemas: where errors point, and that no file makes us panic.

use std::fs;

use super::super::model::{Cardinality, Kind, Presence};
use super::super::{protos, resolve};
use super::compile;

#[test]
fn errors_have_file_and_line() {
    let check = |source: &str, expected: &str| {
        let error = compile(&[("shop/a.proto", source)]).unwrap_err();
        let text = format!("{error:#}");
        let place = text.find("shop/a.proto").map(|at| &text[at..]);
        assert_eq!(place, Some(expected), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    };
    check("syntax = \"proto3\";\nmessage M {\n  Other x = 1;\n}\n", "shop/a.proto:3:3: name 'Other' is not defined");
    check(
        "syntax = \"proto3\";\nmessage M {\n  int32 x = ;\n}\n",
        "shop/a.proto:3:13: expected an integer, but found ';'",
    );
    check("syntax = \"proto3\";\nimport \"b.proto\";\n", "shop/a.proto:2:1: import 'b.proto' not found");
}

#[test]
fn an_empty_folder_is_an_error() {
    let error = compile(&[("read.me", "")]).unwrap_err();
    assert!(format!("{error:#}").ends_with("no .proto file in this folder or below it"), "{error:#}");
}

#[test]
fn presence_packing_and_openness() {
    let pool = compile(&[
        (
            "two.proto",
            "syntax = \"proto2\"; package t; enum Closed { A = 1; B = 1; option allow_alias = true; }
             message Two { required int32 a = 1; optional int32 b = 2; repeated int32 c = 3; repeated int32 d = 4 [packed = true]; }",
        ),
        (
            "three.proto",
            "syntax = \"proto3\"; package t; import \"two.proto\"; enum Open { ZERO = 0; }
             message Three {
               int32 a = 1; optional int32 b = 2; repeated int32 c = 3; repeated int32 d = 4 [packed = false];
               oneof pick { int32 e = 5; string f = 6; } optional string g = 7; Two h = 8; map<int64, Open> i = 9;
             }",
        ),
    ])
    .unwrap();
    let two = pool.message(pool.find("t.Two").unwrap());
    let three = pool.message(pool.find(".t.Three").unwrap());
    let presence = |message: &super::super::model::Message| -> Vec<Cardinality> {
        message.fields.iter().map(|field| field.cardinality).collect()
    };
    let (implicit, explicit) = (Cardinality::Singular(Presence::Implicit), Cardinality::Singular(Presence::Explicit));
    let required = Cardinality::Singular(Presence::Required);
    let map = Cardinality::Map { key: Kind::Int64 };
    let repeated = Cardinality::Repeated;
    assert_eq!(presence(two), [required, explicit, repeated, repeated]);
    assert_eq!(presence(three), [implicit, explicit, repeated, repeated, explicit, explicit, explicit, explicit, map]);
    assert_eq!(two.fields.iter().map(|field| field.packed).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!([three.fields[2].packed, three.fields[3].packed], [true, false]);
    // Synthetic oneofs are gone; the one that was declared keeps its members.
    assert_eq!(three.oneofs.iter().map(|oneof| oneof.name.as_str()).collect::<Vec<_>>(), ["pick"]);
    let members: Vec<Option<usize>> = three.fields.iter().map(|field| field.oneof).collect();
    assert_eq!(members, [None, None, None, None, Some(0), Some(0), None, None, None]);
    let openness: Vec<(&str, bool)> =
        pool.enums.iter().filter(|e| e.full_name.starts_with("t.")).map(|e| (e.full_name.as_str(), e.closed)).collect();
    assert!(openness.contains(&("t.Closed", true)) && openness.contains(&("t.Open", false)), "{openness:?}");
}

#[test]
fn extensions_come_after_the_fields_by_number() {
    let pool = compile(&[
        ("a.proto", "syntax = \"proto2\"; package t; message M { optional int32 z = 9; extensions 100 to 200; }"),
        (
            "b.proto",
            "syntax = \"proto2\"; package u; import \"a.proto\"; extend t.M { optional int32 late = 120; }
                     message Scope { extend t.M { repeated string early = 101; } }",
        ),
    ])
    .unwrap();
    let names: Vec<(&str, bool)> = pool
        .message(pool.find("t.M").unwrap())
        .fields
        .iter()
        .map(|field| (field.name.as_str(), field.extension))
        .collect();
    assert_eq!(names, [("z", false), ("u.Scope.early", true), ("u.late", true)]);
}

#[test]
fn a_descriptor_set_must_hold_its_imports() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.proto"), "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message M { google.protobuf.Timestamp t = 1; }").unwrap();
    let bytes = protos::compile(folder.path()).unwrap();
    resolve::pool(&bytes).unwrap();
    // The first file of the set is the import; what is left is the second alone.
    let (tag, length) = (bytes[0], usize::from(bytes[1] & 0x7f) | usize::from(bytes[2]) << 7);
    assert_eq!(tag, 0x0a);
    let error = resolve::pool(&bytes[3 + length..]).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "a.proto: its import \"google/protobuf/timestamp.proto\" is not in the descriptor set; make the set with its imports (protoc: --include_imports)"
    );
}
