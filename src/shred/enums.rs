//! An enumeration's names by number.

use std::collections::HashMap;
use std::io::Write;

use super::bytes::{Bytes, CHUNK};
use crate::schema::model::{Enum, Message};

/// Names of numbers: in a table by number where the numbers lie close together, in a table by hash otherwise.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// All names, and [`CHUNK`] bytes more.
    names: String,
    /// The number of `dense`'s first entry.
    base: i32,
    dense: Vec<Name>,
    /// A power of two of entries, at least half of them free, or none at all.
    hashed: Vec<(i32, Name)>,
    /// The most bytes that a value takes as text, a number's digits included.
    pub name_bytes_max: usize,
}

/// Where a name is among all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    start: u32,
    bytes: u32,
}

impl Name {
    const NONE: Name = Name { start: u32::MAX, bytes: 0 };
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
        let mut by_number: HashMap<i32, Name> = HashMap::new();
        for (number, name) in values {
            // Of aliases, the first one declared is the name.
            by_number.entry(number).or_insert_with(|| {
                let start = names.len() as u32;
                names.push_str(name);
                Name { start, bytes: name.len() as u32 }
            });
        }
        let base = by_number.keys().copied().min().unwrap_or(0);
        let span = by_number.keys().map(|number| i64::from(*number) - i64::from(base) + 1).max().unwrap_or(0);
        let longest = by_number.values().map(|name| name.bytes as usize).max().unwrap_or(0);
        let name_bytes_max = longest.max("-2147483648".len());
        names.push_str(&" ".repeat(CHUNK));
        let mut enumeration = Enumeration { names, base, dense: Vec::new(), hashed: Vec::new(), name_bytes_max };
        if span <= 4 * by_number.len() as i64 + 64 {
            enumeration.dense = vec![Name::NONE; span as usize];
            for (number, name) in by_number {
                enumeration.dense[(i64::from(number) - i64::from(base)) as usize] = name;
            }
        } else {
            enumeration.hashed = vec![(0, Name::NONE); (2 * by_number.len()).next_power_of_two()];
            for (number, name) in by_number {
                let slot = enumeration.slot(number);
                enumeration.hashed[slot] = (number, name);
            }
        }
        enumeration
    }

    /// The name of a number, if it has one.
    pub fn name(&self, number: i32) -> Option<&str> {
        let Name { start, bytes } = Some(self.find(number)).filter(|name| *name != Name::NONE)?;
        Some(&self.names[start as usize..(start + bytes) as usize])
    }

    /// Whether a number has a name.
    #[inline]
    pub fn has(&self, number: i32) -> bool {
        self.find(number) != Name::NONE
    }

    #[inline(always)]
    fn find(&self, number: i32) -> Name {
        // A number below the base wraps round to one far above it.
        let index = number.wrapping_sub(self.base) as u32 as usize;
        match self.dense.get(index) {
            Some(name) => *name,
            None if self.hashed.is_empty() => Name::NONE,
            None => self.hashed[self.slot(number)].1,
        }
    }

    /// Where a number stands in `hashed`, or would.
    #[inline(always)]
    fn slot(&self, number: i32) -> usize {
        let mask = self.hashed.len() - 1;
        let mut slot = (number as u32).wrapping_mul(0x9e37_79b1) as usize >> 16 & mask;
        while self.hashed[slot].1 != Name::NONE && self.hashed[slot].0 != number {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The names of those numbers whose row is `present`, the digits of those that have none: where each starts and the
    /// last one ends, and all of them one behind the other. The starts are right if the end is below 2^31.
    pub fn texts(&self, numbers: &[i32], present: impl Fn(usize) -> bool) -> (Vec<i32>, Vec<u8>) {
        let mut data = Bytes::from(Vec::with_capacity(numbers.len() * self.name_bytes_max.min(16) + CHUNK));
        let mut starts: Vec<i32> = Vec::with_capacity(numbers.len() + 1);
        starts.extend(numbers.iter().enumerate().map(|(row, number)| {
            let start = data.len() as i32;
            if present(row) {
                self.append(*number, &mut data);
            }
            start
        }));
        starts.push(data.len() as i32);
        (starts, data.take())
    }

    #[inline(always)]
    fn append(&self, number: i32, data: &mut Bytes) {
        match self.find(number) {
            Name::NONE => data.with(|data| put_digits(number, data)),
            Name { start, bytes } => data.append(self.names.as_bytes(), start as usize, bytes as usize),
        }
    }
}

#[cold]
#[inline(never)]
fn put_digits(number: i32, data: &mut Vec<u8>) {
    // A vector takes whatever is written.
    let _ = write!(data, "{number}");
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
        fn check(names: &Enumeration, numbers: &[i32], expected: &[Option<&str>]) {
            assert_eq!(numbers.iter().map(|number| names.name(*number)).collect::<Vec<_>>(), expected);
            let (starts, text) = names.texts(numbers, |row| row != 1);
            for (row, (number, name)) in numbers.iter().zip(expected).enumerate() {
                let actual = str::from_utf8(&text[starts[row] as usize..starts[row + 1] as usize]).unwrap();
                let digits = number.to_string();
                assert_eq!(actual, if row == 1 { "" } else { name.unwrap_or(&digits) });
                assert_eq!(names.has(*number), name.is_some());
            }
        }
        let close = enumeration(false, &[("ZERO", 0), ("ONE", 1), ("UNO", 1), ("MINUS", -2)]);
        let names = [None, None, Some("MINUS"), None, Some("ZERO"), Some("ONE"), None, None];
        check(&close, &[i32::MIN, -3, -2, -1, 0, 1, 2, i32::MAX], &names);
        let far = enumeration(true, &[("HIGH", i32::MAX), ("LOW", i32::MIN)]);
        check(&far, &[i32::MIN, 0, i32::MAX, -1], &[Some("LOW"), None, Some("HIGH"), None]);
        check(&enumeration(true, &[]), &[0, 1, -1], &[None, None, None]);
        assert_eq!(close.name_bytes_max, 11);
    }
}
