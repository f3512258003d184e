//! A record in the plain form that the interpreter takes, or what is wrong with it.
//!
//! Protobuf lets a writer say a field more than once: the last scalar wins, the pieces of a message merge, a member of
//! a oneof clears the others, a key of a map replaces its earlier entry. Here that is settled on the wire: the result
//! holds every singular field once and every key once. What was overwritten or cleared is gone, but must have been
//! well-formed, because every parser has read it.

use std::collections::HashMap;

use super::plan::{Field, NONE, Node, Op, Plan, Root};
use super::wire::{self, DEPTH_MAX, PADDING};
use super::{json, message_set};
use crate::batch::RejectCode;

/// What is wrong with a record, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: RejectCode,
    /// The field, by names; empty for the record's own message.
    pub path: String,
    /// Into the record's message.
    pub at: Option<usize>,
}

/// A record in plain form.
#[derive(Debug)]
pub struct Plain {
    /// The message and [`PADDING`] more bytes.
    pub buffer: Vec<u8>,
    pub end: usize,
    /// It had unknown fields, which the plain form has not.
    pub raw: bool,
}

/// The plain form of the message `buffer[start..end]`, which [`PADDING`] readable bytes follow.
pub fn normalize(plan: &Plan, buffer: &[u8], start: usize, end: usize) -> Result<Plain, Fault> {
    let mut normalizer = Normalizer {
        plan,
        buffer,
        start,
        out: Vec::with_capacity(end - start + 64),
        raw: false,
        scratch: json::Scratch::default(),
    };
    match &plan.root {
        Root::Message(node) | Root::Struct(_, node) => normalizer.message(*node, &[(start, end)], 0)?,
        Root::Leaf(field) => {
            normalizer.leaf_message(field, "value", start, end, 0)?;
            normalizer.out.extend_from_slice(&buffer[start..end]);
        }
    }
    let Normalizer { mut out, raw, .. } = normalizer;
    let end = out.len();
    out.extend([0; PADDING]);
    Ok(Plain { buffer: out, end, raw })
}

struct Normalizer<'a> {
    plan: &'a Plan,
    buffer: &'a [u8],
    /// Of the record, for the positions in faults.
    start: usize,
    out: Vec<u8>,
    raw: bool,
    scratch: json::Scratch,
}

/// A field on the wire.
struct Occurrence {
    /// Index into the node's fields.
    field: usize,
    /// Behind the tag.
    at: usize,
    /// Of a length-delimited value, where it starts behind its length.
    start: usize,
    /// Behind the value; of a group, where its fields end.
    end: usize,
    alive: bool,
}

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Number(u64),
    Text(&'a [u8]),
}

impl<'a> Normalizer<'a> {
    fn fault(&self, code: RejectCode, path: impl Into<String>, at: usize) -> Fault {
        Fault { code, path: path.into(), at: Some(at - self.start) }
    }

    /// Writes the message that these pieces merge into.
    fn message(&mut self, node: u32, pieces: &[(usize, usize)], depth: u32) -> Result<(), Fault> {
        let plan = self.plan;
        let node = &plan.nodes[node as usize];
        if depth > DEPTH_MAX {
            return Err(self.fault(RejectCode::TooDeep, &node.path, pieces[0].0));
        }
        let mut occurrences = Vec::new();
        for (start, end) in pieces {
            self.scan(node, *start, *end, depth, &mut occurrences)?;
        }
        self.settle(node, &mut occurrences, depth)?;
        for index in 0..occurrences.len() {
            if !occurrences[index].alive {
                continue;
            }
            let field = &node.fields[occurrences[index].field];
            if !field.value_op().is_message() && field.op != Op::Map {
                wire::put_varint(&mut self.out, u64::from(tag_of(field)));
                self.out.extend_from_slice(&self.buffer[occurrences[index].at..occurrences[index].end]);
                continue;
            }
            // All pieces of a message, and all entries of a map, go where the first one stands.
            let mut pieces = vec![(occurrences[index].start, occurrences[index].end)];
            if field.op != Op::Repeated {
                let same = occurrences[index].field;
                for other in occurrences[index + 1..].iter_mut().filter(|other| other.field == same && other.alive) {
                    other.alive = false;
                    pieces.push((other.start, other.end));
                }
            }
            let values = if field.op == Op::Map { pieces.chunks(1) } else { pieces.chunks(pieces.len()) };
            for pieces in values {
                let at = self.begin(node, field);
                if field.is_struct() || field.op == Op::Map {
                    // An item's group is around its message.
                    let around = depth + u32::from(node.items.is_some());
                    self.message(field.node, pieces, around + 1)?;
                } else {
                    pieces.iter().for_each(|(start, end)| self.out.extend_from_slice(&self.buffer[*start..*end]));
                }
                self.finish(node, field, at);
            }
        }
        Ok(())
    }

    /// Collects the fields of one piece and checks what is not a message of its own.
    fn scan(
        &mut self,
        node: &Node,
        mut at: usize,
        end: usize,
        depth: u32,
        occurrences: &mut Vec<Occurrence>,
    ) -> Result<(), Fault> {
        while at < end {
            let (tag, next) = wire::tag(self.buffer, at, end).map_err(|code| self.fault(code, &node.path, at))?;
            let Some(index) = node.find(tag) else {
                self.raw = true;
                at = wire::skip(self.buffer, next, end, tag, depth).map_err(|code| self.fault(code, &node.path, at))?;
                continue;
            };
            let field = &node.fields[index];
            let tag_at = at;
            let here = |normalizer: &Self, code| normalizer.fault(code, node.field_path(index), tag_at);
            let stop = wire::skip(self.buffer, next, end, tag, depth).map_err(|code| here(self, code))?;
            let (mut start, mut value_end) = (next, stop);
            match tag & 7 {
                wire::LENGTH => start = wire::length(self.buffer, next, end).map_err(|code| here(self, code))?.0,
                wire::START_GROUP if field.value_op() != Op::SkipGroup => {
                    let group = wire::group(self.buffer, next, end, tag >> 3, depth + 1);
                    value_end = group.map_err(|code| here(self, code))?.0;
                }
                _ => {}
            }
            let mut occurrence = Occurrence { field: index, at: next, start, end: value_end, alive: true };
            let mut around = depth;
            if field.op == Op::Item {
                let item = message_set::item(self.buffer, next, end, depth).map_err(|code| here(self, code))?;
                let known = item.message.and_then(|message| Some((node.find_item(message.type_id)?, message)));
                self.raw |= item.unknown || known.is_none();
                at = item.next;
                let Some((index, message)) = known else { continue };
                let length = wire::length(self.buffer, message.at, message.end).map_err(|code| here(self, code))?;
                occurrence = Occurrence { field: index, at: message.at, start: length.0, end: length.1, alive: true };
                around += 1;
            }
            let Occurrence { field: index, start, end: value_end, .. } = occurrence;
            let field = &node.fields[index];
            let here = |normalizer: &Self, code| normalizer.fault(code, node.field_path(index), tag_at);
            let op = field.value_op();
            match op {
                Op::String if simdutf8::basic::from_utf8(&self.buffer[start..value_end]).is_err() => {
                    return Err(here(self, RejectCode::InvalidUtf8));
                }
                Op::Packed => self.packed(field.element, start, value_end).map_err(|code| here(self, code))?,
                _ if field.content.is_leaf_message() => {
                    let path = node.field_path(index);
                    self.leaf_message(field, &path, start, value_end, around + 1)?;
                }
                _ => {}
            }
            let number = || wire::varint(self.buffer, next).map_or(0, |(value, _)| value as i32);
            let single = field.op != Op::Repeated;
            // Also where the value is skipped: a number without a name is no member of a oneof.
            let closed = op == Op::EnumClosed || op.is_skip() && field.inner == Op::EnumClosed;
            if single && closed && self.plan.enums[field.node as usize].name(number()).is_none() {
                // In an entry that counts, a later value has overwritten it (`key`).
                self.raw |= node.key.is_none();
            } else {
                occurrences.push(occurrence);
            }
            at = stop;
        }
        Ok(())
    }

    /// Decides which occurrences count.
    fn settle(&mut self, node: &Node, occurrences: &mut [Occurrence], depth: u32) -> Result<(), Fault> {
        let mut singular: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut members: HashMap<u16, usize> = HashMap::new();
        let mut keys: HashMap<(usize, Key<'a>), usize> = HashMap::new();
        for index in 0..occurrences.len() {
            let number = occurrences[index].field;
            let field = &node.fields[number];
            match field.op {
                Op::Repeated | Op::Packed => {}
                Op::Map => {
                    let Some(key) = self.key(field, &occurrences[index], depth)? else {
                        // An entry whose value is no member of its closed enumeration is an unknown field.
                        self.drop_value(field, &mut occurrences[index], depth)?;
                        self.raw = true;
                        continue;
                    };
                    if let Some(before) = keys.insert((number, key), index) {
                        self.drop_value(field, &mut occurrences[before], depth)?;
                    }
                }
                _ => {
                    if field.oneof != NONE
                        && let Some(other) = members.insert(field.oneof, number)
                        && other != number
                    {
                        for before in singular.remove(&other).unwrap_or_default() {
                            self.drop_value(&node.fields[other], &mut occurrences[before], depth)?;
                        }
                    }
                    let before = singular.entry(number).or_default();
                    if !field.value_op().is_message() {
                        for before in before.drain(..) {
                            occurrences[before].alive = false;
                        }
                    }
                    before.push(index);
                }
            }
        }
        Ok(())
    }

    /// A message that does not count must still be one.
    fn drop_value(&mut self, field: &Field, occurrence: &mut Occurrence, depth: u32) -> Result<(), Fault> {
        occurrence.alive = false;
        if field.is_struct() || field.op == Op::Map {
            let (length, raw) = (self.out.len(), self.raw);
            self.message(field.node, &[(occurrence.start, occurrence.end)], depth + 1)?;
            self.out.truncate(length);
            self.raw = raw;
        }
        Ok(())
    }

    /// The key of a map's entry; `None` if the entry's value is no member of its closed enumeration.
    fn key(&self, field: &Field, entry: &Occurrence, depth: u32) -> Result<Option<Key<'a>>, Fault> {
        let node = &self.plan.nodes[field.node as usize];
        let [key_field, value_field, ..] = node.fields.as_slice() else {
            return Err(self.fault(RejectCode::BadLength, &node.path, entry.at));
        };
        let buffer = self.buffer;
        let text = key_field.op == Op::String;
        let mut key = if text { Key::Text(b"") } else { Key::Number(0) };
        let mut member = true;
        let mut at = entry.start;
        while at < entry.end {
            let fault = |code| self.fault(code, &node.path, at);
            let (tag, next) = wire::tag(buffer, at, entry.end).map_err(fault)?;
            let stop = wire::skip(buffer, next, entry.end, tag, depth + 1).map_err(fault)?;
            if tag == tag_of(key_field) {
                key = match key_field.op {
                    Op::String => {
                        let (start, _) = wire::length(buffer, next, entry.end).map_err(fault)?;
                        Key::Text(&buffer[start..stop])
                    }
                    op => Key::Number(number(op, buffer, next)),
                };
            } else if tag == tag_of(value_field) && value_field.op == Op::EnumClosed {
                let value = number(Op::Int32, buffer, next) as i32;
                member = self.plan.enums[value_field.node as usize].name(value).is_some();
            }
            at = stop;
        }
        Ok(member.then_some(key))
    }

    /// Checks that packed values end where their bytes end.
    fn packed(&self, element: Op, mut at: usize, end: usize) -> Result<(), RejectCode> {
        match element.wire() {
            wire::FIXED32 if (end - at).is_multiple_of(4) => Ok(()),
            wire::FIXED64 if (end - at).is_multiple_of(8) => Ok(()),
            wire::VARINT => {
                while at < end {
                    at = wire::bounded_varint(self.buffer, at, end)?.1;
                }
                Ok(())
            }
            _ => Err(RejectCode::Truncated),
        }
    }

    /// Checks a well-known message that is one value of a column; its pieces merge by standing behind each other.
    fn leaf_message(&mut self, field: &Field, path: &str, mut at: usize, end: usize, depth: u32) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault(RejectCode::TooDeep, path, at));
        }
        if field.content == Op::Json {
            let (types, span, length) = (&self.plan.json, (at, end), self.out.len());
            let result = json::write(types, field.node, self.buffer, span, depth, &mut self.scratch, &mut self.out);
            self.out.truncate(length);
            return result.map(|_| ()).map_err(|code| self.fault(code, path, at));
        }
        while at < end {
            let fault = |code| self.fault(code, path, at);
            let (tag, next) = wire::tag(self.buffer, at, end).map_err(fault)?;
            let stop = wire::skip(self.buffer, next, end, tag, depth).map_err(fault)?;
            if field.content == Op::Wrapper && field.inner == Op::String && tag == 1 << 3 | wire::LENGTH {
                let (start, stop) = wire::length(self.buffer, next, end).map_err(fault)?;
                if simdutf8::basic::from_utf8(&self.buffer[start..stop]).is_err() {
                    return Err(fault(RejectCode::InvalidUtf8));
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// Writes what stands before a message's bytes, with room for a length of five bytes, which is known only later.
    fn begin(&mut self, node: &Node, field: &Field) -> usize {
        if node.items.is_some() {
            message_set::begin_item(&mut self.out, field.number);
        } else {
            wire::put_varint(&mut self.out, u64::from(tag_of(field)));
        }
        if field.value_op() != Op::Group {
            self.out.extend([0; 5]);
        }
        self.out.len()
    }

    fn finish(&mut self, node: &Node, field: &Field, start: usize) {
        if field.value_op() == Op::Group {
            wire::put_varint(&mut self.out, u64::from(field.number << 3 | wire::END_GROUP));
            return;
        }
        let length = self.out.len() - start;
        for (index, byte) in self.out[start - 5..start].iter_mut().enumerate() {
            *byte = (length >> (7 * index)) as u8 & 0x7f | if index < 4 { 0x80 } else { 0 };
        }
        if node.items.is_some() {
            message_set::end_item(&mut self.out);
        }
    }
}

fn tag_of(field: &Field) -> u32 {
    field.number << 3 | field.value_op().wire()
}

/// A map key's value, told apart as its type tells values apart.
fn number(op: Op, buffer: &[u8], at: usize) -> u64 {
    let varint = || wire::varint(buffer, at).map_or(0, |(value, _)| value);
    match op {
        Op::Bool => u64::from(varint() != 0),
        Op::Int32 | Op::Sint32 | Op::Uint32 => u64::from(varint() as u32),
        Op::Fixed32 | Op::Sfixed32 => u64::from(wire::load4(buffer, at)),
        Op::Fixed64 | Op::Fixed64Long | Op::Sfixed64 => wire::load8(buffer, at),
        _ => varint(),
    }
}
