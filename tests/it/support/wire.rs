//! A look at raw bytes, apart from any decoder.

use calve::schema::model::{Cardinality, Kind, MessageId, Pool};

/// Whether some map entry holds a key or a value of another wire type than the schema's.
pub fn entry_of_other_wire_type(pool: &Pool, id: MessageId, bytes: &[u8]) -> bool {
    let mut found = false;
    walk(bytes, &mut |number, wire, payload| {
        let Some(field) = pool.message(id).field(number) else { return };
        let Some(payload) = payload else { return };
        found |= match (field.cardinality, field.kind) {
            (Cardinality::Map { key }, kind) => entry(pool, key, kind, payload),
            (_, Kind::Message(id)) if wire == 2 => entry_of_other_wire_type(pool, id, payload),
            _ => false,
        };
    });
    found
}

fn entry(pool: &Pool, key: Kind, value: Kind, bytes: &[u8]) -> bool {
    let mut found = false;
    walk(bytes, &mut |number, wire, payload| {
        found |= match number {
            1 => wire != wire_of(key),
            2 => wire != wire_of(value),
            _ => false,
        };
        if let (2, Kind::Message(id), Some(payload)) = (number, value, payload) {
            found |= entry_of_other_wire_type(pool, id, payload);
        }
    });
    found
}

/// Calls back with number, wire type and, where length-delimited, payload of each field, as far as the bytes are well
/// formed; what is in a group counts as a field of its own.
fn walk(bytes: &[u8], field: &mut impl FnMut(u32, u32, Option<&[u8]>)) {
    let mut rest = bytes;
    while let Some(tag) = varint(&mut rest) {
        let (number, wire) = ((tag >> 3) as u32, (tag & 7) as u32);
        let skipped = match wire {
            0 => varint(&mut rest).map(|_| None),
            1 => take(&mut rest, 8).map(|_| None),
            5 => take(&mut rest, 4).map(|_| None),
            2 => varint(&mut rest).and_then(|length| take(&mut rest, length as usize)).map(Some),
            _ => Some(None),
        };
        // The type of a field that is cut off was seen all the same.
        field(number, wire, skipped.flatten());
        if skipped.is_none() {
            return;
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn wire_of(kind: Kind) -> u32 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Group(_) => 3,
        _ => 0,
    }
}
