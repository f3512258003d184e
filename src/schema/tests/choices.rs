//! What schemas and calve.toml say of columns: the columns that come of it, and what is wrong with it.

use std::sync::Arc;

use super::super::column_map::ColumnMap;
use super::super::evolve::{Existing, compare};
use super::super::mapping::Options;
use super::super::model::Pool;
use super::{OPTIONS, check, compile, create, faults, proto3, render};
use crate::config::{ColumnOptions, ColumnType};

/// A file in package `t` that imports calve's options.
fn annotated(body: &str) -> Arc<Pool> {
    let imports =
        ["calve/v1/options", "google/protobuf/duration", "google/protobuf/timestamp", "google/protobuf/wrappers"];
    let imports: String = imports.map(|name| format!("import \"{name}.proto\";\n")).concat();
    compile(&[("t.proto", &format!("syntax = \"proto3\"; package t; {imports} {body}"))])
        .unwrap_or_else(|e| panic!("{e:#}\n{body}"))
}

fn typed(kind: ColumnType) -> ColumnOptions {
    ColumnOptions { kind: Some(kind), ..ColumnOptions::default() }
}

fn excluded(exclude: bool) -> ColumnOptions {
    ColumnOptions { exclude: Some(exclude), ..ColumnOptions::default() }
}

fn case(case_column: bool) -> ColumnOptions {
    ColumnOptions { case_column: Some(case_column), ..ColumnOptions::default() }
}

fn columns<'a>(columns: impl IntoIterator<Item = (&'a str, ColumnOptions)>) -> Options {
    let columns = columns.into_iter().map(|(path, options)| (path.to_string(), options));
    Options { columns: columns.collect(), ..OPTIONS }
}

fn include(include: &[&str], exclude: &[&str]) -> Options {
    let texts = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect();
    Options { include: texts(include), exclude: texts(exclude), ..OPTIONS }
}

const TYPES: &str = "
    enum E { ZERO = 0; }
    message M {
      uint64 a = 1 [(calve.v1.column).type = LONG];
      repeated fixed64 b = 2 [(calve.v1.column).type = LONG];
      map<uint64, uint64> c = 3 [(calve.v1.column).type = LONG];
      google.protobuf.UInt64Value d = 4 [(calve.v1.column).type = LONG];
      E e = 5 [(calve.v1.column).type = INT];
      google.protobuf.Timestamp f = 6 [(calve.v1.column).type = LONG];
      google.protobuf.Timestamp g = 7 [(calve.v1.column).type = MILLIS];
      google.protobuf.Duration h = 8 [(calve.v1.column).type = LONG];
      google.protobuf.Duration i = 9 [(calve.v1.column).type = MILLIS];
      oneof pick { option (calve.v1.oneof).case_column = true; string x = 10; bytes y = 11; }
      string secret = 12 [(calve.v1.column).exclude = true];
    }";

#[test]
fn types_that_the_schema_chooses() {
    let mapping = create(&annotated(TYPES), "t.M", &OPTIONS).unwrap();
    check(
        &render(&mapping),
        "
        a long =1 #1
        b list =2 #2
          element long =- #15
        c map =3 #3
          key decimal(20, 0) =3.1 #16
          value long =3.2 #17
        d long =4 #4
        e int =5 #5
        f long =6 #6
        g long =7 #7
        h long =8 #8
        i long =9 #9
        x string =10 #10
        y binary =11 #11
        pick_case string =536870922 #12
        ",
    );
    let doc = |name: &str| {
        let field = mapping.iceberg.field_by_name(name).unwrap();
        field.doc.clone().unwrap_or_default()
    };
    assert_eq!(doc("f"), "microseconds since 1970-01-01T00:00:00Z");
    assert_eq!(doc("g"), "milliseconds since 1970-01-01T00:00:00Z");
    assert_eq!(doc("i"), "duration in milliseconds");
    assert_eq!(doc("pick_case"), "the member of pick that is set");
}

#[test]
fn the_configuration_wins_over_the_schema() {
    let options = columns([
        ("a", typed(ColumnType::Default)),
        ("g", typed(ColumnType::Long)),
        ("pick", case(false)),
        ("secret", excluded(false)),
        ("b", excluded(true)),
    ]);
    let options = Options { exclude: ["c", "d", "e", "f", "h", "i"].map(str::to_string).into(), ..options };
    check(
        &render(&create(&annotated(TYPES), "t.M", &options).unwrap()),
        "
        a decimal(20, 0) =1 #1
        g long =7 #2
        x string =10 #3
        y binary =11 #4
        secret string =12 #5
        ",
    );
}

const NESTED: &str = "
    message M { A a = 1; repeated A list = 2; map<string, A> map = 3; string z = 4; }
    message A { B b = 1; uint64 n = 2; oneof pick { int32 x = 3; int32 y = 4; } }
    message B { uint64 p = 1; uint64 q = 2; }";

#[test]
fn a_path_is_one_place_of_many() {
    let long = ColumnType::Long;
    let options = columns([("a.b.p", typed(long)), ("list.n", typed(long)), ("map.pick", case(true))]);
    let options = Options { exclude: ["a.n", "list.b", "list.pick", "map.b"].map(str::to_string).into(), ..options };
    let pool = proto3(NESTED);
    check(
        &faults(create(&pool, "t.M", &options)),
        "exclude \"list.pick\": is a oneof, which is no column; name its members",
    );
    let exclude = ["a.n", "list.b", "list.x", "map.b.p", "map.b.q"].map(str::to_string).into();
    let mapping = create(&pool, "t.M", &Options { exclude, ..options }).unwrap();
    check(
        &render(&mapping),
        "
        a struct =1 #1
          b struct =1.1 #7
            p long =1.1.1 #10
            q decimal(20, 0) =1.1.2 #11
          x int =1.3 #8
          y int =1.4 #9
        list list =2 #2
          element struct =- #12
            n long =2.2 #13
            y int =2.4 #14
        map map =3 #3
          key string =3.1 #15
          value struct =3.2 #16
            b struct =3.2.1 #17
              _present boolean =3.2.1.0 #22
            n decimal(20, 0) =3.2.2 #18
            x int =3.2.3 #19
            y int =3.2.4 #20
            pick_case string =3.2.536870915 #21
        z string =4 #4
        ",
    );
}

#[test]
fn what_is_included() {
    let pool = proto3(NESTED);
    let shown = |options: Options| render(&create(&pool, "t.M", &options).unwrap());
    check(
        &shown(include(&["a.b.q", "z"], &[])),
        "
        a struct =1 #1
          b struct =1.1 #5
            q decimal(20, 0) =1.1.2 #6
        z string =4 #2
        ",
    );
    check(
        &shown(include(&["a", "a.n"], &["a.b"])),
        "
        a struct =1 #1
          n decimal(20, 0) =1.2 #4
          x int =1.3 #5
          y int =1.4 #6
        ",
    );
    // Among included columns a case column stands beside a member, or where calve.toml asks for it.
    let annotated = annotated(
        "message M { oneof pick { option (calve.v1.oneof).case_column = true; int32 x = 1; int32 y = 2; } int32 z = 3; }",
    );
    let shown = |options: Options| render(&create(&annotated, "t.M", &options).unwrap());
    check(&shown(include(&["z"], &[])), "z int =3 #1");
    check(&shown(include(&["y"], &[])), "y int =2 #1\npick_case string =536870913 #2");
    let asked = Options { columns: columns([("pick", case(true))]).columns, ..include(&["z"], &[]) };
    check(&shown(asked), "pick_case string =536870913 #1\nz int =3 #2");
}

#[test]
fn a_field_left_out_is_not_judged() {
    let pool = proto3("message M { string _raw = 1; string name = 2; string Name = 3; M again = 4; }");
    let options = include(&[], &["_raw", "Name", "again"]);
    check(&render(&create(&pool, "t.M", &options).unwrap()), "name string =2 #1");
}

#[test]
fn paths_and_types_that_do_not_fit() {
    let pool = proto3(
        "message M { A amount = 1; google.protobuf.Timestamp at = 2; string name = 3; E e = 4;
                     oneof pick { int32 x = 5; int32 y = 6; } }
         message A { uint64 units = 1; int32 nanos = 2; }
         enum E { ZERO = 0; }",
    );
    let wrong = columns([
        ("amount.unit", typed(ColumnType::Long)),
        ("amount", typed(ColumnType::Long)),
        ("at", typed(ColumnType::Int)),
        ("at.seconds", excluded(true)),
        ("e", typed(ColumnType::Millis)),
        ("name", case(true)),
        ("pick", excluded(true)),
        ("x", ColumnOptions { exclude: Some(true), ..typed(ColumnType::Int) }),
        ("nothing", excluded(true)),
        ("amount.nanos", typed(ColumnType::Json)),
        ("", excluded(true)),
    ]);
    let result = create(&pool, "t.M", &wrong);
    let keys: Vec<String> = result.as_ref().unwrap_err().iter().map(|fault| fault.key.join("/")).collect();
    assert_eq!(keys[0], "columns/");
    assert_eq!(keys[3], "columns/amount.unit");
    check(
        &faults(result),
        "
        columns \"\": leads nowhere: t.M has no field ; known: amount, at, e, name, pick, x, y
        columns \"amount\": the type long is for uint64, fixed64, google.protobuf.UInt64Value, Timestamp and Duration; the field is t.A
        columns \"amount.nanos\": the type json is for messages; the field is int32
        columns \"amount.unit\": leads nowhere: t.A has no field unit; did you mean `units`?
        columns \"at\": the type int is for enums; the field is google.protobuf.Timestamp
        columns \"at.seconds\": leads nowhere: at is google.protobuf.Timestamp, which is one column
        columns \"e\": the type millis is for google.protobuf.Timestamp and Duration; the field is t.E
        columns \"name\": is a field: case_column is for oneofs
        columns \"nothing\": leads nowhere: t.M has no field nothing; known: amount, at, e, name, pick, x, y
        columns \"pick\": is a oneof: it takes case_column only; name its members for the rest
        columns \"x\": the type int is for enums; the field is int32
        columns \"x\": has a type and is excluded; remove one of the two
        ",
    );
}

#[test]
fn contradictions() {
    let pool = proto3(NESTED);
    let check_faults = |options: Options, expected: &str| check(&faults(create(&pool, "t.M", &options)), expected);
    check_faults(
        include(&["a.b", "z"], &["a", "z", "map"]),
        "
        exclude \"a\": is excluded, and \"a.b\" is included; remove one of the two
        exclude \"z\": is excluded, and \"z\" is included; remove one of the two
        exclude \"map\": is not among the included columns; there is no need to exclude it
        ",
    );
    let long = typed(ColumnType::Long);
    check_faults(
        Options {
            columns: columns([("a.n", long), ("list.b.p", long), ("z", excluded(false))]).columns,
            ..include(&["a.b"], &[])
        },
        "
        columns \"a.n\": is no column: n is left out
        columns \"list.b.p\": is no column: list is left out
        ",
    );
    check_faults(
        Options { columns: columns([("a.b.p", long), ("z", excluded(false))]).columns, ..include(&[], &["a.b", "z"]) },
        "columns \"z\": says exclude = false, and `exclude` names it; remove one of the two",
    );
    check_faults(
        Options { columns: columns([("a.b.p", long)]).columns, ..include(&[], &["a.b"]) },
        "columns \"a.b.p\": is no column: b is left out",
    );
    check_faults(
        include(&[], &["a", "list", "map", "z"]),
        "t.M: all of its fields are left out; a table needs a column",
    );
    let both = annotated(
        "message M { uint64 n = 1 [(calve.v1.column) = { type: LONG, exclude: true }]; int32 i = 2 [(calve.v1.column).type = LONG]; }",
    );
    check(
        &faults(create(&both, "t.M", &OPTIONS)),
        "
        t.M.n: its option (calve.v1.column) has a type and excludes it; remove one of the two
        t.M.i: its option (calve.v1.column): the type long is for uint64, fixed64, google.protobuf.UInt64Value, Timestamp and Duration; the field is int32
        ",
    );
    let clash = annotated(
        "message M { oneof pick { option (calve.v1.oneof).case_column = true; int32 x = 1; } string Pick_case = 2; }",
    );
    check(
        &faults(create(&clash, "t.M", &OPTIONS)),
        "t.M: the fields t.M.Pick_case and t.M.pick_case have names that are equal ignoring case; engines cannot tell such columns apart: rename one",
    );
}

#[test]
fn a_wide_message_fits_when_most_of_it_is_left_out() {
    let pool = proto3(NESTED);
    let narrow = |options: Options| create(&pool, "t.M", &Options { columns_max: 4, ..options });
    assert!(faults(narrow(OPTIONS)).starts_with("t.M: the message has 17 leaf columns"), "{}", faults(narrow(OPTIONS)));
    assert!(narrow(include(&["a"], &["a.b.q"])).is_ok());
    assert!(faults(narrow(include(&["a"], &[]))).starts_with("t.M: the message has 5 leaf columns"));
}

#[test]
fn options_that_this_version_does_not_know() {
    let message = "message M { uint64 n = 1 [(calve.v1.column).colour = 7]; }";
    let options = include_str!("../../../proto/calve/v1/options.proto")
        .replace("bool exclude = 2;", "bool exclude = 2; int32 colour = 9;");
    let source = format!("syntax = \"proto3\"; package t; import \"calve/v1/options.proto\"; {message}");
    let error = compile(&[("t.proto", &source), ("calve/v1/options.proto", &options)]).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.ends_with("message t.M: field n: the option (calve.v1.column) says something that this version does not know (its field 9)"),
        "{text}"
    );
}

/// The table that `before` made, under `after`: its columns, or why not, with what happens to each.
fn evolved(before: (&Arc<Pool>, &Options), after: (&Arc<Pool>, &Options)) -> String {
    let table = create(before.0, "t.M", before.1).unwrap();
    let existing = Existing {
        schema: table.iceberg.clone(),
        column_map: ColumnMap::from_json(&table.column_map.to_json()).unwrap(),
        last_column_id: table.iceberg.highest_field_id(),
        message: "t.M".to_string(),
        written: None,
    };
    let comparison = compare(after.0.clone(), after.0.find("t.M").unwrap(), after.1, &existing);
    let changes = comparison.changes.iter();
    let changes: String =
        changes.map(|change| format!("{} {}: {}\n", change.verdict.as_str(), change.path, change.what)).collect();
    match comparison.evolution {
        Some(evolution) => render(&evolution.mapping) + &changes,
        None => changes,
    }
}

#[test]
fn a_type_chosen_later_is_a_change_of_type() {
    let pool = proto3(
        "enum E { ZERO = 0; } message M { uint64 a = 1; E b = 2; google.protobuf.Timestamp c = 3; google.protobuf.Duration d = 4; }",
    );
    let check_refused = |path: &str, before: ColumnType, after: ColumnType, why: &str| {
        let (before, after) = (columns([(path, typed(before))]), columns([(path, typed(after))]));
        let text = evolved((&pool, &before), (&pool, &after));
        let remedy = "; undo the change, give the field another number, or set on_incompatible = \"new_column\"";
        check(&text, &format!("refused t.M.{path}: {why}{remedy}"));
    };
    use ColumnType::{Default, Int, Long, Millis};
    check_refused("a", Default, Long, "the field's column type is long, the table's column is decimal(20, 0)");
    check_refused("a", Long, Default, "the field's column type is decimal(20, 0), the table's column is long");
    check_refused("b", Default, Int, "the field's column type is int, the table's column is string");
    check_refused("c", Default, Long, "the field's column type is long, the table's column is timestamptz");
    // Of one column type, and yet another number.
    let units = |name: &str| {
        format!(
            "the column was google.protobuf.{name} and would be google.protobuf.{name} in milliseconds: older rows would be misread"
        )
    };
    check_refused("c", Long, Millis, &units("Timestamp"));
    check_refused("d", Default, Millis, &units("Duration"));
    check_refused(
        "d",
        Millis,
        Long,
        "the column was google.protobuf.Duration in milliseconds and would be google.protobuf.Duration: older rows would be misread",
    );
    let named = Options { records_name_schema: true, ..columns([("d", typed(Millis))]) };
    assert!(evolved((&pool, &OPTIONS), (&pool, &named)).starts_with("refused t.M.d: "));
    // What is the same anyway.
    let same = columns([("d", typed(Long))]);
    assert!(evolved((&pool, &OPTIONS), (&pool, &same)).ends_with("d long =4 #4\n"));
}

#[test]
fn a_column_left_out_later_stays_and_comes_back() {
    let pool = proto3(NESTED);
    let (all, some) = (OPTIONS, include(&[], &["a.b", "list", "map", "z"]));
    let text = evolved((&pool, &all), (&pool, &some));
    let own = text.lines().filter(|line| line.contains("ignored") || line.starts_with(['a', 'z']));
    check(
        &own.collect::<Vec<_>>().join("\n"),
        "
        a struct =1 #1
        z string =4 #4
        ignored t.M.a.b: no field fills the column; it stays, null from now on
        ignored t.M.list: no field fills the column; it stays, null from now on
        ignored t.M.map: no field fills the column; it stays, null from now on
        ignored t.M.z: no field fills the column; it stays, null from now on
        ",
    );
    let (few, more) = (include(&["a.n"], &[]), include(&["a.n", "a.b.p", "z"], &[]));
    check(
        &evolved((&pool, &few), (&pool, &more)),
        "
        a struct =1 #1
          b struct =1.1 #16
            p decimal(20, 0) =1.1.1 #17
          n decimal(20, 0) =1.2 #4
        z string =4 #18
        applied t.M.a.b: a new column
        applied t.M.z: a new column
        ",
    );
}

#[test]
fn a_case_column_follows_its_oneof() {
    let body = |oneof: &str| annotated(&format!("message M {{ int32 a = 1; {oneof} }}"));
    let marked = "option (calve.v1.oneof).case_column = true;";
    let before = body(&format!("oneof pick {{ {marked} int32 x = 5; int32 y = 6; }}"));
    let check_after = |oneof: &str, expected: &str| {
        check(&evolved((&before, &OPTIONS), (&body(oneof), &OPTIONS)), expected);
    };
    // Renamed, with a member more.
    check_after(
        &format!("oneof choice {{ {marked} int32 w = 4; int32 x = 5; int32 y = 6; }}"),
        "
        a int =1 #1
        w int =4 #18
        x int =5 #2
        y int =6 #3
        choice_case string =536870917 #4
        applied t.M.w: a new column
        applied t.M.choice_case: the column pick_case is renamed to choice_case
        ",
    );
    // The member that it went by is gone.
    check_after(
        &format!("oneof pick {{ {marked} int32 y = 6; }}"),
        "
        a int =1 #1
        x int =5 #2
        y int =6 #3
        pick_case string =536870917 #4
        ignored t.M.x: no field fills the column; it stays, null from now on
        ",
    );
    check_after(
        "oneof pick { int32 x = 5; int32 y = 6; }",
        "
        a int =1 #1
        x int =5 #2
        y int =6 #3
        pick_case string =536870917 #4
        ignored t.M.pick_case: no field fills the column; it stays, null from now on
        ",
    );
}

#[test]
fn messages_chosen_as_json() {
    let pool = annotated(
        "message M {
           A a = 1 [(calve.v1.column).type = JSON];
           map<string, A> b = 2;
           google.protobuf.Timestamp c = 3 [(calve.v1.column).type = JSON];
           A d = 4;
         }
         message A { uint64 n = 1; B e = 2; }
         message B { uint64 n = 1; }",
    );
    let json = typed(ColumnType::Json);
    let mapping = create(&pool, "t.M", &columns([("b", json), ("d.e", json)])).unwrap();
    check(
        &render(&mapping),
        "
        a string =1 #1
        b map =2 #2
          key string =2.1 #7
          value string =2.2 #8
        c string =3 #3
        d struct =4 #4
          n decimal(20, 0) =4.1 #9
          e string =4.2 #10
        ",
    );
    let long = typed(ColumnType::Long);
    let below = |options: Options, expected: &str| check(&faults(create(&pool, "t.M", &options)), expected);
    below(columns([("a.n", long)]), "columns \"a.n\": is no column: it lies in a, which becomes JSON");
    below(include(&[], &["a.e"]), "exclude \"a.e\": is no column: it lies in a, which becomes JSON");
    let named = Options { json: vec!["d.e".to_string()], ..columns([("d.e.n", long)]) };
    below(named, "columns \"d.e.n\": is no column: it lies in e, which becomes JSON");
    let cut = Options { json_below: Some(1), ..columns([("d.n", long)]) };
    below(cut, "columns \"d.n\": is no column: it lies in d, which becomes JSON");
}
