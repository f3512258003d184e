//! Mutations that know the wire format and the schemas: what comes out is nearly a message, which random bytes are not.

use calve::schema::model::{Cardinality, Kind, MessageId, Pool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::corpus::generate::{self, Style};
use crate::support::hostile::{Hostile, Input};

/// Changes `data[..size]`, which has room for `room` bytes; its new size.
pub fn mutate(hostile: &Hostile, data: &mut [u8], size: usize, room: usize, seed: u32) -> usize {
    let mut rng = StdRng::seed_from_u64(seed.into());
    if rng.random_ratio(1, 3) {
        return libfuzzer_sys::fuzzer_mutate(data, size, room);
    }
    let mut input = Input::parse(&data[..size]).unwrap_or(Input { topic: rng.random(), flags: 0, records: vec![] });
    for _ in 0..rng.random_range(1..=3) {
        change(hostile, &mut input, &mut rng);
    }
    let mut bytes = input.bytes();
    bytes.truncate(room);
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// Small messages of all styles.
pub fn style(rng: &mut StdRng) -> Style {
    let style = match rng.random_range(0..3) {
        0 => Style::PLAIN,
        1 => Style::WILD,
        _ => Style::REFUSED,
    };
    Style { presence: [0.02, 0.1, 0.3][rng.random_range(0..3)], elements_max: 3, text_max: 10, ..style }
}

fn change(hostile: &Hostile, input: &mut Input, rng: &mut StdRng) {
    let topic = hostile.topic(input.topic);
    let (pool, message) = (&topic.mapping.pool, topic.mapping.message);
    let count = input.records.len();
    match rng.random_range(0..40) {
        0 => input.topic = rng.random(),
        1 => input.flags ^= 1 << rng.random_range(0..2),
        _ if count == 0 => input.records.push(generate::message(pool, message, style(rng), rng)),
        2..=3 if count < 4 => input.records.push(generate::message(pool, message, style(rng), rng)),
        4 => {
            let record = generate::message(pool, message, style(rng), rng);
            input.records[rng.random_range(0..count)] = record;
        }
        5..=6 if count > 1 => drop(input.records.remove(rng.random_range(0..count))),
        7 if count < 4 => input.records.push(input.records[rng.random_range(0..count)].clone()),
        8 => input.records.swap(rng.random_range(0..count), rng.random_range(0..count)),
        _ => {
            let record = &mut input.records[rng.random_range(0..count)];
            // Whatever frame there is stays, more often than not.
            let frame = if rng.random_ratio(1, 8) { rng.random_range(0..8).min(record.len()) } else { 0 };
            let changed = message_changed(pool, Some(message), &record[frame..], rng, 0);
            record.truncate(frame);
            record.extend(changed);
        }
    }
}

/// A tag and the bytes of its value, or what could not be read at the end.
#[derive(Clone)]
struct Part {
    tag: u64,
    /// The tag as it was written.
    written: Vec<u8>,
    value: Vec<u8>,
}

impl Part {
    fn wire(&self) -> u64 {
        self.tag & 7
    }
}

fn message_changed(pool: &Pool, id: Option<MessageId>, bytes: &[u8], rng: &mut StdRng, depth: usize) -> Vec<u8> {
    let mut parts = parts(bytes);
    let at = if parts.is_empty() { 0 } else { rng.random_range(0..parts.len()) };
    match rng.random_range(0..16) {
        0 if !parts.is_empty() => drop(parts.remove(at)),
        1 if !parts.is_empty() => {
            let to = rng.random_range(0..=parts.len());
            parts.insert(to, parts[at].clone());
        }
        2 if !parts.is_empty() => {
            let to = rng.random_range(0..parts.len());
            parts.swap(at, to);
        }
        3..=4 => {
            let new = match id {
                Some(id) => generate::message(pool, id, style(rng), rng),
                None => vec![8 << rng.random_range(0..4) | rng.random_range(0..8), rng.random(), rng.random()],
            };
            let new = self::parts(&new);
            if !new.is_empty() {
                let new = new[rng.random_range(0..new.len())].clone();
                parts.insert(rng.random_range(0..=parts.len()), new);
            }
        }
        5 if !parts.is_empty() => {
            // Another field with the same value, or the same one of another wire type.
            let tag = parts[at].tag;
            let tag =
                if rng.random() { tag & !7 | rng.random_range(0..6) } else { tag & 7 | rng.random_range(1..24) << 3 };
            parts[at].written = varint(tag);
        }
        6 if !parts.is_empty() => overlong(&mut parts[at].written, rng.random_range(1..6)),
        7 if !parts.is_empty() && parts[at].wire() == 2 => split(&mut parts, at, rng),
        8 if !parts.is_empty() => {
            let value = &mut parts[at].value;
            value.truncate(rng.random_range(0..=value.len()));
        }
        _ if !parts.is_empty() && parts[at].written.is_empty() => {
            parts[at].value = bytes_changed(&parts[at].value, rng)
        }
        _ if !parts.is_empty() => {
            let part = &mut parts[at];
            let value = value_changed(pool, id, part, rng, depth);
            part.value = value;
        }
        _ => {}
    }
    parts.into_iter().flat_map(|part| [part.written, part.value].concat()).collect()
}

fn value_changed(pool: &Pool, id: Option<MessageId>, part: &Part, rng: &mut StdRng, depth: usize) -> Vec<u8> {
    match part.wire() {
        0 => match rng.random_range(0..6) {
            0 => varint(rng.random()),
            1 => varint(u64::MAX >> rng.random_range(0..64)),
            2 => varint(1 << rng.random_range(0..64)),
            3 => {
                let mut value = part.value.clone();
                overlong(&mut value, rng.random_range(2..12));
                value
            }
            4 => bytes_changed(&part.value, rng),
            _ => varint(rng.random_range(0..50)),
        },
        2 => {
            let mut rest = part.value.as_slice();
            let Some(_) = take_varint(&mut rest) else { return bytes_changed(&part.value, rng) };
            let inner = field(pool, id, part.tag >> 3);
            let changed = match inner {
                Inner::Message(inner) if depth < 12 => message_changed(pool, Some(inner), rest, rng, depth + 1),
                Inner::Entry if depth < 12 => message_changed(pool, None, rest, rng, depth + 1),
                Inner::Other if depth < 12 && rng.random_ratio(1, 4) => {
                    message_changed(pool, None, rest, rng, depth + 1)
                }
                _ => bytes_changed(rest, rng),
            };
            let length = match rng.random_range(0..20) {
                0 => changed.len() + 1,
                1 => changed.len().saturating_sub(1),
                _ => changed.len(),
            };
            [varint(length as u64), changed].concat()
        }
        3 => {
            // Up to the end of the group, which stays.
            let inner = match field(pool, id, part.tag >> 3) {
                Inner::Message(inner) => Some(inner),
                _ => None,
            };
            message_changed(pool, inner, &part.value, rng, depth + 1)
        }
        _ => bytes_changed(&part.value, rng),
    }
}

enum Inner {
    Message(MessageId),
    Entry,
    Other,
}

fn field(pool: &Pool, id: Option<MessageId>, number: u64) -> Inner {
    let field = id.and_then(|id| pool.message(id).field(number as u32));
    match field.map(|field| (field.cardinality, field.kind)) {
        Some((Cardinality::Map { .. }, _)) => Inner::Entry,
        Some((_, Kind::Message(id) | Kind::Group(id))) => Inner::Message(id),
        _ => Inner::Other,
    }
}

fn bytes_changed(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    const WORDS: [&[u8]; 12] = [
        b"\xff",
        b"\x80",
        b"\xc3\xa4",
        b"\xe2\x82\xac",
        b"\xf0\x9d\x84\x9e",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"_",
        b".",
        b"type.googleapis.com/corpus.tiny.Tiny",
        b"type.googleapis.com/google.protobuf.Any",
        b"\x80\x94\xeb\xdc\x03",
    ];
    let mut bytes = bytes.to_vec();
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..5) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.random()),
        2 if at < bytes.len() => bytes[at] = rng.random(),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        _ => drop(bytes.splice(at..at, WORDS[rng.random_range(0..WORDS.len())].iter().copied())),
    }
    bytes
}

/// A message in two pieces, which merge.
fn split(parts: &mut Vec<Part>, at: usize, rng: &mut StdRng) {
    let mut rest = parts[at].value.as_slice();
    if take_varint(&mut rest).is_none() {
        return;
    }
    let inner = self::parts(rest);
    let (one, other) = inner.split_at(rng.random_range(0..=inner.len()));
    let piece = |inner: &[Part]| {
        let bytes: Vec<u8> =
            inner.iter().flat_map(|part| [part.written.clone(), part.value.clone()].concat()).collect();
        Part { value: [varint(bytes.len() as u64), bytes].concat(), ..parts[at].clone() }
    };
    let (one, other) = (piece(one), piece(other));
    parts[at] = one;
    parts.insert(rng.random_range(at + 1..=parts.len()), other);
}

fn parts(bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        let tag = take_varint(&mut rest);
        let at = before.len() - rest.len();
        if !tag.is_some_and(|tag| skip(&mut rest, tag, 0).is_some()) {
            parts.push(Part { tag: 0, written: Vec::new(), value: before.to_vec() });
            break;
        }
        let end = before.len() - rest.len();
        let tag = tag.unwrap_or_default();
        parts.push(Part { tag, written: before[..at].to_vec(), value: before[at..end].to_vec() });
    }
    parts
}

fn skip(rest: &mut &[u8], tag: u64, depth: usize) -> Option<()> {
    let length = match tag & 7 {
        0 => return take_varint(rest).map(drop),
        1 => 8,
        5 => 4,
        2 => take_varint(rest)? as usize,
        3 if depth < 100 => loop {
            let inner = take_varint(rest)?;
            if inner & 7 == 4 {
                return Some(());
            }
            skip(rest, inner, depth + 1)?;
        },
        _ => return None,
    };
    *rest = rest.get(length..)?;
    Some(())
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f).unbounded_shl(7 * index);
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
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
