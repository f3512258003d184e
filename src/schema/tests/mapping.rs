//! What each construct of Protobuf becomes, and what is refused.

use arrow::datatypes::{DataType, TimeUnit};
use iceberg::arrow::schema_to_arrow_schema;

use super::super::column_map::ColumnMap;
use super::super::mapping::Options;
use super::{OPTIONS, check, compile, create, faults, proto3, render};

#[track_caller]
fn check_table(body: &str, expected: &str) {
    let mapping = create(&proto3(body), "t.M", &OPTIONS).unwrap_or_else(|faults| panic!("{faults:?}"));
    check(&render(&mapping), expected);
    let arrow = schema_to_arrow_schema(&mapping.iceberg).unwrap();
    assert_eq!(*mapping.arrow, arrow);
    let names: Vec<&String> = mapping.arrow.fields().iter().map(|field| field.name()).collect();
    assert_eq!(names.len(), mapping.columns.len() + 2);
    assert_eq!(names[mapping.columns.len()..], ["_kafka", "_raw"]);
    assert_eq!(ColumnMap::from_json(&mapping.column_map.to_json()).unwrap(), mapping.column_map);
}

#[track_caller]
fn check_faults(body: &str, expected: &str) {
    check(&faults(create(&proto3(body), "t.M", &OPTIONS)), expected);
}

#[test]
fn scalars() {
    check_table(
        "message M {
           bool a = 1; float b = 2; double c = 3; string d = 4; bytes e = 5;
           int32 f = 6; sint32 g = 7; sfixed32 h = 8; int64 i = 9; sint64 j = 10; sfixed64 k = 11;
           uint32 l = 12; fixed32 m = 13; uint64 n = 14; fixed64 o = 15; optional int32 p = 536870911; E q = 17;
         }
         enum E { ZERO = 0; ONE = 1; }",
        "
        a boolean =1 #1
        b float =2 #2
        c double =3 #3
        d string =4 #4
        e binary =5 #5
        f int =6 #6
        g int =7 #7
        h int =8 #8
        i long =9 #9
        j long =10 #10
        k long =11 #11
        l long =12 #12
        m long =13 #13
        n decimal(20, 0) =14 #14
        o decimal(20, 0) =15 #15
        p int =536870911 #16
        q string =17 #17
        ",
    );
}

#[test]
fn nesting() {
    // Ids go level by level, as catalogs assign them: 6 and 7 are `_kafka` and `_raw`.
    check_table(
        "message M {
           int64 id = 1;
           A a = 7;
           repeated A as = 3;
           map<string, A> by_name = 4;
           oneof pick { string x = 9; A y = 2; }
         }
         message A { repeated int32 n = 1; B b = 2; }
         message B {}",
        "
        id long =1 #1
        a struct =7 #2
          n list =7.1 #9
            element int =- #11
          b struct =7.2 #10
            _present boolean =7.2.0 #12
        as list =3 #3
          element struct =- #13
            n list =3.1 #14
              element int =- #16
            b struct =3.2 #15
              _present boolean =3.2.0 #17
        by_name map =4 #4
          key string =4.1 #18
          value struct =4.2 #19
            n list =4.2.1 #20
              element int =- #22
            b struct =4.2.2 #21
              _present boolean =4.2.2.0 #23
        x string =9 #5
        y struct =2 #6
          n list =2.1 #24
            element int =- #26
          b struct =2.2 #25
            _present boolean =2.2.0 #27
        ",
    );
}

#[test]
fn map_keys() {
    check_table(
        "message M {
           map<bool, int32> a = 1; map<sint64, bytes> b = 2; map<fixed32, E> c = 3; map<uint64, google.protobuf.Timestamp> d = 4;
         }
         enum E { ZERO = 0; }",
        "
        a map =1 #1
          key boolean =1.1 #7
          value int =1.2 #8
        b map =2 #2
          key long =2.1 #9
          value binary =2.2 #10
        c map =3 #3
          key long =3.1 #11
          value string =3.2 #12
        d map =4 #4
          key decimal(20, 0) =4.1 #13
          value timestamptz =4.2 #14
        ",
    );
}

#[test]
fn well_known_types() {
    check_table(
        "message M {
           google.protobuf.Timestamp at = 1; google.protobuf.Duration took = 2; repeated google.protobuf.UInt64Value n = 3;
           google.protobuf.StringValue s = 4; google.protobuf.Any any = 5; google.protobuf.FieldMask mask = 6;
           google.protobuf.Empty empty = 7; google.protobuf.BoolValue b = 8;
         }",
        "
        at timestamptz =1 #1
        took long =2 #2
        n list =3 #3
          element decimal(20, 0) =- #11
        s string =4 #4
        any struct =5 #5
          type_url string =5.1 #12
          value binary =5.2 #13
        mask struct =6 #6
          paths list =6.1 #14
            element string =- #15
        empty struct =7 #7
          _present boolean =7.0 #16
        b boolean =8 #8
        ",
    );
}

#[test]
fn date_by_name_and_shape() {
    let date =
        "syntax = \"proto3\"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }";
    let other = "syntax = \"proto3\"; package google.type; message Date { string text = 1; }";
    let topic =
        "syntax = \"proto3\"; package t; import \"google/type/date.proto\"; message M { google.type.Date d = 1; }";
    for (source, expected) in [(date, "d date =1 #1"), (other, "d struct =1 #1\n  text string =1.1 #4")] {
        let pool = compile(&[("google/type/date.proto", source), ("t.proto", topic)]).unwrap();
        check(&render(&create(&pool, "t.M", &OPTIONS).unwrap()), expected);
    }
}

#[test]
fn topics_of_well_known_types_and_empty_messages() {
    let pool = proto3("message M {}");
    check(&render(&create(&pool, "google.protobuf.Timestamp", &OPTIONS).unwrap()), "value timestamptz =0 #1");
    check(&render(&create(&pool, "google.protobuf.Int32Value", &OPTIONS).unwrap()), "value int =0 #1");
    check(&render(&create(&pool, "t.M", &OPTIONS).unwrap()), "_present boolean =0 #1");
    for json in ["Struct", "Value", "ListValue"] {
        let mapping = create(&pool, &format!("google.protobuf.{json}"), &OPTIONS).unwrap();
        check(&render(&mapping), "value string =0 #1");
        assert_eq!(mapping.column_map.to_json(), format!("{{\"0\":[1,\"google.protobuf.{json}\"]}}"));
    }
    check(
        &render(&create(&pool, "google.protobuf.Any", &OPTIONS).unwrap()),
        "
        value struct =0 #1
          type_url string =0.1 #4
          value binary =0.2 #5
        ",
    );
}

#[test]
fn messages_as_json() {
    let body = "message M {
           google.protobuf.Struct s = 1;
           repeated google.protobuf.Value v = 2;
           map<string, google.protobuf.ListValue> l = 3;
           A a = 4;
           A again = 5;
         }
         message A { M back = 1; B b = 2; }
         message B { repeated B children = 1; map<int32, A> as = 3; int32 n = 4; }";
    // The cut is where a type is met again on the way down, whichever way that is.
    check_table(
        body,
        "
        s string =1 #1
        v list =2 #2
          element string =- #8
        l map =3 #3
          key string =3.1 #9
          value string =3.2 #10
        a struct =4 #4
          back string =4.1 #11
          b struct =4.2 #12
            children list =4.2.1 #13
              element string =- #16
            as map =4.2.3 #14
              key int =4.2.3.1 #17
              value string =4.2.3.2 #18
            n int =4.2.4 #15
        again struct =5 #5
          back string =5.1 #19
          b struct =5.2 #20
            children list =5.2.1 #21
              element string =- #24
            as map =5.2.3 #22
              key int =5.2.3.1 #25
              value string =5.2.3.2 #26
            n int =5.2.4 #23
        ",
    );
    let mapping = create(&proto3(body), "t.M", &OPTIONS).unwrap();
    let kinds: Vec<Option<String>> =
        ["1", "4.1", "4.2.1"].map(|path| mapping.column_map.get(&path.parse().unwrap()).unwrap().kind.clone()).to_vec();
    assert_eq!(kinds, ["google.protobuf.Struct", "json", "json"].map(|kind| Some(kind.to_string())));
    assert_eq!(mapping.columns[0].doc.as_deref(), Some("JSON of google.protobuf.Struct"));
}

#[test]
fn json_by_choice() {
    let body = "message M { A a = 1; repeated A as = 2; map<string, A> by_name = 3; google.protobuf.Timestamp at = 4; }
                message A { int32 n = 1; B b = 2; }
                message B { int32 m = 1; }";
    let pool = proto3(body);
    let named = |paths: &[&str]| Options { json: paths.iter().map(ToString::to_string).collect(), ..OPTIONS };
    let mapping = create(&pool, "t.M", &named(&["a.b", "as", "by_name"])).unwrap();
    check(
        &render(&mapping),
        "
        a struct =1 #1
          n int =1.1 #7
          b string =1.2 #8
        as list =2 #2
          element string =- #9
        by_name map =3 #3
          key string =3.1 #10
          value string =3.2 #11
        at timestamptz =4 #4
        ",
    );
    let below = |depth| create(&pool, "t.M", &Options { json_below: Some(depth), ..OPTIONS }).unwrap();
    check(
        &render(&below(1)),
        "
        a string =1 #1
        as list =2 #2
          element string =- #7
        by_name map =3 #3
          key string =3.1 #8
          value string =3.2 #9
        at timestamptz =4 #4
        ",
    );
    assert_eq!(render(&below(2)).matches(" b string").count(), 3);
    assert_eq!(render(&below(3)), render(&create(&pool, "t.M", &OPTIONS).unwrap()));
    check(
        &faults(create(&pool, "t.M", &named(&["a.n", "nothing", "at", "a", "a.b"]))),
        "
        t.M: json names \"a.n\", which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\"
        t.M: json names \"nothing\", which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\"
        t.M: json names \"at\", which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\"
        t.M: json names \"a.b\", which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\"
        ",
    );
}

#[test]
fn columns_of_the_log() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let kafka = mapping.arrow.field_with_name("_kafka").unwrap();
    let DataType::Struct(fields) = kafka.data_type() else { panic!("{kafka}") };
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers", "schema_id"]);
    assert_eq!(*fields[3].data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())));
    assert!(kafka.is_nullable() && fields.iter().all(|field| field.is_nullable()));
    assert_eq!(*mapping.arrow.field_with_name("_raw").unwrap().data_type(), DataType::LargeBinary);
    assert_eq!(
        mapping.properties().into_iter().collect::<Vec<_>>(),
        [("calve.columns", "{\"1\":[1,\"int32\"]}"), ("calve.mapping", "1"), ("calve.message", "t.M")]
            .map(|(key, value)| (key.to_string(), value.to_string()))
    );
}

#[test]
fn docs() {
    let pool = proto3(
        "message M {
           // How long
           // it took.
           google.protobuf.Duration took = 1;
           google.protobuf.Duration bare = 2;
           int32 behind = 3; // behind the field
           int32 none = 4;
           /* a block */
           repeated int32 block = 5;
         }",
    );
    let mapping = create(&pool, "t.M", &OPTIONS).unwrap();
    let docs: Vec<Option<&str>> = mapping.columns.iter().map(|column| column.doc.as_deref()).collect();
    let took = "How long\nit took.\nduration in microseconds";
    let expected = [Some(took), Some("duration in microseconds"), Some("behind the field"), None, Some("a block")];
    assert_eq!(docs, expected);
    assert_eq!(mapping.iceberg.field_by_id(1).unwrap().doc.as_deref(), Some(took));
}

#[test]
fn all_faults_at_once() {
    check_faults(
        "message M {
           A a = 4;
           A again = 5;
           int32 _Kafka = 6;
         }
         message A { M back = 1; B b = 2; int32 n = 3; int32 N = 4; }
         message B { int32 _raw = 2; oneof x { int32 y = 3; } string Y = 4; }",
        "
        t.M._Kafka: the name is reserved for a column of calve or Iceberg (_kafka _raw _key _present _file _pos _deleted _spec_id _partition _row_id _last_updated_sequence_number _change_type _change_ordinal _commit_snapshot_id); rename the field
        t.M.a: the fields t.M.a.n and t.M.a.N have names that are equal ignoring case; engines cannot tell such columns apart: rename one
        t.M.a.b: the fields t.M.a.b.y and t.M.a.b.Y have names that are equal ignoring case; engines cannot tell such columns apart: rename one
        ",
    );
}

#[test]
fn names_equal_ignoring_case() {
    check_faults(
        "message M { int32 Total = 1; N n = 2; string total = 3; } message N { repeated int32 aB = 7; int32 ab = 8; }",
        "
        t.M: the fields t.M.Total and t.M.total have names that are equal ignoring case; engines cannot tell such columns apart: rename one
        t.M.n: the fields t.M.n.aB and t.M.n.ab have names that are equal ignoring case; engines cannot tell such columns apart: rename one
        ",
    );
}

#[test]
fn names_equal_but_for_underscores() {
    check_table(
        "message M { int32 foo_bar = 1; optional int32 foobar = 2; In in = 3; message In { int32 a_b = 1; oneof x { int32 ab = 2; } } }",
        "
        foo_bar int =1 #1
        foobar int =2 #2
        in struct =3 #3
          a_b int =3.1 #6
          ab int =3.2 #7
        ",
    );
    let pool = proto3("message M { int32 foo_bar = 1; int32 foobar = 2 [json_name = \"own\"]; int32 fooBa_r = 3; }");
    let message = pool.message(pool.find("t.M").unwrap());
    let names: Vec<&str> = message.fields.iter().map(|field| field.json_name.as_str()).collect();
    assert_eq!(names, ["fooBar", "own", "fooBaR"]);
    // One JSON name for two fields is what protoc refuses as well.
    let source = "syntax = \"proto3\"; message M { int32 foo_bar = 1; int32 fooBar = 2; }";
    let error = format!("{:#}", compile(&[("t.proto", source)]).unwrap_err());
    assert!(error.contains("\"fooBar\"") || error.contains("fooBar"), "{error}");
}

#[test]
fn groups_extensions_and_message_sets() {
    let pool = compile(&[
        (
            "t.proto",
            "syntax = \"proto2\"; package t;
             message M {
               required int32 id = 1;
               optional group G = 2 { optional int32 x = 1; }
               repeated group H = 3 { optional M back = 1; }
               optional Set set = 4;
               optional Bare bare = 5;
               extensions 100 to 200;
             }
             message Set { option message_set_wire_format = true; extensions 4 to max; }
             message Bare { option message_set_wire_format = true; extensions 4 to max; }
             extend M { optional string note = 150; }",
        ),
        (
            "more/u.proto",
            "syntax = \"proto2\"; package u.v; import \"t.proto\";
             message W {
               extend t.Set { optional W w = 7; }
               extend t.M { repeated W ws = 120; }
               optional int32 n = 1;
             }",
        ),
    ])
    .unwrap();
    check(
        &render(&create(&pool, "t.M", &OPTIONS).unwrap()),
        "
        id int =1 #1
        g struct =2 #2
          x int =2.1 #10
        h list =3 #3
          element struct =- #11
            back string =3.1 #12
        set struct =4 #4
          u_v_W_w struct =4.7 #13
            n int =4.7.1 #14
        bare struct =5 #5
          _present boolean =5.0 #15
        u_v_W_ws list =120 #6
          element struct =- #16
            n int =120.1 #17
        t_note string =150 #7
        ",
    );
}

#[test]
fn two_fields_of_one_json_name() {
    let source = "syntax = \"proto2\"; package t;
                  message M { optional int32 foo_bar = 1; optional int32 fooBar = 2; }";
    assert!(compile(&[("t.proto", source)]).is_err());
}

#[test]
fn an_extension_named_like_a_field() {
    let source = "syntax = \"proto2\"; package t; message M { optional int32 T_Note = 1; extensions 100 to 200; }
                  extend M { optional string note = 150; }";
    check(
        &faults(create(&compile(&[("t.proto", source)]).unwrap(), "t.M", &OPTIONS)),
        "t.M: the fields t.M.T_Note and t.M.t.note have names that are equal ignoring case; engines cannot tell such columns apart: rename one",
    );
}

#[test]
fn too_many_columns() {
    let options = Options { columns_max: 10, ..OPTIONS };
    let body = "message M { int32 a = 1; map<string, B> b = 2; B c = 3; }
                message B { C x = 1; C y = 2; int32 z = 3; }
                message C { int32 p = 1; int32 q = 2; }";
    let hint = "t.M: the message has 12 leaf columns, over columns_max = 10; json_below = 2 or json = [\"c.x\", \"c.y\"] would fit, or raise columns_max if the table's readers stand that many";
    check(&faults(create(&proto3(body), "t.M", &options)), hint);
    create(&proto3(body), "t.M", &Options { columns_max: 12, ..OPTIONS }).unwrap();
    // What the hint says does fit.
    for columns_max in 4..12 {
        let options = Options { columns_max, ..OPTIONS };
        let text = faults(create(&proto3(body), "t.M", &options));
        let below = text.split("json_below = ").nth(1).map(|rest| rest[..1].parse().unwrap());
        let json: Option<Vec<String>> =
            text.split("json = ").nth(1).map(|rest| serde_json::from_str(&rest[..=rest.find(']').unwrap()]).unwrap());
        assert!(below.is_some() && json.is_some(), "{text}");
        for options in [
            Options { json_below: below, ..options.clone() },
            Options { json: json.unwrap_or_default(), ..options.clone() },
        ] {
            create(&proto3(body), "t.M", &options).unwrap_or_else(|faults| panic!("{columns_max}: {faults:?}"));
        }
    }
    // Even its messages as JSON are too many.
    let text = faults(create(&proto3(body), "t.M", &Options { columns_max: 3, ..OPTIONS }));
    assert!(!text.contains("would fit"), "{text}");
}

#[test]
fn a_way_back_from_everywhere() {
    // Every message holds every other one: more ways down than can be counted, none of them without end.
    let all: String = (0..20).map(|n| format!("N{n} n{n} = {}; ", n + 1)).collect();
    let messages: String = (0..20).map(|n| format!("message N{n} {{ {all} }}\n")).collect();
    let text = faults(create(&proto3(&format!("message M {{ N0 n = 1; }}\n{messages}")), "t.M", &OPTIONS));
    assert!(text.contains("more than 100000 leaf columns, over columns_max = 2000; json_below = "), "{text}");
}

#[test]
fn more_paths_than_can_be_listed() {
    let chain: String = (0..60).map(|n| format!("message N{n} {{ N{m} a = 1; N{m} b = 2; }}\n", m = n + 1)).collect();
    let body = format!("message M {{ N0 n = 1; }}\n{chain}message N60 {{ int32 x = 1; }}");
    let text = faults(create(&proto3(&body), "t.M", &OPTIONS));
    assert!(text.starts_with("t.M: the message has more than 100000 leaf columns"), "{text}");
}

#[test]
fn deeper_than_a_record_may_be() {
    let deep = |depth: usize| {
        let chain: String = (1..depth).map(|n| format!("message N{n} {{ N{} n = 1; }}\n", n + 1)).collect();
        proto3(&format!("message M {{ N1 n = 1; }}\n{chain}message N{depth} {{ int32 x = 1; }}"))
    };
    create(&deep(100), "t.M", &OPTIONS).unwrap();
    let text = faults(create(&deep(101), "t.M", &OPTIONS));
    assert!(text.ends_with(": more than 100 messages are nested here; no record may be that deep\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}
