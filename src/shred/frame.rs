//! What may stand around a message in a record's value.

use std::fmt::Write;
use std::sync::Arc;

use super::wire;
use crate::batch::{RawBatch, RawRecord, RejectCode};
use crate::schema::mapping::Mapping;

/// How a record holds its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The value is the message.
    #[default]
    None,
    /// The value is a varint, which is the message's length, and the message.
    LengthDelimited,
    /// The value is a byte 0, a schema id (four bytes, big endian), message indexes, and the message, as Confluent's
    /// serializers write it.
    Confluent,
    /// The value is the message. The record's last header [`SCHEMA_ID_HEADER`] is a byte 0 and a schema id (four bytes,
    /// big endian), or a byte 1 and a schema's GUID (16 bytes), as Confluent's `HeaderSchemaIdSerializer` writes it;
    /// message indexes may follow.
    Header,
}

impl Framing {
    /// The message within a value whose frame was found right before, whatever it names.
    pub fn message(self, value: &[u8]) -> Result<&[u8], Misframed> {
        match self {
            Framing::None | Framing::Header => Ok(value),
            Framing::LengthDelimited => {
                let buffer = [value, &[0; wire::PADDING]].concat();
                length_delimited(&buffer, 0, value.len()).map(|framed| &value[framed.start..framed.end])
            }
            Framing::Confluent => {
                let mut rest = value.get(5..).ok_or_else(|| Misframed::bad("the value ends inside its schema id"))?;
                indexes(&mut rest).map_err(Misframed::bad)?;
                Ok(rest)
            }
        }
    }
}

/// Confluent's name for the header with the schema id of a record's value.
pub const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// Takes frames off; made for one topic's message.
#[derive(Debug)]
pub struct Unframe {
    pub framing: Framing,
    /// The message's full name.
    message: String,
    file: Arc<str>,
    /// The message indexes of the messages that are declared in the message's file. Some have two: which of a message's
    /// nested types count is not agreed among clients.
    indexes: Vec<(Vec<u32>, String)>,
    /// Those of the topic's message, as most serializers write them: no others begin like that.
    usual: Vec<u8>,
}

/// Where the message is in a buffer, and the schema that the frame names by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed {
    pub start: usize,
    pub end: usize,
    pub schema_id: Option<i32>,
}

/// Why there is no message in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misframed {
    pub code: RejectCode,
    pub detail: String,
    pub schema_id: Option<i32>,
}

impl Misframed {
    #[cold]
    fn bad(detail: impl Into<String>) -> Self {
        Misframed { code: RejectCode::BadFrame, detail: detail.into(), schema_id: None }
    }
}

impl Unframe {
    pub fn new(framing: Framing, mapping: &Mapping) -> Self {
        let message = mapping.pool.message(mapping.message);
        let mut indexes = Vec::new();
        if matches!(framing, Framing::Confluent | Framing::Header) {
            for other in mapping.pool.messages.iter().filter(|other| other.place.file == message.place.file) {
                indexes.push((other.place.index.clone(), other.full_name.clone()));
                if other.place.written != other.place.index {
                    indexes.push((other.place.written.clone(), other.full_name.clone()));
                }
            }
        }
        let usual = written(&message.place.index);
        Unframe { framing, message: message.full_name.clone(), file: message.place.file.clone(), indexes, usual }
    }

    /// Takes the frame off `buffer[start..end]`, the value of `record`.
    pub fn value(
        &self,
        batch: &RawBatch,
        record: &RawRecord,
        buffer: &[u8],
        start: usize,
        end: usize,
    ) -> Result<Framed, Misframed> {
        match self.framing {
            Framing::None => Ok(Framed { start, end, schema_id: None }),
            Framing::LengthDelimited => length_delimited(buffer, start, end),
            Framing::Confluent => self.confluent(buffer, start, end),
            Framing::Header => {
                let schema_id = self.header(header(batch, record))?;
                Ok(Framed { start, end, schema_id })
            }
        }
    }

    fn confluent(&self, buffer: &[u8], start: usize, end: usize) -> Result<Framed, Misframed> {
        let mut rest = &buffer[start..end];
        match take(&mut rest) {
            Some([0]) => {}
            Some([magic]) => return Err(Misframed::bad(format!("the value starts with the byte {magic}, not with 0"))),
            None => return Err(Misframed::bad("the value is empty; a frame starts with a byte 0 and a schema id")),
        }
        let id = take(&mut rest).ok_or_else(|| Misframed::bad("the value ends inside its schema id"))?;
        let id = i32::from_be_bytes(id);
        if let Some(message) = rest.strip_prefix(self.usual.as_slice()) {
            return Ok(Framed { start: end - message.len(), end, schema_id: Some(id) });
        }
        let indexes =
            indexes(&mut rest).map_err(|detail| Misframed { schema_id: Some(id), ..Misframed::bad(detail) })?;
        self.check(&indexes, Some(id))?;
        Ok(Framed { start: end - rest.len(), end, schema_id: Some(id) })
    }

    /// The schema id of a header's value; none if it is a GUID.
    fn header(&self, value: Option<&[u8]>) -> Result<Option<i32>, Misframed> {
        let Some(mut rest) = value else {
            return Err(Misframed::bad(format!("the record has no header {SCHEMA_ID_HEADER}")));
        };
        let bad = |what: &str| Misframed::bad(format!("the header {SCHEMA_ID_HEADER} {what}"));
        let id = match take(&mut rest) {
            Some([0]) => {
                let id = take(&mut rest).ok_or_else(|| bad("ends inside its schema id"))?;
                Some(i32::from_be_bytes(id))
            }
            Some([1]) => {
                take::<16>(&mut rest).ok_or_else(|| bad("ends inside its GUID"))?;
                None
            }
            Some([magic]) => {
                return Err(bad(&format!("starts with the byte {magic}, not with 0 (an id) or 1 (a GUID)")));
            }
            None => return Err(bad("is empty")),
        };
        if rest.is_empty() {
            return Ok(id);
        }
        let indexes = indexes(&mut rest)
            .and_then(|indexes| if rest.is_empty() { Ok(indexes) } else { Err("more follows the message indexes") });
        let indexes = indexes.map_err(|what| Misframed { schema_id: id, ..bad(&format!("is not one: {what}")) })?;
        self.check(&indexes, id)?;
        Ok(id)
    }

    /// Whether message indexes name the topic's message, going by the configured schema.
    fn check(&self, indexes: &[u32], schema_id: Option<i32>) -> Result<(), Misframed> {
        let mut named = self.indexes.iter().filter(|(known, _)| known == indexes).map(|(_, name)| name);
        if named.clone().any(|name| *name == self.message) {
            return Ok(());
        }
        let mut detail = format!("the message indexes {indexes:?} name ");
        // Writing to a string does not fail.
        _ = match named.next() {
            Some(name) => write!(detail, "{name}, the topic's message is {}", self.message),
            None => write!(detail, "no message of {}, which declares the topic's {}", self.file, self.message),
        };
        Err(Misframed { code: RejectCode::UnknownMessage, detail, schema_id })
    }
}

fn length_delimited(buffer: &[u8], start: usize, end: usize) -> Result<Framed, Misframed> {
    let (length, message) = wire::bounded_varint(buffer, start, end)
        .map_err(|_| Misframed::bad("the value does not start with a message's length"))?;
    if length == (end - message) as u64 {
        Ok(Framed { start: message, end, schema_id: None })
    } else {
        Err(Misframed::bad("the length in front of the message is not that of the rest of the value"))
    }
}

/// The value of the record's last header with the schema id; a header without a value is none.
fn header<'a>(batch: &'a RawBatch, record: &RawRecord) -> Option<&'a [u8]> {
    let headers = &batch.headers[record.headers.start as usize..record.headers.end as usize];
    let last = headers.iter().rev().find(|(name, _)| batch.bytes(*name) == SCHEMA_ID_HEADER.as_bytes());
    last.and_then(|(_, value)| value.map(|value| batch.bytes(value)))
}

/// Message indexes: their number and each of them as a zigzag varint; the number 0 is short for `[0]`.
fn indexes(rest: &mut &[u8]) -> Result<Vec<u32>, &'static str> {
    const CUT: &str = "the message indexes are cut off, or not varints of 32 bits";
    let count = zigzag(rest).ok_or(CUT)?;
    if count == 0 {
        return Ok(vec![0]);
    }
    // Each takes a byte at least.
    let count = usize::try_from(count).map_err(|_| "the number of message indexes is negative")?;
    if count > rest.len() {
        return Err(CUT);
    }
    let mut indexes = Vec::with_capacity(count);
    for _ in 0..count {
        let index = zigzag(rest).ok_or(CUT)?;
        indexes.push(u32::try_from(index).map_err(|_| "a message index is negative")?);
    }
    Ok(indexes)
}

/// The same the other way round.
fn written(indexes: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match indexes {
        [0] => bytes.push(0),
        _ => {
            let numbers = [indexes.len() as u64].into_iter().chain(indexes.iter().map(|index| u64::from(*index)));
            numbers.for_each(|number| wire::put_varint(&mut bytes, number << 1));
        }
    }
    bytes
}

/// A zigzag varint of 32 bits: five bytes at most.
fn zigzag(rest: &mut &[u8]) -> Option<i32> {
    let mut value = 0u64;
    for index in 0..5 {
        let [byte] = take(rest)?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return u32::try_from(value).ok().map(|value| wire::zigzag32(value.into()));
        }
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unframe(framing: Framing) -> Unframe {
        let known = |index: &[u32], name: &str| (index.to_vec(), format!("shop.{name}"));
        Unframe {
            framing,
            message: "shop.Order.Item".into(),
            file: "shop.proto".into(),
            usual: written(&[1, 1]),
            indexes: vec![
                known(&[0], "Refund"),
                known(&[1], "Order"),
                known(&[1, 0], "Order.TagsEntry"),
                known(&[1, 1], "Order.Item"),
                // Where a client does not count the entry.
                known(&[1, 0], "Order.Item"),
            ],
        }
    }

    #[test]
    fn message_indexes_are_written_as_they_are_read() {
        for of in [&[0_u32] as &[u32], &[1], &[0, 0], &[3, 0, 70_000]] {
            let bytes = written(of);
            let mut rest = bytes.as_slice();
            assert_eq!((indexes(&mut rest).as_deref(), rest), (Ok(of), &[][..]), "{bytes:?}");
        }
        assert_eq!(written(&[0]), [0], "the short form");
    }

    #[test]
    fn length_delimited() {
        let check = |value: &[u8], expected: Option<(usize, usize)>| {
            let buffer = [value, &[0; wire::PADDING]].concat();
            let framed = super::length_delimited(&buffer, 0, value.len()).ok();
            assert_eq!(framed.map(|framed| (framed.start, framed.end)), expected, "{value:x?}");
        };
        check(&[2, 8, 1], Some((1, 3)));
        check(&[0x82, 0, 8, 1], Some((2, 4)));
        check(&[0], Some((1, 1)));
        check(&[], None);
        check(&[3, 8, 1], None);
        check(&[1, 8, 1], None);
        check(&[2, 8, 1, 2, 8, 1], None);
        check(&[0x80], None);
    }

    #[test]
    fn confluent() {
        let unframe = unframe(Framing::Confluent);
        let check = |value: &[u8], expected: Result<(usize, i32), (RejectCode, &str, Option<i32>)>| {
            // What surrounds the value is not looked at.
            let buffer = [&[0xff; 3], value, &[0xff; 20]].concat();
            let found = unframe.confluent(&buffer, 3, 3 + value.len());
            let found = found.map(|framed| (framed.start - 3, framed.schema_id.unwrap()));
            let found = found.map_err(|found| (found.code, found.detail, found.schema_id));
            assert_eq!(found, expected.map_err(|(code, detail, id)| (code, detail.to_owned(), id)), "{value:x?}");
        };
        let bad = |detail, id| Err((RejectCode::BadFrame, detail, id));
        let unknown = |detail| Err((RejectCode::UnknownMessage, detail, Some(7)));
        check(&[0, 0, 0, 1, 2, 4, 2, 2, 8, 1], Ok((8, 258)));
        check(&[0, 0, 0, 1, 2, 4, 2, 0], Ok((8, 258)));
        check(&[0, 0xff, 0xff, 0xff, 0xff, 0x84, 0x80, 0, 2, 2], Ok((10, -1)));
        check(&[], bad("the value is empty; a frame starts with a byte 0 and a schema id", None));
        check(&[8, 0, 0, 0, 7, 0], bad("the value starts with the byte 8, not with 0", None));
        check(&[0, 0, 0, 7], bad("the value ends inside its schema id", None));
        let cut = "the message indexes are cut off, or not varints of 32 bits";
        check(&[0, 0, 0, 0, 7], bad(cut, Some(7)));
        check(&[0, 0, 0, 0, 7, 4, 2], bad(cut, Some(7)));
        check(&[0, 0, 0, 0, 7, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0], bad(cut, Some(7)));
        check(&[0, 0, 0, 0, 7, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0], bad(cut, Some(7)));
        check(&[0, 0, 0, 0, 7, 2, 0xff, 0xff, 0xff, 0xff, 0x1f], bad(cut, Some(7)));
        check(&[0, 0, 0, 0, 7, 3, 0], bad("the number of message indexes is negative", Some(7)));
        check(&[0, 0, 0, 0, 7, 2, 1], bad("a message index is negative", Some(7)));
        let refund = "the message indexes [0] name shop.Refund, the topic's message is shop.Order.Item";
        check(&[0, 0, 0, 0, 7, 0], unknown(refund));
        check(&[0, 0, 0, 0, 7, 2, 0], unknown(refund));
        let none = "the message indexes [2] name no message of shop.proto, which declares the topic's shop.Order.Item";
        check(&[0, 0, 0, 0, 7, 2, 4], unknown(none));
    }

    #[test]
    fn header() {
        let unframe = unframe(Framing::Header);
        let check = |value: Option<&[u8]>, expected: Result<Option<i32>, (RejectCode, &str)>| {
            let found = unframe.header(value).map_err(|found| (found.code, found.detail));
            assert_eq!(found, expected.map_err(|(code, detail)| (code, detail.to_owned())), "{value:x?}");
        };
        let guid = [1; 17];
        check(Some(&[0, 0, 0, 1, 2]), Ok(Some(258)));
        check(Some(&[0, 0, 0, 1, 2, 4, 2, 2]), Ok(Some(258)));
        check(Some(&guid), Ok(None));
        check(Some(&[guid.as_slice(), &[4, 2, 2]].concat()), Ok(None));
        let bad = |detail| Err((RejectCode::BadFrame, detail));
        check(None, bad("the record has no header __value_schema_id"));
        check(Some(&[]), bad("the header __value_schema_id is empty"));
        check(Some(&[0, 0, 0, 7]), bad("the header __value_schema_id ends inside its schema id"));
        check(Some(&guid[..16]), bad("the header __value_schema_id ends inside its GUID"));
        let magic = "the header __value_schema_id starts with the byte 2, not with 0 (an id) or 1 (a GUID)";
        check(Some(&[2, 0, 0, 0, 7]), bad(magic));
        let more = "the header __value_schema_id is not one: more follows the message indexes";
        check(Some(&[0, 0, 0, 0, 7, 4, 2, 2, 0]), bad(more));
        let refund = "the message indexes [0] name shop.Refund, the topic's message is shop.Order.Item";
        check(Some(&[guid.as_slice(), &[0]].concat()), Err((RejectCode::UnknownMessage, refund)));
    }
}
