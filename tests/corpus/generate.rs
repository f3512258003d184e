//! Random messages of any schema, in any form that Protobuf's wire format allows.
//!
//! Shared by the differential test, the fuzz target and the bench; the module around it provides `model`.

use rand::Rng;
use rand::seq::SliceRandom;

use super::model::{Cardinality, Field, Kind, MessageId, Pool, Presence};

/// What the messages are like.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Probability that a field without need is there.
    pub presence: f64,
    /// Elements of a list, entries of a map: at most so many.
    pub elements_max: usize,
    /// Bytes of a string: at most so many.
    pub text_max: usize,
    /// Probability that a string is not ASCII.
    pub foreign: f64,
    /// Legal but unusual forms: any field order, messages in pieces, overlong varints, repeated scalars packed and one
    /// by one, fields and map keys twice, several members of a oneof, entries without key or value.
    pub variants: bool,
    /// Fields that the schema does not know, and known ones with another wire type.
    pub unknown: bool,
    /// Values that a column or a well-known type refuses, required fields left out.
    pub refused: bool,
}

impl Style {
    /// What writers emit.
    pub const PLAIN: Style = Style {
        presence: 0.8,
        elements_max: 5,
        text_max: 24,
        foreign: 0.2,
        variants: false,
        unknown: false,
        refused: false,
    };
    /// All that is legal.
    pub const WILD: Style = Style {
        presence: 0.5,
        elements_max: 4,
        text_max: 40,
        foreign: 0.2,
        variants: true,
        unknown: true,
        refused: false,
    };
    /// And what is well-formed but refused.
    pub const REFUSED: Style = Style { refused: true, ..Style::WILD };
}

/// A random message's bytes.
pub fn message(pool: &Pool, id: MessageId, style: Style, rng: &mut impl Rng) -> Vec<u8> {
    let mut parts = Vec::new();
    fields(pool, id, style, rng, &mut parts, 0);
    if style.variants && rng.random_bool(0.5) {
        parts.shuffle(rng);
    }
    parts.concat()
}

/// Appends one part (tags and values) for each occurrence of each field.
fn fields(pool: &Pool, id: MessageId, style: Style, rng: &mut impl Rng, parts: &mut Vec<Vec<u8>>, depth: usize) {
    let definition = pool.message(id);
    if let Some(special) = special(pool, &definition.full_name, style, rng, depth) {
        parts.extend(special);
        return;
    }
    let mut sorted: Vec<&Field> = definition.fields.iter().collect();
    sorted.sort_by_key(|field| field.number);
    // Of a oneof one member, as a rule.
    let chosen: Vec<u32> = (0..definition.oneofs.len())
        .map(|oneof| {
            let members: Vec<u32> =
                sorted.iter().filter(|field| field.oneof == Some(oneof)).map(|field| field.number).collect();
            members[rng.random_range(0..members.len())]
        })
        .collect();
    for field in sorted {
        let member = field.oneof.is_some_and(|oneof| chosen[oneof] == field.number);
        let required = field.cardinality == Cardinality::Singular(Presence::Required);
        let present = match field.oneof {
            Some(_) if style.variants && rng.random_bool(0.2) => true,
            Some(_) => member && rng.random_bool(0.9),
            None if required => !(style.refused && rng.random_bool(0.1)),
            None => rng.random_bool(style.presence),
        };
        // What contains itself must end somewhere.
        let deeper = matches!(field.kind, Kind::Message(to) | Kind::Group(to) if reaches(pool, to, id));
        if !present || depth > 12 || deeper && !rng.random_bool([0.5, 0.4, 0.3, 0.1, 0.0][depth.min(4)]) {
            continue;
        }
        if definition.message_set {
            parts.push(item(pool, field, style, rng, depth));
            continue;
        }
        match field.cardinality {
            Cardinality::Singular(_) => {
                let times = if style.variants && rng.random_bool(0.15) { 2 } else { 1 };
                for _ in 0..times {
                    parts.push(single(pool, field.number, field.kind, style, rng, depth));
                }
            }
            Cardinality::Repeated => repeated(pool, field, style, rng, parts, depth),
            Cardinality::Map { key } => {
                let mut keys = Vec::new();
                for _ in 0..rng.random_range(0..=style.elements_max) {
                    let (key, entry) = entry(pool, key, field.kind, style, rng, depth);
                    if !style.variants && keys.contains(&key) {
                        continue;
                    }
                    keys.push(key);
                    let mut part = tag(field.number, 2, style, rng);
                    delimited(&entry, style, rng, &mut part);
                    parts.push(part);
                }
            }
        }
    }
    if style.unknown && rng.random_bool(0.1) {
        parts.push(unknown(pool, id, style, rng, 0));
    }
}

/// Whether a message can hold another one, or is it.
fn reaches(pool: &Pool, from: MessageId, to: MessageId) -> bool {
    let (mut seen, mut open) = (vec![from], vec![from]);
    while let Some(id) = open.pop() {
        if id == to {
            return true;
        }
        for field in &pool.message(id).fields {
            if let Kind::Message(next) | Kind::Group(next) = field.kind
                && !seen.contains(&next)
            {
                seen.push(next);
                open.push(next);
            }
        }
    }
    false
}

/// An item of a MessageSet, its two fields in either order; or the same as an ordinary field.
fn item(pool: &Pool, field: &Field, style: Style, rng: &mut impl Rng, depth: usize) -> Vec<u8> {
    if style.variants && field.number < 1 << 29 && rng.random_bool(0.2) {
        return single(pool, field.number, field.kind, style, rng, depth);
    }
    let mut type_id = tag(2, 0, style, rng);
    let unknown = style.unknown && rng.random_bool(0.1);
    varint(if unknown { 77 } else { field.number.into() }, style, rng, &mut type_id);
    let mut message = tag(3, 2, style, rng);
    value(pool, field.kind, style, rng, depth + 1, &mut message);
    let mut parts = [type_id, message];
    if style.variants && rng.random_bool(0.3) {
        parts.reverse();
    }
    [tag(1, 3, style, rng), parts.concat(), tag(1, 4, style, rng)].concat()
}

/// One occurrence of a singular field, or one element.
fn single(pool: &Pool, number: u32, kind: Kind, style: Style, rng: &mut impl Rng, depth: usize) -> Vec<u8> {
    let mut part = tag(number, wire(kind), style, rng);
    value(pool, kind, style, rng, depth, &mut part);
    if let Kind::Group(_) = kind {
        part.extend(tag(number, 4, style, rng));
    }
    part
}

fn repeated(pool: &Pool, field: &Field, style: Style, rng: &mut impl Rng, parts: &mut Vec<Vec<u8>>, depth: usize) {
    let packable = !matches!(wire(field.kind), 2 | 3);
    let mut left = rng.random_range(0..=style.elements_max);
    while left > 0 {
        let packed = packable && if style.variants { rng.random_bool(0.5) } else { field.packed };
        if packed {
            let count = if style.variants { rng.random_range(0..=left) } else { left };
            let mut body = Vec::new();
            for _ in 0..count {
                value(pool, field.kind, style, rng, depth, &mut body);
            }
            let mut part = tag(field.number, 2, style, rng);
            delimited(&body, style, rng, &mut part);
            parts.push(part);
            left -= count.max(1);
        } else {
            parts.push(single(pool, field.number, field.kind, style, rng, depth));
            left -= 1;
        }
    }
}

/// An entry's first key (or value) and all of it.
fn entry(
    pool: &Pool,
    key: Kind,
    kind: Kind,
    style: Style,
    rng: &mut impl Rng,
    depth: usize,
) -> (Option<Vec<u8>>, Vec<u8>) {
    let mut parts = Vec::new();
    let odd = |rng: &mut _| style.variants && Rng::random_bool(rng, 0.1);
    for (number, kind) in [(1, key), (2, kind)] {
        let times = if odd(rng) { rng.random_range(0..=2) } else { 1 };
        for _ in 0..times {
            // Few keys, so that some come twice.
            parts.push(match kind {
                Kind::String if number == 1 && style.variants => {
                    let mut part = tag(1, 2, style, rng);
                    delimited(["", "a", "b", "c", "ключ"][rng.random_range(0..5)].as_bytes(), style, rng, &mut part);
                    part
                }
                kind => single(pool, number, kind, style, rng, depth),
            });
        }
    }
    let first = parts.first().cloned();
    if odd(rng) {
        parts.shuffle(rng);
    }
    (first, parts.concat())
}

fn wire(kind: Kind) -> u32 {
    match kind {
        Kind::Bool
        | Kind::Int32
        | Kind::Sint32
        | Kind::Int64
        | Kind::Sint64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Enum(_) => 0,
        Kind::Sfixed64 | Kind::Fixed64 | Kind::Double => 1,
        Kind::Sfixed32 | Kind::Fixed32 | Kind::Float => 5,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Group(_) => 3,
    }
}

fn value(pool: &Pool, kind: Kind, style: Style, rng: &mut impl Rng, depth: usize, out: &mut Vec<u8>) {
    match kind {
        Kind::Bool => varint(u64::from(rng.random_bool(0.5)), style, rng, out),
        Kind::Int32 => {
            let number = integer(rng, 32) as i32;
            varint(i64::from(number) as u64, style, rng, out);
        }
        Kind::Uint32 | Kind::Sint32 => varint(integer(rng, 32), style, rng, out),
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 => varint(integer(rng, 64), style, rng, out),
        Kind::Enum(id) => {
            let values = &pool.enumeration(id).values;
            let known = values[rng.random_range(0..values.len())].number;
            let number = if style.unknown && rng.random_bool(0.15) { rng.random_range(-3..40) } else { known };
            varint(i64::from(number) as u64, style, rng, out);
        }
        Kind::Sfixed32 | Kind::Fixed32 => out.extend((integer(rng, 32) as u32).to_le_bytes()),
        Kind::Sfixed64 | Kind::Fixed64 => out.extend(integer(rng, 64).to_le_bytes()),
        Kind::Float => out.extend((real(rng) as f32).to_le_bytes()),
        Kind::Double => out.extend(real(rng).to_le_bytes()),
        Kind::String => {
            let text = text(style, rng);
            delimited(text.as_bytes(), style, rng, out);
        }
        Kind::Bytes => {
            let bytes: Vec<u8> = (0..rng.random_range(0..=style.text_max)).map(|_| rng.random()).collect();
            delimited(&bytes, style, rng, out);
        }
        Kind::Message(id) | Kind::Group(id) => {
            let mut parts = Vec::new();
            fields(pool, id, style, rng, &mut parts, depth + 1);
            if style.variants && rng.random_bool(0.3) {
                parts.shuffle(rng);
            }
            match kind {
                Kind::Group(_) => out.extend(parts.concat()),
                _ => delimited(&parts.concat(), style, rng, out),
            }
        }
    }
}

/// The fields of messages whose values have ranges.
fn special(pool: &Pool, name: &str, style: Style, rng: &mut impl Rng, depth: usize) -> Option<Vec<Vec<u8>>> {
    let refused = style.refused && rng.random_bool(0.05);
    match name {
        "google.protobuf.Any" => return Some(any(pool, style, rng, depth, refused)),
        "google.protobuf.FieldMask" => {
            let paths = if refused { &["fooBar", "foo__bar", "foo_"] } else { &["foo_bar", "a.b_c", "x"] };
            let count = rng.random_range(0..=style.elements_max.min(3));
            return Some(paths[..count].iter().map(|path| bytes_field(1, path.as_bytes(), style, rng)).collect());
        }
        _ => {}
    }
    let numbers: Vec<(u32, i64)> = match name {
        "google.protobuf.Timestamp" => {
            let seconds = match rng.random_range(0..10) {
                _ if refused => 253_402_300_800,
                0 => 0,
                1 => -62_135_596_800,
                2 => 253_402_300_799,
                3 => rng.random_range(-62_135_596_800..0),
                _ => rng.random_range(1_500_000_000..2_000_000_000),
            };
            vec![(1, seconds), (2, nanos(style, rng))]
        }
        "google.protobuf.Duration" => {
            let seconds: i64 = rng.random_range(-315_576_000_000..=315_576_000_000);
            let nanos = nanos(style, rng) * seconds.signum();
            vec![(1, seconds), (2, if refused { 1_000_000_000 } else { nanos })]
        }
        "google.type.Date" if rng.random_bool(0.9) => {
            vec![(1, rng.random_range(1..=9999)), (2, rng.random_range(1..=12)), (3, rng.random_range(1..=28))]
        }
        "google.type.Date" => {
            vec![(1, rng.random_range(-1..=10_000)), (2, rng.random_range(-1..=14)), (3, rng.random_range(-1..=32))]
        }
        _ => return None,
    };
    // Zero is left out, as writers do.
    let set = numbers.into_iter().filter(|(_, value)| *value != 0);
    Some(
        set.map(|(number, value)| {
            let mut part = tag(number, 0, style, rng);
            varint(value as u64, style, rng, &mut part);
            part
        })
        .collect(),
    )
}

/// A message of some type in an Any, or of one that nobody knows.
fn any(pool: &Pool, style: Style, rng: &mut impl Rng, depth: usize, refused: bool) -> Vec<Vec<u8>> {
    const TYPES: [&str; 5] = [
        "corpus.tiny.Tiny",
        "corpus.recursive.Values",
        "google.protobuf.Timestamp",
        "google.protobuf.StringValue",
        "google.protobuf.Any",
    ];
    if style.unknown && rng.random_bool(0.1) {
        return vec![bytes_field(1, b"example.com/nobody.Knows", style, rng), bytes_field(2, b"\xff\x00", style, rng)];
    }
    let name = TYPES[rng.random_range(0..if depth > 6 { 4 } else { 5 })];
    let Some(id) = pool.find(name) else { return Vec::new() };
    let mut parts = Vec::new();
    fields(pool, id, style, rng, &mut parts, depth + 3);
    let mut payload = parts.concat();
    if refused {
        payload.push(0xff);
    }
    let url = format!("type.googleapis.com/{name}");
    vec![bytes_field(1, url.as_bytes(), style, rng), bytes_field(2, &payload, style, rng)]
}

fn bytes_field(number: u32, bytes: &[u8], style: Style, rng: &mut impl Rng) -> Vec<u8> {
    let mut part = tag(number, 2, style, rng);
    delimited(bytes, style, rng, &mut part);
    part
}

fn nanos(style: Style, rng: &mut impl Rng) -> i64 {
    match rng.random_range(0..4) {
        0 => 0,
        1 if style.unknown => rng.random_range(0..=999_999_999),
        1 => 999_999_000,
        _ => rng.random_range(0..=999_999) * 1000,
    }
}

/// A field that the message has not, or one of its own with another wire type.
fn unknown(pool: &Pool, id: MessageId, style: Style, rng: &mut impl Rng, depth: usize) -> Vec<u8> {
    let definition = pool.message(id);
    let other = definition.fields.get(rng.random_range(0..definition.fields.len() + 1));
    let (number, wire) = match other {
        // Packed or not is no difference for a repeated scalar; eight bytes are none for anything else.
        Some(field) if wire(field.kind) != 1 && field.number < 1 << 29 && rng.random_bool(0.5) => (field.number, 1),
        _ => {
            let number = loop {
                let bits = rng.random_range(1..=29);
                let number = rng.random_range(1..1u32 << bits);
                // A MessageSet's items are its field 1.
                if definition.field(number).is_none() && (number > 1 || !definition.message_set) {
                    break number;
                }
            };
            (number, [0, 1, 2, 3, 5][rng.random_range(0..5)])
        }
    };
    let mut part = tag(number, wire, style, rng);
    match wire {
        0 => varint(integer(rng, 64), style, rng, &mut part),
        1 => part.extend(rng.random::<[u8; 8]>()),
        5 => part.extend(rng.random::<[u8; 4]>()),
        2 => {
            let bytes: Vec<u8> = (0..rng.random_range(0..20)).map(|_| rng.random()).collect();
            delimited(&bytes, style, rng, &mut part);
        }
        _ => {
            if depth < 5 {
                for _ in 0..rng.random_range(0..3) {
                    part.extend(unknown(pool, id, style, rng, depth + 1));
                }
            }
            part.extend(tag(number, 4, style, rng));
        }
    }
    part
}

fn tag(number: u32, wire: u32, style: Style, rng: &mut impl Rng) -> Vec<u8> {
    let mut out = Vec::new();
    encode(u64::from(number << 3 | wire), &mut out);
    if style.variants && rng.random_bool(0.05) {
        let length = rng.random_range(out.len()..=5);
        overlong(&mut out, length);
    }
    out
}

fn varint(value: u64, style: Style, rng: &mut impl Rng, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    if style.variants && rng.random_bool(0.05) {
        let length = rng.random_range(bytes.len()..=10);
        overlong(&mut bytes, length);
    }
    out.extend(bytes);
}

fn delimited(bytes: &[u8], style: Style, rng: &mut impl Rng, out: &mut Vec<u8>) {
    varint(bytes.len() as u64, style, rng, out);
    out.extend_from_slice(bytes);
}

fn encode(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The same varint in more bytes.
fn overlong(bytes: &mut Vec<u8>, length: usize) {
    while bytes.len() < length {
        if let Some(last) = bytes.last_mut() {
            *last |= 0x80;
        }
        bytes.push(0);
    }
}

/// Small numbers, large ones, and the edges.
fn integer(rng: &mut impl Rng, bits: u32) -> u64 {
    match rng.random_range(0..8) {
        0 => 0,
        1 => u64::MAX >> (64 - bits),
        2 => 1 << (bits - 1),
        3..=5 => rng.random_range(0..1000),
        _ => rng.random::<u64>() >> rng.random_range(64 - bits..64),
    }
}

fn real(rng: &mut impl Rng) -> f64 {
    match rng.random_range(0..12) {
        0 => 0.0,
        1 => -0.0,
        2 => f64::NAN,
        3 => f64::INFINITY,
        4 => f64::NEG_INFINITY,
        5 => f64::MIN_POSITIVE,
        _ => rng.random_range(-1e6..1e6),
    }
}

fn text(style: Style, rng: &mut impl Rng) -> String {
    let length = rng.random_range(0..=style.text_max);
    if !rng.random_bool(style.foreign) {
        (0..length).map(|_| rng.random_range(b' '..=b'~') as char).collect()
    } else {
        (0..length).map(|_| ['ä', '€', '𝄞', 'x', 'Ж', '漢', '\0'][rng.random_range(0..7)]).collect()
    }
}
