//! Items of a MessageSet (`message_set_wire_format`): groups `1 { type_id = 2: varint; message = 3: bytes }`.
//!
//! As the official parsers read them: in either order, the first type and the first message of an item count, and
//! whatever else is in it is skipped.

use super::wire;
use crate::batch::RejectCode;

/// The field number of an item.
pub const ITEM: u32 = 1;
const TYPE_ID: u32 = 2 << 3 | wire::VARINT;
const MESSAGE: u32 = 3 << 3 | wire::LENGTH;

/// An item as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// None if its type or its message is missing: then it says nothing.
    pub message: Option<ItemMessage>,
    /// It holds more than a type and a message, or not both of them.
    pub unknown: bool,
    /// The position behind it.
    pub next: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMessage {
    /// The extension's number, which may be too large for a tag.
    pub type_id: u32,
    /// The message's length stands at `at`, and `end` is behind its bytes.
    pub at: usize,
    pub end: usize,
}

/// The item whose fields start at `at`, inside a MessageSet with `depth` messages around it.
pub fn item(buffer: &[u8], at: usize, end: usize, depth: u32) -> Result<Item, RejectCode> {
    let (stop, next) = wire::group(buffer, at, end, ITEM, depth + 1)?;
    let (mut type_id, mut message, mut unknown) = (None, None, false);
    let mut at = at;
    while at < stop {
        let (tag, value) = wire::tag(buffer, at, stop)?;
        at = wire::skip(buffer, value, stop, tag, depth + 1)?;
        match tag {
            TYPE_ID if type_id.is_none() => type_id = Some(wire::bounded_varint(buffer, value, stop)?.0 as u32),
            MESSAGE if message.is_none() => message = Some((value, at)),
            _ => unknown = true,
        }
    }
    let message = type_id.zip(message).map(|(type_id, (at, end))| ItemMessage { type_id, at, end });
    Ok(Item { message, unknown: unknown || message.is_none(), next })
}

/// Writes an item up to its message, whose length comes next; [`end_item`] goes behind the message.
pub fn begin_item(out: &mut Vec<u8>, type_id: u32) {
    wire::put_varint(out, u64::from(ITEM << 3 | wire::START_GROUP));
    wire::put_varint(out, u64::from(TYPE_ID));
    wire::put_varint(out, u64::from(type_id));
    wire::put_varint(out, u64::from(MESSAGE));
}

pub fn end_item(out: &mut Vec<u8>) {
    wire::put_varint(out, u64::from(ITEM << 3 | wire::END_GROUP));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items() {
        let check = |bytes: &[u8], expected: Result<(Option<(u32, &[u8])>, bool), RejectCode>| {
            let buffer = [bytes, &[0; wire::PADDING]].concat();
            let actual = item(&buffer, 0, bytes.len(), 0).map(|item| {
                assert_eq!(item.next, bytes.len());
                let message = item.message.map(|message| {
                    let (start, end) = wire::length(&buffer, message.at, message.end).unwrap();
                    (message.type_id, &bytes[start..end])
                });
                (message, item.unknown)
            });
            assert_eq!(actual, expected, "{bytes:x?}");
        };
        check(b"\x10\x07\x1a\x01x\x0c", Ok((Some((7, b"x")), false)));
        check(b"\x1a\x01x\x10\x07\x0c", Ok((Some((7, b"x")), false)));
        check(b"\x10\xff\xff\xff\xff\x07\x1a\x00\x0c", Ok((Some((i32::MAX as u32, b"")), false)));
        check(b"\x10\x07\x10\x08\x1a\x01x\x1a\x01y\x0c", Ok((Some((7, b"x")), true)));
        check(b"\x10\x07\x1a\x01x\x20\x01\x0c", Ok((Some((7, b"x")), true)));
        check(b"\x10\x07\x0c", Ok((None, true)));
        check(b"\x1a\x01x\x0c", Ok((None, true)));
        check(b"\x0c", Ok((None, true)));
        check(b"\x10\x07\x1a\x01x", Err(RejectCode::Truncated));
        check(b"\x10\x07\x1a\x01x\x14", Err(RejectCode::BadGroup));
    }
}
