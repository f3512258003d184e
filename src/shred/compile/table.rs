//! A node's table of fields, with their tags.

use std::sync::Arc;

use super::{Compiler, Value, push};
use crate::shred::plan::{ColumnRef, Default, Error, Field, NONE, Node, Op, Rest, Step};
use crate::shred::unchecked::SlotAt;
use crate::shred::wire;

/// Tags below this find their field through a table; the others by bisection.
const DENSE_TAGS_MAX: u32 = 8192;

/// The highest number that a tag can hold.
const NUMBER_MAX: u32 = (1 << 29) - 1;

impl Compiler<'_> {
    /// A node of these fields, each with 0 if it is a field's first way on the wire, in order, and its column's name.
    pub(super) fn node(
        &mut self,
        fields: Vec<(usize, Field, Arc<str>)>,
        required: Vec<(u32, ColumnRef)>,
        path: &str,
    ) -> Result<u32, Error> {
        if fields.len() >= NONE as usize - 1 {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                what: "a message of more than 65,533 fields".into(),
            });
        }
        let (first_ways, other_ways): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(way, _, _)| *way == 0);
        let primary = first_ways.len();
        let mut table: Vec<Field> = Vec::new();
        let mut names = Vec::new();
        for (_, mut field, name) in first_ways.into_iter().chain([(0, end(), "".into())]).chain(other_ways) {
            field.next = match table.len() {
                index if index < primary => index as u16 + 1,
                index if matches!(field.op, Op::End | Op::Item) => index as u16,
                _ => 1 + table[..primary].iter().position(|first| first.number == field.number).unwrap_or(0) as u16,
            };
            table.push(field);
            names.push(name);
        }
        for index in (1..primary).rev() {
            let (field, following) = (&table[index - 1], &table[index]);
            if field.oneof != NONE && field.oneof == following.oneof {
                // A row has but one of them.
                table[index - 1].next = following.next;
            }
        }
        let home = self.plan.nodes.len() as u32;
        let mut entries = Vec::new();
        for (field, index) in table.iter_mut().zip(0..) {
            (field.home, field.index, field.step) = (home, index, Step::new(field.op, field.element));
            if field.op == Op::Map && self.plan.nodes[field.node as usize].is_texts() {
                field.step = Step::Texts;
            }
            field.lead = match field.tag_bytes {
                0 => Step::Find,
                1 => field.step,
                _ => Step::Wide,
            };
            if field.op == Op::Map {
                field.entry = entries.len() as u16;
                let lead = if field.tag_bytes == 1 { Step::Entry } else { Step::Wide };
                entries.push(Field { step: Step::Entry, lead, ..field.clone() });
            }
        }
        let mut tags: Vec<(u32, u16)> = table
            .iter()
            .enumerate()
            .filter(|(_, field)| field.tag_bytes > 0)
            .map(|(index, field)| (field.number << 3 | wire_of(field), index as u16))
            .collect();
        tags.sort_unstable();
        let dense_tags = tags.iter().map(|(tag, _)| tag + 1).filter(|tag| *tag <= DENSE_TAGS_MAX).max().unwrap_or(0);
        let mut dense = vec![NONE; dense_tags.max(128) as usize];
        let sparse = tags.iter().copied().filter(|(tag, _)| *tag as usize >= dense.len()).collect();
        for (tag, index) in tags {
            if let Some(slot) = dense.get_mut(tag as usize) {
                *slot = index;
            }
        }
        let required = required
            .into_iter()
            .filter_map(|(number, column)| {
                let index = table.iter().position(|field| field.number == number)?;
                Some((index as u16, column))
            })
            .collect();
        let node = Node {
            fields: table,
            names,
            entries,
            dense,
            sparse,
            required,
            items: None,
            default: Default::Plain,
            key: None,
            rest: Rest::Nothing,
            path: path.to_owned(),
        };
        Ok(push(&mut self.plan.nodes, node))
    }
}

fn wire_of(field: &Field) -> u32 {
    field.value_op().wire()
}

pub(super) fn field(number: u32, value: &Value, op: Op, list: u32) -> Field {
    let (column, node) = (value.column, value.node);
    let (element, content) = (value.op, value.content);
    let mut field = Field { op, element, content, inner: value.inner, column, list, node, number, ..end() };
    put_tag(&mut field);
    field
}

/// An item of a MessageSet.
pub(super) fn item() -> Field {
    let mut item = Field { op: Op::Item, element: Op::Item, content: Op::Item, number: 1, ..end() };
    put_tag(&mut item);
    item
}

/// The tag that matches a field. An extension of a MessageSet may have a number that fits none; items name it.
fn put_tag(field: &mut Field) {
    if field.number > NUMBER_MAX {
        return;
    }
    let mut encoded = Vec::with_capacity(5);
    wire::put_varint(&mut encoded, u64::from(field.number << 3 | wire_of(field)));
    field.tag_bytes = encoded.len() as u8;
    field.mask = (1 << (8 * encoded.len())) - 1;
    field.tag = encoded.iter().rev().fold(0, |tag, byte| tag << 8 | u64::from(*byte));
    field.first = encoded[0];
}

/// A field that no bytes match.
fn end() -> Field {
    Field {
        tag: u64::MAX,
        mask: u64::MAX,
        tag_bytes: 0,
        first: u8::MAX,
        lead: Step::Find,
        step: Step::Other,
        op: Op::End,
        element: Op::End,
        inner: Op::End,
        content: Op::End,
        next: 0,
        oneof: NONE,
        column: 0,
        slot: SlotAt::NONE,
        list: 0,
        entry: 0,
        node: 0,
        number: 0,
        home: 0,
        index: 0,
    }
}
