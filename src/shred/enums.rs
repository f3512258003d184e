//! An enumeration's names by number.

use std::collections::HashMap;
use std::io::Write;

use arrow::buffer::NullBuffer;

use super::bytes::{Bytes, CHUNK};
use super::unchecked;
use crate::schema::model::{Enum, Message};

/// Names of numbers: in a table by number where the numbers lie close together, in a table by hash otherwise.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// All names, and [`CHUNK`] bytes more.
    names: String,
    /// The number of `dense`'s first entry.
    base: i32,
    dense: Vec<Name>,
    hashed: Hashed,
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
    /// No name has as many bytes.
    const NONE: Name = Name { start: 0, bytes: u32::MAX };
}

/// A table by hash: a power of two of entries, mostly free.
#[derive(Clone, Debug)]
struct Hashed {
    entries: Vec<(i32, Name)>,
    multiplier: u32,
    /// Of a product, the bits that are no index.
    shift: u32,
}

impl Hashed {
    /// So many multipliers are tried for one by which every number has a place of its own.
    const TRIES: u32 = 16;

    fn new(names: &HashMap<i32, Name>) -> Self {
        let bits = (4 * names.len()).next_power_of_two().ilog2();
        let mut hashed = Hashed { entries: Vec::new(), multiplier: 0, shift: u32::BITS - bits };
        for multiplier in (0..Hashed::TRIES).map(|index| 0x9e37_79b1_u32.wrapping_mul(2 * index + 1)) {
            hashed.multiplier = multiplier;
            // A free entry's number is as good as any.
            hashed.entries = vec![(0, Name::NONE); 1 << bits];
            let mut displaced = false;
            for (number, name) in names {
                let place = hashed.place(*number);
                displaced |= place != hashed.first_place(*number);
                hashed.entries[place] = (*number, *name);
            }
            if !displaced {
                break;
            }
        }
        hashed
    }

    #[inline(always)]
    fn get(&self, number: i32) -> Name {
        let (found, name) = *unchecked::get(&self.entries, self.first_place(number));
        if found == number { name } else { self.get_displaced(number) }
    }

    #[inline(never)]
    fn get_displaced(&self, number: i32) -> Name {
        self.entries[self.place(number)].1
    }

    #[inline(always)]
    fn first_place(&self, number: i32) -> usize {
        // As a wider number, which may lose all 32 bits.
        (u64::from((number as u32).wrapping_mul(self.multiplier)) >> self.shift) as usize
    }

    /// Where a number stands, or would.
    fn place(&self, number: i32) -> usize {
        let mut place = self.first_place(number);
        while self.entries[place].1 != Name::NONE && self.entries[place].0 != number {
            place = (place + 1) % self.entries.len();
        }
        place
    }
}

/// Rows that a word has bits for.
const WORD: usize = 64;

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
        let mut dense = Vec::new();
        let mut hashed = Hashed::new(&HashMap::new());
        if span <= 4 * by_number.len() as i64 + 64 {
            dense.resize(span as usize, Name::NONE);
            for (number, name) in by_number {
                dense[(i64::from(number) - i64::from(base)) as usize] = name;
            }
        } else {
            hashed = Hashed::new(&by_number);
        }
        Enumeration { names, base, dense, hashed, name_bytes_max }
    }

    /// The name of a number, if it has one.
    pub fn name(&self, number: i32) -> Option<&str> {
        let Name { start, bytes } = Some(self.find(number)).filter(|name| *name != Name::NONE)?;
        Some(&self.names[start as usize..(start + bytes) as usize])
    }

    /// Whether a number has a name.
    #[inline(always)]
    pub fn has(&self, number: i32) -> bool {
        self.find(number).bytes != Name::NONE.bytes
    }

    #[inline(always)]
    fn find(&self, number: i32) -> Name {
        self.find_dense(number).unwrap_or_else(|| self.hashed.get(number))
    }

    #[inline(always)]
    fn find_dense(&self, number: i32) -> Option<Name> {
        // A number below the base wraps round to one far above it.
        self.dense.get(number.wrapping_sub(self.base) as u32 as usize).copied()
    }

    /// The names of those numbers whose row is no null, the digits of those that have none: where each starts and the
    /// last one ends, and all of them one behind the other. The starts are right if the end is below 2^31.
    pub fn texts(&self, numbers: &[i32], nulls: Option<&NullBuffer>) -> (Vec<i32>, Vec<u8>) {
        if self.dense.is_empty() {
            self.texts_by(|number| self.hashed.get(number), numbers, nulls)
        } else {
            self.texts_by(|number| self.find_dense(number).unwrap_or(Name::NONE), numbers, nulls)
        }
    }

    /// A word of rows at a time, without a branch on which of them are null.
    // Alone, its loop has all registers for itself.
    #[inline(never)]
    fn texts_by(&self, find: impl Fn(i32) -> Name, numbers: &[i32], nulls: Option<&NullBuffer>) -> (Vec<i32>, Vec<u8>) {
        let mut data = Bytes::from(Vec::with_capacity(numbers.len() * self.name_bytes_max.min(16) + CHUNK));
        let mut starts: Vec<i32> = Vec::with_capacity(numbers.len() + 1);
        let bits = nulls.map(|nulls| nulls.inner().bit_chunks());
        let mut words = bits.iter().flat_map(|bits| bits.iter_padded());
        for numbers in numbers.chunks(WORD) {
            let mut word = words.next().unwrap_or(u64::MAX);
            let mut appender = data.appender(self.names.as_bytes(), numbers.len() * self.name_bytes_max);
            starts.extend(numbers.iter().map(|number| {
                let name = find(*number);
                // Of a null, no byte.
                let bytes = name.bytes.wrapping_mul(word as u32 & 1);
                word >>= 1;
                let start = appender.len() as i32;
                if bytes == Name::NONE.bytes {
                    appender.append_other(digits(*number, &mut [0; 11]));
                } else {
                    appender.append(name.start as usize, bytes as usize);
                }
                start
            }));
        }
        starts.push(data.len() as i32);
        (starts, data.take())
    }
}

#[cold]
#[inline(never)]
fn digits(number: i32, place: &mut [u8; "-2147483648".len()]) -> &[u8] {
    let mut free = &mut place[..];
    // No number has more.
    let _ = write!(free, "{number}");
    let free = free.len();
    &place[..place.len() - free]
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
            let is_null = |row: usize| row % 70 == 1;
            let nulls = NullBuffer::from_iter((0..numbers.len()).map(|row| !is_null(row)));
            let (starts, text) = names.texts(numbers, Some(&nulls));
            assert_eq!(starts.len(), numbers.len() + 1);
            for (row, (number, name)) in numbers.iter().zip(expected).enumerate() {
                let actual = str::from_utf8(&text[starts[row] as usize..starts[row + 1] as usize]).unwrap();
                let digits = number.to_string();
                assert_eq!(actual, if is_null(row) { "" } else { name.unwrap_or(&digits) });
                assert_eq!(names.has(*number), name.is_some());
            }
        }
        let close = enumeration(false, &[("ZERO", 0), ("ONE", 1), ("UNO", 1), ("MINUS", -2)]);
        let names = [None, None, Some("MINUS"), None, Some("ZERO"), Some("ONE"), None, None];
        check(&close, &[i32::MIN, -3, -2, -1, 0, 1, 2, i32::MAX], &names);
        let far = enumeration(true, &[("HIGH", i32::MAX), ("LOW", i32::MIN)]);
        check(&far, &[i32::MIN, 0, i32::MAX, -1], &[Some("LOW"), None, Some("HIGH"), None]);
        check(&enumeration(true, &[]), &[0, 1, -1], &[None, None, None]);
        // So many that no hash gives each a place of its own; rows of more than a word, some of them null.
        let numbers: Vec<i32> = (0..3000_i32).map(|index| index.wrapping_mul(1_234_567_891)).collect();
        let names: Vec<String> =
            numbers.iter().map(|number| format!("N{}", "x".repeat(*number as usize % 50))).collect();
        let values: Vec<(&str, i32)> = names.iter().map(String::as_str).zip(numbers.iter().copied()).collect();
        let many = enumeration(false, &values);
        assert!(many.dense.is_empty());
        let asked: Vec<i32> = numbers.iter().flat_map(|number| [*number, number.wrapping_add(1)]).collect();
        let named: HashMap<i32, &str> = values.iter().map(|(name, number)| (*number, *name)).collect();
        check(&many, &asked, &asked.iter().map(|number| named.get(number).copied()).collect::<Vec<_>>());
        assert_eq!(close.name_bytes_max, 11);
    }
}
