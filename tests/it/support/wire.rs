//! A look at raw bytes, apart from any decoder.

use calve::schema::model::{Cardinality, Kind, Message, MessageId, Pool};

/// Whether buffa reads these bytes otherwise than everyone else: it takes the key and the value of a map's entry without
/// a look at their wire types, and a message that is length-prefixed where a group was declared, or the other way round.
/// Others take all that for unknown fields.
pub fn is_misread(pool: &Pool, id: MessageId, bytes: &[u8]) -> bool {
    fields_misread(pool, Some(id), &mut &*bytes)
}

/// Up to the end of the bytes or of the group, or to where they are not well-formed.
fn fields_misread(pool: &Pool, id: Option<MessageId>, rest: &mut &[u8]) -> bool {
    let definition = id.map(|id| pool.message(id));
    let (mut url, mut value) = (None, None);
    let mut found = false;
    while let Some(tag) = varint(rest) {
        let (number, wire) = ((tag >> 3) as u32, (tag & 7) as u32);
        let field = definition.and_then(|definition| definition.field(number));
        let kind = field.map(|field| (field.cardinality, field.kind));
        found |= match (kind, wire) {
            (_, 4) => return found,
            (Some((Cardinality::Map { key }, kind)), 2) => {
                let Some(entry) = prefixed(rest) else { return found };
                self::entry(pool, key, kind, entry)
            }
            (Some((_, Kind::Group(_))), 2) | (Some((_, Kind::Message(_))), 3) => true,
            (Some((_, Kind::Message(id))), 2) => {
                let Some(mut inner) = prefixed(rest) else { return found };
                fields_misread(pool, Some(id), &mut inner)
            }
            (Some((_, Kind::Group(id))), 3) => fields_misread(pool, Some(id), rest),
            (_, 3) => {
                let set = id.filter(|id| pool.message(*id).message_set && number == 1);
                if let Some(set) = set { item_misread(pool, set, rest) } else { fields_misread(pool, None, rest) }
            }
            (_, 2) => {
                let Some(payload) = prefixed(rest) else { return found };
                let any = definition.is_some_and(|definition| definition.full_name == "google.protobuf.Any");
                match number {
                    1 if any => url = Some(payload),
                    2 if any => value = Some(payload),
                    _ => {}
                }
                false
            }
            _ => {
                if scalar(wire.into(), rest, &mut Vec::new()).is_none() {
                    return found;
                }
                false
            }
        };
        if found {
            return true;
        }
    }
    if let (Some(url), Some(mut value)) = (url, value)
        && let Some(id) = std::str::from_utf8(url).ok().and_then(|url| pool.find_by_url(url))
    {
        return fields_misread(pool, Some(id), &mut value);
    }
    found
}

/// An item of a MessageSet; any of its messages may be the one that counts.
fn item_misread(pool: &Pool, set: MessageId, rest: &mut &[u8]) -> bool {
    let mut types = Vec::new();
    let mut messages = Vec::new();
    while let Some(tag) = varint(rest) {
        match tag & 7 {
            4 => break,
            3 => _ = fields_misread(pool, None, rest),
            2 => {
                let Some(payload) = prefixed(rest) else { break };
                messages.push(payload);
            }
            0 => types.extend(varint(rest).map(|value| value as u32)),
            wire if scalar(wire, rest, &mut Vec::new()).is_none() => break,
            _ => {}
        }
    }
    let known = types.iter().filter_map(|number| pool.message(set).field(*number));
    known.into_iter().any(|field| {
        let Kind::Message(id) = field.kind else { return false };
        messages.iter().any(|message| is_misread(pool, id, message))
    })
}

fn prefixed<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(rest)?;
    take(rest, usize::try_from(length).ok()?)
}

/// The message with every item of a MessageSet as an ordinary field, which a decoder without MessageSets reads; none if
/// the bytes are not well-formed. What else is in an item becomes an unknown field.
pub fn without_items(pool: &Pool, id: MessageId, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    let closed = fields_without_items(pool, Some(id), &mut rest, &mut out)?;
    closed.is_none().then_some(out)
}

/// Up to the end of the bytes, or of the group: then its number.
fn fields_without_items(
    pool: &Pool,
    id: Option<MessageId>,
    rest: &mut &[u8],
    out: &mut Vec<u8>,
) -> Option<Option<u64>> {
    let definition = id.map(|id| pool.message(id));
    while !rest.is_empty() {
        let tag = varint(rest)?;
        let (number, wire) = ((tag >> 3) as u32, tag & 7);
        let field = definition.and_then(|definition| definition.field(number));
        let inner = field.and_then(|field| match (field.cardinality, field.kind) {
            (Cardinality::Map { .. }, _) => None,
            (_, Kind::Message(id)) if wire == 2 => Some(id),
            (_, Kind::Group(id)) if wire == 3 => Some(id),
            _ => None,
        });
        match wire {
            4 => return Some(Some(tag >> 3)),
            3 => {
                let mut group = Vec::new();
                let before = *rest;
                if fields_without_items(pool, inner, rest, &mut group)? != Some(tag >> 3) {
                    return None;
                }
                let set = definition.filter(|definition| definition.message_set && number == 1);
                if let Some(set) = set {
                    item_as_field(pool, set, before, out)?;
                } else {
                    put(out, tag);
                    out.extend(group);
                    put(out, tag & !7 | 4);
                }
            }
            2 => {
                put(out, tag);
                let length = varint(rest)?;
                let mut payload = take(rest, usize::try_from(length).ok()?)?.to_vec();
                if let (Some(field), Some(Cardinality::Map { .. })) = (field, field.map(|field| field.cardinality)) {
                    payload = entry_without_items(pool, field.kind, &payload)?;
                } else if let Some(inner) = inner {
                    payload = without_items(pool, inner, &payload)?;
                }
                put(out, payload.len() as u64);
                out.extend(payload);
            }
            _ => {
                put(out, tag);
                scalar(wire, rest, out)?;
            }
        }
    }
    Some(None)
}

fn scalar(wire: u64, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    match wire {
        0 => put(out, varint(rest)?),
        1 => out.extend(take(rest, 8)?),
        5 => out.extend(take(rest, 4)?),
        _ => return None,
    }
    Some(())
}

fn entry_without_items(pool: &Pool, kind: Kind, entry: &[u8]) -> Option<Vec<u8>> {
    let Kind::Message(id) = kind else { return Some(entry.to_vec()) };
    let mut out = Vec::new();
    let mut rest = entry;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        put(&mut out, tag);
        if tag & 7 == 2 {
            let length = varint(&mut rest)?;
            let payload = take(&mut rest, length as usize)?;
            let payload = if tag >> 3 == 2 { without_items(pool, id, payload)? } else { payload.to_vec() };
            put(&mut out, payload.len() as u64);
            out.extend(payload);
        } else if tag & 7 >= 3 && tag & 7 != 5 {
            // Groups in entries come from broken bytes only, and are as unknown there as here.
            out.extend(rest);
            break;
        } else {
            scalar(tag & 7, &mut rest, &mut out)?;
        }
    }
    Some(out)
}

/// The item whose fields these are; the first type and the first message count.
fn item_as_field(pool: &Pool, set: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = bytes;
    let (mut type_id, mut message, mut unknown) = (None, None, false);
    loop {
        let tag = varint(&mut rest)?;
        match (tag, tag & 7) {
            (_, 4) => break,
            (0x10, _) if type_id.is_none() => type_id = Some(varint(&mut rest)? as u32),
            (0x1a, _) if message.is_none() => {
                let length = varint(&mut rest)?;
                message = Some(take(&mut rest, length as usize)?);
            }
            (_, wire) => {
                unknown = true;
                match wire {
                    2 => {
                        let length = varint(&mut rest)?;
                        take(&mut rest, length as usize)?;
                    }
                    3 => _ = fields_without_items(pool, None, &mut rest, &mut Vec::new())?,
                    wire => scalar(wire, &mut rest, &mut Vec::new())?,
                }
            }
        }
    }
    let field = type_id.zip(message).and_then(|(type_id, message)| Some((set.field(type_id)?, message)));
    match field {
        Some((field, message)) => {
            let Kind::Message(id) = field.kind else { panic!("an extension of a MessageSet is a message") };
            let message = without_items(pool, id, message)?;
            put(out, u64::from(alias(field.number)) << 3 | 2);
            put(out, message.len() as u64);
            out.extend(message);
        }
        None => unknown = true,
    }
    if unknown {
        put(out, 1 << 3);
        put(out, 0);
    }
    Some(())
}

/// The first number that fits no tag.
pub const BEYOND_TAGS: u32 = 1 << 29;

/// The number under which the oracle's descriptors have a field.
pub fn alias(number: u32) -> u32 {
    number % BEYOND_TAGS
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn entry(pool: &Pool, key: Kind, value: Kind, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(tag) = varint(&mut rest) {
        let (number, wire) = ((tag >> 3) as u32, (tag & 7) as u32);
        if number == 1 && wire != wire_of(key) || number == 2 && wire != wire_of(value) {
            return true;
        }
        match (number, value, wire) {
            (2, Kind::Message(id), 2) => {
                let Some(payload) = prefixed(&mut rest) else { return false };
                if is_misread(pool, id, payload) {
                    return true;
                }
            }
            (_, _, 3) => _ = fields_misread(pool, None, &mut rest),
            (_, _, 2) => {
                if prefixed(&mut rest).is_none() {
                    return false;
                }
            }
            _ => {
                if scalar(wire.into(), &mut rest, &mut Vec::new()).is_none() {
                    return false;
                }
            }
        }
    }
    false
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
