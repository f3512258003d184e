//! The constructs of Protobuf one by one, as bytes and what becomes of them: groups, extensions, MessageSets, JSON.

use arrow::array::RecordBatch;
use calve::batch::RejectCode;
use calve::config::SchemaSource;
use calve::schema::mapping::{self, Mapping};
use calve::schema::model::Pool;
use calve::shred::{Options, Shredder};
use std::sync::Arc;

use crate::support::cells::{Cell, column, text};
use crate::support::corpus::{Corpus, batch};

/// One record, and what its columns (and `_raw`) hold.
struct Shredded(RecordBatch);

impl Shredded {
    #[track_caller]
    fn is(&self, path: &str, expected: Cell) -> &Self {
        assert_eq!(column(&self.0, 0, path), expected, "{path}");
        self
    }

    #[track_caller]
    fn raw(&self, raw: bool) -> &Self {
        assert_eq!(column(&self.0, 0, "_raw") != Cell::Null, raw, "_raw");
        self
    }
}

fn shred_by(mapping: &Mapping, record: &[u8]) -> Result<Shredded, (RejectCode, String)> {
    let mut shredder = Shredder::new(mapping, Options::default()).unwrap();
    let rejects = shredder.append(&batch([Some(record)]));
    match rejects.into_iter().next() {
        Some(reject) => Err((reject.code, reject.detail)),
        None => Ok(Shredded(shredder.take().unwrap().remove(0))),
    }
}

#[track_caller]
fn shred(message: &str, record: &[u8]) -> Shredded {
    shred_by(&Corpus::load().mapping(message), record).unwrap_or_else(|reject| panic!("{reject:?}"))
}

#[track_caller]
fn refused(message: &str, record: &[u8], code: RejectCode, detail: &str) {
    let reject = shred_by(&Corpus::load().mapping(message), record).err();
    assert_eq!(reject, Some((code, detail.to_string())));
}

/// A message as field `number`, length-prefixed.
fn nested(number: u32, message: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(message.len() as u64));
    out.extend(message);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

const GROUPS: &str = "corpus.groups.Groups";

#[test]
fn groups() {
    // single { name: "a" inner { values: 1 plain { held { n: -1 } } } level: HIGH }
    let record = b"\x13\x0a\x01a\x1b\x08\x01\x12\x04\x0b\x08\x01\x0c\x1c\x28\x02\x14";
    shred(GROUPS, record)
        .is("single.name", text("a"))
        .is("single.inner.values", Cell::List(vec![Cell::Int(1)]))
        .is("single.inner.plain.held.n", Cell::Int(-1))
        .is("single.level", text("HIGH"))
        .is("single.number", Cell::Null)
        .is("plain", Cell::Null)
        .raw(false);
    // many { id: 1 nothing {} } many { id: 2 at { seconds: 3 } }
    let record = b"\x1b\x08\x01\x1b\x1c\x1c\x1b\x08\x02\x12\x02\x08\x03\x1c";
    let many = |id, at, nothing| {
        Cell::Struct(vec![("id".into(), Cell::Int(id)), ("at".into(), at), ("nothing".into(), nothing)])
    };
    let nothing = Cell::Struct(vec![("_present".into(), Cell::Bool(true))]);
    let expected = vec![many(1, Cell::Null, nothing), many(2, Cell::Int(3_000_000), Cell::Null)];
    shred(GROUPS, record).is("many", Cell::List(expected)).raw(false);
    // The highest number; tags longer than they need to be, at both ends.
    shred(GROUPS, b"\xfb\xff\xff\xff\x0f\xfa\xff\xff\xff\x0f\x01x\xfc\xff\xff\xff\x0f")
        .is("far.data", Cell::Bytes(b"x".to_vec()))
        .raw(false);
    shred(GROUPS, b"\x93\x00\x0a\x01a\x94\x80\x00\x08\x01").is("single.name", text("a")).is("before", Cell::Int(1));
}

#[test]
fn groups_in_pieces() {
    // The second piece overwrites and adds; between them something else.
    shred(GROUPS, b"\x13\x0a\x01a\x10\x01\x14\x08\x07\x13\x0a\x01b\x1b\x1c\x14")
        .is("before", Cell::Int(7))
        .is("single.name", text("b"))
        .is("single.number", Cell::Int(1))
        .is("single.inner.values", Cell::List(vec![]))
        .raw(false);
    // A later member of the oneof clears the group, and what is inside.
    shred(GROUPS, b"\x2b\x12\x01g\x2c\x22\x01w").is("picked", Cell::Null).is("word", text("w")).raw(false);
    shred(GROUPS, b"\x22\x01w\x2b\x12\x01g\x1b\x08\x01\x1c\x2c")
        .is("word", Cell::Null)
        .is("picked.grams", Cell::Null)
        .is("picked.stones.count", Cell::Int(1));
    // Cleared, and read again from its beginning.
    shred(GROUPS, b"\x2b\x09\0\0\0\0\0\0\0\0\x2c\x22\x01w\x2b\x12\x01g\x2c").is("picked.weight", Cell::Null);
}

#[test]
fn groups_that_are_none() {
    use RejectCode::{BadGroup, RequiredMissing, TooDeep, Truncated};
    let open = "the end of a group that is not open";
    refused(GROUPS, b"\x13\x0a\x01a", Truncated, "single: the data ends inside a value, at byte 0");
    refused(GROUPS, b"\x13\x0a\x01a\x1c", BadGroup, &format!("single: {open}, at byte 0"));
    refused(GROUPS, b"\x08\x01\x14", BadGroup, &format!("{open}, at byte 2"));
    refused(GROUPS, b"\x13\x1b\x14\x1c", BadGroup, &format!("single: {open}, at byte 0"));
    // The end of the outer group inside of a length-prefixed message of the inner one.
    refused(GROUPS, b"\x13\x1b\x12\x02\x1c\x14\x1c\x14", BadGroup, &format!("single.inner.plain: {open}, at byte 4"));
    refused(GROUPS, b"\x32\x03\x0b\x08\x01\x08\x01", Truncated, "plain.held: the data ends inside a value, at byte 2");
    refused(GROUPS, b"\x1b\x12\x00\x1c", RequiredMissing, "many.id: a required field is missing");
    // Length-prefixed where a group was declared, and the other way round: unknown fields.
    shred(GROUPS, b"\x12\x03\x0a\x01a").is("single", Cell::Null).raw(true);
    shred(GROUPS, b"\x33\x34").is("plain", Cell::Null).raw(true);
    // Unknown groups as deep as a record may be, inside a group that is known.
    let deep = |groups| [b"\x13".to_vec(), vec![0x63; groups], vec![0x64; groups], b"\x14".to_vec()].concat();
    shred(GROUPS, &deep(99)).raw(true);
    refused(GROUPS, &deep(100), TooDeep, "single: more than 100 messages nested in each other, at byte 0");
}

#[test]
fn delimited_by_editions() {
    let set = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/editions/features.binpb");
    let pool = calve::schema::load(&SchemaSource::DescriptorSet(set)).unwrap();
    let mapping = |name: &str| create(&pool, name, &mapping::Options::default()).unwrap();
    let record = b"\x0b\x08\x07\x0c\x13\x08\x01\x14\x13\x14";
    let id = |id| Cell::Struct(vec![("id".into(), id)]);
    shred_by(&mapping("corpus.editions.Delimited"), record)
        .unwrap()
        .is("one", id(Cell::Int(7)))
        .is("many", Cell::List(vec![id(Cell::Int(1)), id(Cell::Null)]))
        .raw(false);
    let features = mapping("corpus.editions.Features");
    // required: 3; expanded packed, packed expanded; a closed enum's stranger, an open one's; a string unchecked.
    let record = b"\x18\x03\x22\x02\x01\x02\x28\x05\x28\x06\x38\x63\x40\x63";
    let numbers = |numbers: &[i128]| Cell::List(numbers.iter().map(|number| Cell::Int(*number)).collect());
    shred_by(&features, record)
        .unwrap()
        .is("explicit", Cell::Null)
        .is("implicit", Cell::Int(0))
        .is("required", Cell::Int(3))
        .is("expanded", numbers(&[1, 2]))
        .is("packed", numbers(&[5, 6]))
        .is("open", text("99"))
        .is("closed", Cell::Null)
        .raw(true);
    let code = |record: &[u8]| shred_by(&features, record).err().map(|(code, _)| code);
    assert_eq!(code(b""), Some(RejectCode::RequiredMissing));
    assert_eq!(code(b"\x18\x03\x32\x01\xff"), Some(RejectCode::InvalidUtf8));
}

fn create(pool: &Arc<Pool>, message: &str, options: &mapping::Options) -> Option<Mapping> {
    Mapping::create(pool.clone(), pool.find(message)?, options).ok()
}

#[test]
fn extensions() {
    let corpus = Corpus::load();
    let mapping = corpus.mapping("corpus.extended.Extended");
    let names: Vec<&str> = mapping.columns.iter().map(|column| column.name.as_str()).collect();
    let added =
        ["unpacked", "packed", "more", "mores", "took", "grouped"].map(|name| format!("corpus_extensions_{name}"));
    let mut expected = vec!["own", "parts", "last", "by_name"];
    expected.extend(added.iter().map(String::as_str));
    expected.extend(["corpus_extended_note", "corpus_extensions_colour"]);
    assert_eq!(names, expected);
    // Packed where it was declared unpacked and the other way round; in a message, in a list, in a map.
    let part = b"\x0a\x01p\x58\x07\xa2\x01\x02\x08\x05";
    let record = [
        b"\xaa\x06\x02\x01\x02\xb0\x06\x03\xb0\x06\x04\xd3\x06\x08\x09\xd4\x06\xc2\x07\x01n".to_vec(),
        nested(2, part),
        nested(4, &[nested(1, b"k"), nested(2, part)].concat()),
        b"\xf8\xff\xff\xff\x0f\x63".to_vec(),
    ]
    .concat();
    let part = Cell::Struct(vec![
        ("name".into(), text("p")),
        ("corpus_extensions_weight".into(), Cell::Null),
        ("corpus_extended_colour".into(), text("BLUE")),
        ("corpus_extensions_More_inside".into(), Cell::Struct(vec![("n".into(), Cell::Int(5))])),
    ]);
    let numbers = |numbers: &[i128]| Cell::List(numbers.iter().map(|number| Cell::Int(*number)).collect());
    shred_by(&mapping, &record)
        .unwrap()
        .is("corpus_extensions_unpacked", numbers(&[1, 2]))
        .is("corpus_extensions_packed", numbers(&[-2, 2]))
        .is("corpus_extensions_grouped.x", Cell::Int(9))
        .is("corpus_extended_note", text("n"))
        .is("parts", Cell::List(vec![part.clone()]))
        .is("by_name", Cell::Map(vec![(text("k"), part)]))
        // A stranger to the closed enumeration.
        .is("corpus_extensions_colour", Cell::Null)
        .raw(true);
}

const SETS: &str = "corpus.sets.Sets";

/// An item; `order` says which of type and message comes first.
fn item(type_id: u32, message: &[u8], type_first: bool) -> Vec<u8> {
    let type_id = [vec![0x10], varint(type_id.into())].concat();
    let message = nested(3, message);
    let inside = if type_first { [type_id, message].concat() } else { [message, type_id].concat() };
    [vec![0x0b], inside, vec![0x0c]].concat()
}

#[test]
fn message_sets() {
    const FIRST: u32 = 1_547_769;
    const FAR: u32 = (1 << 29) + 10_002;
    let in_set = |items: &[Vec<u8>]| nested(1, &items.concat());
    let set = |items: &[Vec<u8>]| shred(SETS, &in_set(items));
    let first = "set.corpus_sets_First_first";
    for type_first in [true, false] {
        set(&[item(FIRST, b"\x78\x07", type_first), item(FAR, b"\x78\x08", type_first)])
            .is(&format!("{first}.i"), Cell::Int(7))
            .is("set.corpus_sets_far.i", Cell::Int(8))
            .is("set.corpus_sets_number", Cell::Null)
            .raw(false);
    }
    // Pieces of one extension merge, and an ordinary field is as good as an item.
    set(&[item(FIRST, b"\x78\x07", true), nested(FIRST, b"\x82\x01\x01s"), item(1000, b"\x08\x05", false)])
        .is(&format!("{first}.i"), Cell::Int(7))
        .is(&format!("{first}.s"), text("s"))
        .is("set.corpus_sets_number", Cell::Int(5))
        .raw(false);
    set(&[]).is(first, Cell::Null).raw(false);
    // What nobody knows, and an item that says too little or too much.
    set(&[item(77, b"anything", true)]).raw(true);
    set(&[b"\x0b\x10\x04\x0c".to_vec()]).is("set.corpus_sets_Second_second", Cell::Null).raw(true);
    set(&[b"\x0b\x1a\x00\x0c".to_vec()]).raw(true);
    set(&[b"\x0b\x10\x04\x1a\x02\x08\x01\x20\x01\x0c".to_vec()])
        .is("set.corpus_sets_Second_second.b", Cell::Bool(true))
        .raw(true);
    let missing = "set.corpus_sets_Second_second.b: a required field is missing";
    refused(SETS, &in_set(&[item(4, b"", true)]), RejectCode::RequiredMissing, missing);
    let code = |bytes: &[u8]| shred_by(&Corpus::load().mapping(SETS), &nested(1, bytes)).err().map(|(code, _)| code);
    assert_eq!(code(b"\x0b\x10\x04\x1a\x02\x08\x01"), Some(RejectCode::Truncated));
    assert_eq!(code(b"\x0b\x10\x04\x14"), Some(RejectCode::BadGroup));
    assert_eq!(code(&item(FIRST, b"\x78", true)), Some(RejectCode::Truncated));
}

const NODE: &str = "corpus.recursive.Node";

/// The text of `child` of a node that holds these bytes.
#[track_caller]
fn json(child: &[u8], expected: &str, raw: bool) {
    shred(NODE, &nested(2, child)).is("child", text(expected)).raw(raw);
}

#[test]
fn messages_inside_themselves() {
    json(b"", "{}", false);
    json(b"\x0a\x01a", r#"{"name":"a"}"#, false);
    json(b"\x0a\x01a\x12\x03\x0a\x01b", r#"{"name":"a","child":{"name":"b"}}"#, false);
    // By number whatever the order; the last scalar wins, pieces merge, a default is left out.
    json(b"\x12\x03\x0a\x01b\x0a\x01a\x12\x02\x12\x00\x0a\x00", r#"{"child":{"name":"b","child":{}}}"#, false);
    json(b"\x1a\x00\x1a\x03\x0a\x01x", r#"{"children":[{},{"name":"x"}]}"#, false);
    // The last entry of a key; an entry without a value, without a key.
    let entries =
        [b"\x22\x05\x0a\x01k\x12\x00".as_slice(), b"\x22\x03\x0a\x01k", b"\x22\x05\x12\x03\x0a\x01v"].concat();
    json(&entries, r#"{"childByName":{"k":{},"":{"name":"v"}}}"#, false);
    // A oneof's later member clears the earlier, which starts anew when it comes back.
    json(b"\x2a\x03\x0a\x01l\x3a\x01t", r#"{"text":"t"}"#, false);
    json(b"\x2a\x03\x0a\x01l\x3a\x01t\x2a\x02\x1a\x00", r#"{"left":{"children":[{}]}}"#, false);
    json(b"\x3a\x00", r#"{"text":""}"#, false);
    // In lists, maps and other messages that lead back.
    shred(NODE, b"\x1a\x00\x1a\x03\x0a\x01x").is("children", Cell::List(vec![text("{}"), text(r#"{"name":"x"}"#)]));
    shred(NODE, b"\x22\x03\x0a\x01k").is("child_by_name", Cell::Map(vec![(text("k"), text("{}"))]));
    shred(NODE, b"\x32\x07\x08\x01\x12\x03\x0a\x01n")
        .is("right.n", Cell::Int(1))
        .is("right.back", text(r#"{"name":"n"}"#))
        .raw(false);
    // Twice on the wire: one message.
    shred(NODE, b"\x12\x03\x0a\x01a\x12\x04\x1a\x02\x08\x01")
        .is("child", text(r#"{"name":"a","children":[{}]}"#))
        .raw(true);
}

#[test]
fn values_as_json() {
    let values = |bytes: &[u8], expected: &str| json(&nested(8, bytes), &format!(r#"{{"values":{expected}}}"#), false);
    values(
        b"\x08\x01\x10\x01\x18\x01\x25\x01\0\0\0\x28\x01",
        r#"{"boolValue":true,"int32Value":1,"sint32Value":-1,"sfixed32Value":1,"int64Value":"1"}"#,
    );
    values(
        b"\x30\x01\x50\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x40\xff\xff\xff\xff\x0f",
        r#"{"sint64Value":"-1","uint32Value":4294967295,"uint64Value":"18446744073709551615"}"#,
    );
    values(b"\x65\xcd\xcc\xcc\x3d\x69\0\0\0\0\0\0\xf8\x7f", r#"{"floatValue":0.1,"doubleValue":"NaN"}"#);
    // Minus zero is no default.
    values(b"\x65\0\0\0\x80\x69\0\0\0\0\0\0\0\0", r#"{"floatValue":-0.0}"#);
    values(b"\x72\x04\"\\\n\x01\x7a\x02\xfb\xff", r#"{"stringValue":"\"\\\n\u0001","bytesValue":"+/8="}"#);
    values(
        b"\x80\x01\x01\x98\x01\x07\x88\x01\x00\x92\x01\x00",
        r#"{"mode":"ON","optInt32":0,"optString":"","optMode":7}"#,
    );
    values(
        b"\xa2\x01\x02\x01\x02\xa0\x01\x03\xa8\x01\x04\xba\x01\x02\x00\x09",
        r#"{"int32s":[1,2,3],"uint64s":["4"],"modes":["OFF",9]}"#,
    );
    values(b"\xa2\x01\x00", "{}");
    values(
        b"\xca\x01\x02\x08\x05\xd2\x01\x05\x08\x01\x12\x01x\xda\x01\x00\xe2\x01\x02\x10\x01",
        r#"{"byInt32":{"5":""},"bySint64":{"-1":"eA=="},"byBool":{"false":0.0},"byFixed64":{"0":"ON"}}"#,
    );
    values(b"\xf2\x01\x01x", r#"{"another-name":"x"}"#);
    // An unknown field at the bottom, and a field of another wire type.
    json(&nested(8, &nested(31, b"\xa0\x1f\x01")), r#"{"values":{"again":{}}}"#, true);
    json(&nested(8, b"\x0a\x00"), r#"{"values":{}}"#, true);
}

#[test]
fn well_known_types_in_json() {
    let times = |bytes: &[u8], expected: &str| json(&nested(9, bytes), &format!(r#"{{"times":{expected}}}"#), false);
    times(b"\x0a\x00\x12\x00", r#"{"timestamp":"1970-01-01T00:00:00Z","duration":"0s"}"#);
    // Nanoseconds have their place here.
    times(
        b"\x0a\x02\x10\x01\x12\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        r#"{"timestamp":"1970-01-01T00:00:00.000000001Z","duration":"-0.000000001s"}"#,
    );
    times(b"\x0a\x02\x08\x01\x0a\x04\x10\xc0\x84\x3d", r#"{"timestamp":"1970-01-01T00:00:01.001Z"}"#);
    times(b"\x2a\x03\x08\xe4\x0f", r#"{"date":{"year":2020}}"#);
    let late = nested(2, &nested(9, b"\x0a\x07\x08\x80\x83\xd1\xff\xaf\x07"));
    let range = "child: a value that its column cannot hold";
    refused(NODE, &late, RejectCode::OutOfRange, range);
    // Another piece puts it right.
    let right = [late.clone(), nested(2, &nested(9, b"\x0a\x02\x08\x01"))].concat();
    shred(NODE, &right).is("child", text(r#"{"times":{"timestamp":"1970-01-01T00:00:01Z"}}"#));
    // And a oneof's later member makes it nothing.
    let cleared = [nested(5, &nested(9, b"\x12\x06\x10\x80\x94\xeb\xdc\x03")), nested(7, b"t")].concat();
    json(&cleared, r#"{"text":"t"}"#, false);

    let rest = |bytes: &[u8], expected: &str, raw| json(&nested(10, bytes), &format!(r#"{{"rest":{expected}}}"#), raw);
    rest(b"\x1a\x0c\x0a\x07foo_bar\x0a\x01x\x22\x00", r#"{"mask":"fooBar,x","empty":{}}"#, false);
    rest(b"\x1a\x02\x0a\x00", r#"{"mask":""}"#, true);
    refused(NODE, &nested(2, &nested(10, b"\x1a\x05\x0a\x03aBc")), RejectCode::OutOfRange, range);
    rest(
        b"\x40\x00\x48\x00\x52\x00\x5a\x02\x08\x01\x62\x02\x08\x01",
        r#"{"optNull":null,"boolValue":false,"int32Value":1,"uint64Value":"1"}"#,
        false,
    );
    rest(b"\x48\x01", r#"{"optNull":null}"#, true);
    rest(
        b"\x6a\x05\x0d\0\0\x80\x3f\x72\x03\x0a\x01s\x7a\x00",
        r#"{"floatValue":1.0,"stringValue":"s","bytesValue":""}"#,
        false,
    );
    rest(b"\x82\x01\x03\x0a\x01k", r#"{"valueByName":{"k":null}}"#, true);
}

#[test]
fn anys_in_json() {
    let any = |url: &str, value: &[u8]| {
        nested(2, &nested(10, &nested(1, &[nested(1, url.as_bytes()), nested(2, value)].concat())))
    };
    let check = |record: &[u8], expected: &str, raw| {
        shred(NODE, record).is("child", text(&format!(r#"{{"rest":{{"any":{expected}}}}}"#))).raw(raw);
    };
    check(&any("t.co/corpus.tiny.Tiny", b"\x08\x07"), r#"{"@type":"t.co/corpus.tiny.Tiny","a":7}"#, false);
    check(&any("t.co/corpus.tiny.Tiny", b"\xa0\x1f\x01"), r#"{"@type":"t.co/corpus.tiny.Tiny"}"#, true);
    let duration = "t.co/google.protobuf.Duration";
    check(&any(duration, b"\x08\x01"), &format!(r#"{{"@type":"{duration}","value":"1s"}}"#), false);
    check(&any("t.co/no.Body", b"\xff"), r#"{"@type":"t.co/no.Body","value":"/w=="}"#, true);
    // Not the full name of the message, which has no dot in front, though a schema may write one.
    check(&any("t.co/.corpus.tiny.Tiny", b"\x08\x07"), r#"{"@type":"t.co/.corpus.tiny.Tiny","value":"CAc="}"#, true);
    check(&nested(2, &nested(10, &nested(1, b""))), "{}", false);
    // Bytes that are no such message; a value that has no JSON.
    let range = "child: a value that its column cannot hold";
    refused(NODE, &any("t.co/corpus.tiny.Tiny", b"\x08"), RejectCode::OutOfRange, range);
    refused(NODE, &any(duration, b"\x10\x80\x94\xeb\xdc\x03"), RejectCode::OutOfRange, range);
}

#[test]
fn as_deep_as_a_record_may_be() {
    let deep = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| nested(2, &inner));
    let text = |depth: usize| format!("{}{{}}{}", "{\"child\":".repeat(depth), "}".repeat(depth));
    shred(NODE, &deep(100)).is("child", Cell::Text(text(99)));
    let limit = "more than 100 messages nested in each other, at byte";
    refused(NODE, &deep(101), RejectCode::TooDeep, &format!("child: {limit} 3"));
    // Groups and map entries count.
    let groups = |rounds: usize| {
        let back = |inner: Vec<u8>, _| [b"\x0b".to_vec(), nested(1, &inner), b"\x0c\x10\x01".to_vec()].concat();
        (0..rounds).fold(b"\x10\x01".to_vec(), back)
    };
    let circular = |rounds| shred_by(&Corpus::load().mapping("corpus.circular.Circular"), &groups(rounds));
    assert!(circular(50).is_ok());
    assert_eq!(circular(51).err().map(|(code, _)| code), Some(RejectCode::TooDeep));
    let entries = (0..50).fold(Vec::new(), |inner, _| nested(4, &nested(2, &inner)));
    assert!(shred_by(&Corpus::load().mapping(NODE), &entries).is_ok());
    let entries = nested(4, &nested(2, &entries));
    let reject = shred_by(&Corpus::load().mapping(NODE), &entries).err();
    assert_eq!(reject.map(|(code, _)| code), Some(RejectCode::TooDeep));
    // Anys in Anys, which no parser of the record counts.
    let url = nested(1, b"t.co/google.protobuf.Any");
    let anys = (0..200).fold(Vec::new(), |inner, _| [url.clone(), nested(2, &inner)].concat());
    let reject = shred_by(&Corpus::load().mapping(NODE), &nested(2, &nested(10, &nested(1, &anys)))).err();
    assert_eq!(reject.map(|(code, _)| code), Some(RejectCode::OutOfRange));
}

#[test]
fn malformed_in_json() {
    let code = |child: &[u8]| shred_by(&Corpus::load().mapping(NODE), &nested(2, child)).err().map(|(code, _)| code);
    assert_eq!(code(b"\x0a\x05a"), Some(RejectCode::Truncated));
    assert_eq!(code(b"\x0a\x01\xff"), Some(RejectCode::InvalidUtf8));
    // Overwritten, cleared, or replaced under its key: read all the same.
    assert_eq!(code(b"\x0a\x01\xff\x0a\x01a"), Some(RejectCode::InvalidUtf8));
    assert_eq!(code(b"\x2a\x02\x0a\x01\x3a\x01t"), Some(RejectCode::Truncated));
    assert_eq!(code(b"\x22\x04\x12\x02\x0a\x01\x22\x00"), Some(RejectCode::Truncated));
    assert_eq!(code(b"\x42\x05\xa2\x01\x02\x01\xff"), Some(RejectCode::Truncated));
    assert_eq!(code(b"\x0c"), Some(RejectCode::BadGroup));
    assert_eq!(code(b"\x00"), Some(RejectCode::BadTag));
    // Half a field in one piece and half in the next are no field.
    let halves = [nested(2, b"\x0a\x02a"), nested(2, b"b")].concat();
    let reject = shred_by(&Corpus::load().mapping(NODE), &halves).err();
    assert_eq!(reject.map(|(code, _)| code), Some(RejectCode::Truncated));
    let missing = "back_: a required field is missing".replace("back_", "round.back");
    refused("corpus.circular.Circular", b"\x0b\x0a\x00\x0c\x10\x01", RejectCode::RequiredMissing, &missing);
}

#[test]
fn structs_as_json() {
    let structs = "corpus.structs.Structs";
    let of = |value: &[u8]| nested(2, value);
    let check = |value: &[u8], expected: &str, raw: bool| {
        shred(structs, &of(value)).is("value", text(expected)).raw(raw);
    };
    check(b"\x08\x00", "null", false);
    check(b"\x08\x05", "null", true);
    check(b"", "null", true);
    check(b"\x11\0\0\0\0\0\0\xf8\x3f", "1.5", false);
    check(b"\x11\0\0\0\0\0\0\xf8\x7f", "\"NaN\"", true);
    check(b"\x11\0\0\0\0\0\0\xf0\xff", "\"-Infinity\"", true);
    check(b"\x1a\x01s", "\"s\"", false);
    check(b"\x20\x00", "false", false);
    check(b"\x2a\x07\x0a\x05\x0a\x01k\x12\x00", r#"{"k":null}"#, true);
    check(b"\x2a\x09\x0a\x07\x0a\x01k\x12\x02\x20\x01", r#"{"k":true}"#, false);
    check(b"\x32\x08\x0a\x02\x20\x01\x0a\x02\x32\x00", "[true,[]]", false);
    // The later kind.
    check(b"\x20\x01\x1a\x01s", "\"s\"", false);
    shred(structs, b"\x0a\x00\x1a\x00\x22\x00")
        .is("struct", text("{}"))
        .is("list", text("[]"))
        .is("structs", Cell::List(vec![text("{}")]))
        .is("none", text("NULL_VALUE"))
        .raw(false);
    // An entry without a value is a Value without a kind.
    shred(structs, b"\x32\x03\x0a\x01k").is("value_by_name", Cell::Map(vec![(text("k"), text("null"))])).raw(true);
    shred(structs, b"\x42\x02\x20\x01\x4a\x00").is("one", Cell::Null).is("other", text("[]")).raw(false);
}

#[test]
fn topics_of_well_known_types_that_nest() {
    shred("google.protobuf.Struct", b"\x0a\x07\x0a\x01k\x12\x02\x20\x01").is("value", text(r#"{"k":true}"#)).raw(false);
    shred("google.protobuf.Value", b"").is("value", text("null")).raw(true);
    shred("google.protobuf.ListValue", b"\x0a\x02\x20\x01\x12\x00").is("value", text("[true]")).raw(true);
    shred("google.protobuf.Any", b"\x0a\x01u\x12\x01v")
        .is("value.type_url", text("u"))
        .is("value.value", Cell::Bytes(b"v".to_vec()))
        .raw(false);
    refused(
        "google.protobuf.Struct",
        b"\x0a\x01",
        RejectCode::Truncated,
        "value: the data ends inside a value, at byte 0",
    );
}

#[test]
fn json_by_choice() {
    let corpus = Corpus::load();
    let chosen = |options| create(&corpus.pool, "corpus.event.Event", &options).unwrap();
    let record = b"\x22\x02\x08\x01\x32\x03\x0a\x01s\x32\x00";
    let named = chosen(mapping::Options { json: vec!["items".into(), "user".into()], ..mapping::Options::default() });
    shred_by(&named, record).unwrap().is("items", Cell::List(vec![text(r#"{"sku":"s"}"#), text("{}")])).raw(false);
    let below = chosen(mapping::Options { json_below: Some(1), ..mapping::Options::default() });
    let row = shred_by(&below, record).unwrap();
    assert!(matches!(column(&row.0, 0, "user"), Cell::Text(user) if user.starts_with("{\"id\":")));
    row.is("items", Cell::List(vec![text(r#"{"sku":"s"}"#), text("{}")])).raw(false);
}

#[test]
fn two_thousand_fields() {
    let folder = tempfile::tempdir().unwrap();
    let fields: String = (1..=2000).map(|n| format!("  optional int32 f{n} = {};\n", n * 268_435)).collect();
    std::fs::write(folder.path().join("t.proto"), format!("syntax = \"proto3\";\nmessage Wide {{\n{fields}}}\n"))
        .unwrap();
    let pool = calve::schema::load(&SchemaSource::Protos(folder.path().into())).unwrap();
    let mapping = create(&pool, "Wide", &mapping::Options::default()).unwrap();
    let record: Vec<u8> =
        (1..=2000u64).rev().step_by(3).flat_map(|n| [varint((n * 268_435) << 3), varint(n)].concat()).collect();
    let row = shred_by(&mapping, &record).unwrap();
    for n in 1..=2000 {
        let expected = if (2000 - n) % 3 == 0 { Cell::Int(n) } else { Cell::Null };
        assert_eq!(column(&row.0, 0, &format!("f{n}")), expected);
    }
    row.raw(false);
}
