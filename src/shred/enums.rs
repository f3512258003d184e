//! An enumeration's names by number.

use std::collections::HashMap;
use std::ops::Range;

use super::unchecked;
use crate::schema::model::{Enum, Message};

/// Names of numbers: in a table where the numbers lie close together, in a map otherwise.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// All names, and [`unchecked::CHUNK`] bytes more.
    names: String,
    /// The number of `dense`'s first entry.
    base: i32,
    dense: Vec<Option<Range<usize>>>,
    sparse: HashMap<i32, Range<usize>>,
    /// The most bytes that a value takes as text, a number's digits included.
    pub name_bytes_max: usize,
}

impl Enumeration {
    pub fn new(definition: &Enum) -> Self {
        Enumeration::of(definition.values.iter().map(|value| (value.number, value.name.as_str())))
    }

    /// The names of a oneof's members by their field numbers.
    pub fn of_members(message: &Message, oneof: usize) -> Self {
        let members = message.fields.iter().filter(|field| field.oneof == Some(oneof));
        // Field numbers are below 2^29.
        Enumeration::of(members.map(|member| (member.number as i32, member.name.as_str())))
    }

    fn of<'a>(values: impl Iterator<Item = (i32, &'a str)>) -> Self {
        let mut names = String::new();
        let mut by_number: HashMap<i32, Range<usize>> = HashMap::new();
        for (number, name) in values {
            // Of aliases, the first one declared is the name.
            by_number.entry(number).or_insert_with(|| {
                let start = names.len();
                names.push_str(name);
                start..names.len()
            });
        }
        let base = by_number.keys().copied().min().unwrap_or(0);
        let span = by_number.keys().map(|number| i64::from(*number) - i64::from(base) + 1).max().unwrap_or(0);
        let name_bytes_max = by_number.values().map(|name| name.len()).max().unwrap_or(0).max("-2147483648".len());
        names.push_str(&" ".repeat(unchecked::CHUNK));
        let mut dense = Vec::new();
        if span <= 4 * by_number.len() as i64 + 64 {
            dense = vec![None; span as usize];
            for (number, name) in by_number.drain() {
                dense[(i64::from(number) - i64::from(base)) as usize] = Some(name);
            }
        }
        Enumeration { names, base, dense, sparse: by_number, name_bytes_max }
    }

    /// The name of a number, if it has one.
    pub fn name(&self, number: i32) -> Option<&str> {
        self.place(number).map(|name| &self.names[name.clone()])
    }

    /// Where a number's name is among all names.
    fn place(&self, number: i32) -> Option<&Range<usize>> {
        let index = (i64::from(number) - i64::from(self.base)) as u64;
        match usize::try_from(index).ok().and_then(|index| self.dense.get(index)) {
            Some(name) => name.as_ref(),
            None => self.sparse.get(&number),
        }
    }

    /// Appends a number's name, or its digits if it has none.
    pub fn append(&self, number: i32, data: &mut Vec<u8>) {
        match self.place(number) {
            Some(name) => unchecked::append(data, self.names.as_bytes(), name.start, name.len()),
            None => data.extend_from_slice(number.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::model::EnumValue;

    fn enumeration(closed: bool, values: &[(&str, i32)]) -> Enumeration {
        let values = values.iter().map(|(name, number)| EnumValue { name: (*name).into(), number: *number }).collect();
        Enumeration::new(&Enum { full_name: "E".into(), closed, values })
    }

    #[test]
    fn names_by_number() {
        let close = enumeration(false, &[("ZERO", 0), ("ONE", 1), ("UNO", 1), ("MINUS", -2)]);
        assert_eq!(
            [-3, -2, -1, 0, 1, 2].map(|number| close.name(number)),
            [None, Some("MINUS"), None, Some("ZERO"), Some("ONE"), None]
        );
        let far = enumeration(true, &[("HIGH", i32::MAX), ("LOW", i32::MIN)]);
        assert_eq!([i32::MIN, 0, i32::MAX].map(|number| far.name(number)), [Some("LOW"), None, Some("HIGH")]);
        assert_eq!(close.name_bytes_max, 11);
    }
}
