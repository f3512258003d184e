//! The distinct values of a column chunk, numbered in the order in which they are met.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// What keeps the values, as the dictionary page has them.
pub trait Store: Default {
    type Value<'a>: Copy;

    /// A cheap hash, without a seed: for guesses, which are looked at again.
    fn mix(value: Self::Value<'_>) -> u64;
    fn hash(value: Self::Value<'_>, hasher: &DefaultHashBuilder) -> u64;
    fn is(&self, index: u32, value: Self::Value<'_>) -> bool;
    fn get(&self, index: u32) -> Self::Value<'_>;
    fn push(&mut self, value: Self::Value<'_>);
    fn len(&self) -> usize;
}

/// Of more values than this the table takes its time from the caches, which guesses would need too.
const GUESSED_MAX: usize = 4096;

/// Slots of guesses for each value: few share one then.
const SLOTS: usize = 4;

#[derive(Default)]
pub struct Dictionary<S> {
    pub store: S,
    table: HashTable<u32>,
    /// Seeded: what others write must not be able to choose its bucket.
    hasher: DefaultHashBuilder,
    /// By the first bits of its mix, which value was met last: mostly it is the one that is looked for, and the table need
    /// not be asked. Empty when there are no guesses.
    guesses: Vec<u16>,
}

impl<S: Store> Dictionary<S> {
    #[inline]
    pub fn index(&mut self, value: S::Value<'_>) -> u32 {
        if self.guesses.is_empty() {
            return self.find(value);
        }
        let slots = self.guesses.len();
        let slot = slot(S::mix(value), slots);
        let guess = u32::from(self.guesses[slot]);
        if self.store.is(guess, value) {
            return guess;
        }
        let index = self.find(value);
        // Else the guesses were made anew, this value's too.
        if self.guesses.len() == slots {
            self.guesses[slot] = index as u16;
        }
        index
    }

    fn find(&mut self, value: S::Value<'_>) -> u32 {
        let hash = S::hash(value, &self.hasher);
        match self.table.find(hash, |index| self.store.is(*index, value)) {
            Some(index) => *index,
            None => self.insert(hash, value),
        }
    }

    #[cold]
    fn insert(&mut self, hash: u64, value: S::Value<'_>) -> u32 {
        let index = self.store.len() as u32;
        self.store.push(value);
        self.table.insert_unique(hash, index, |index| S::hash(self.store.get(*index), &self.hasher));
        if self.store.len() > GUESSED_MAX {
            self.guesses = Vec::new();
        } else if self.store.len() * SLOTS > self.guesses.len() {
            self.guess_anew();
        }
        index
    }

    fn guess_anew(&mut self) {
        let slots = (self.guesses.len() * 2).max(64);
        self.guesses = vec![0; slots];
        for index in 0..self.store.len() as u32 {
            self.guesses[slot(S::mix(self.store.get(index)), slots)] = index as u16;
        }
    }

    /// Bytes of memory that finding values takes, beside the values.
    pub fn table_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<u32>() + 1) + self.guesses.len() * size_of::<u16>()
    }
}

/// The first bits of a mix; `slots` is a power of two.
fn slot(mix: u64, slots: usize) -> usize {
    (mix >> (u64::BITS - slots.ilog2())) as usize
}

/// An odd number whose bits look random: a product with it has its first bits from all bits, and numbers that follow each
/// other lie far apart (Fibonacci hashing, Knuth 6.4).
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A byte string, with its first and last eight bytes as numbers; of fewer bytes, both are all of them. Up to sixteen
/// bytes, which most words have, these and the length are all of it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    bytes: &'a [u8],
    head: u64,
    tail: u64,
}

impl Text<'_> {
    /// The bytes `[start, end)` of `data`.
    #[inline]
    pub fn new(data: &[u8], (start, end): (u32, u32)) -> Text<'_> {
        let (start, end) = (start as usize, end as usize);
        let bytes = &data[start..end];
        let length = bytes.len().min(8);
        Text { bytes, head: word(data, start, length), tail: word(data, end - length, length) }
    }
}

/// So many bytes of `data`, at most eight, as a number, the first one its lowest byte. Mostly there are eight to be read,
/// and no branch asks how many of them count.
#[inline]
pub fn word(data: &[u8], start: usize, length: usize) -> u64 {
    let mut bytes = [0; 8];
    match data[start..].first_chunk() {
        Some(eight) => bytes = *eight,
        None => bytes[..length].copy_from_slice(&data[start..start + length]),
    }
    let all = u64::MAX.checked_shr(u64::BITS - 8 * length as u32);
    u64::from_le_bytes(bytes) & all.unwrap_or(0)
}

/// Byte strings: each behind its length.
#[derive(Default)]
pub struct Strings {
    pub page: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    head: u64,
    tail: u64,
    start: u32,
    length: u32,
}

impl Strings {
    fn bytes(&self, index: u32) -> &[u8] {
        let (start, end) = self.span(index);
        &self.page[start as usize..end as usize]
    }

    /// Where a value lies in the page.
    pub fn span(&self, index: u32) -> (u32, u32) {
        let entry = &self.entries[index as usize];
        (entry.start, entry.start + entry.length)
    }
}

/// Whether two strings of one length, of at least sixteen bytes, are equal. Up to 32 two loads of each are all of them.
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() > 32 {
        return a == b;
    }
    a.first_chunk::<16>() == b.first_chunk() && a.last_chunk::<16>() == b.last_chunk()
}

impl Store for Strings {
    type Value<'a> = Text<'a>;

    #[inline]
    fn mix(text: Text) -> u64 {
        (text.head ^ text.tail.rotate_left(29) ^ text.bytes.len() as u64).wrapping_mul(ODD)
    }

    #[inline]
    fn hash(text: Text, hasher: &DefaultHashBuilder) -> u64 {
        if text.bytes.len() <= 16 {
            hasher.hash_one((text.head, text.tail ^ text.bytes.len() as u64))
        } else {
            hasher.hash_one(text.bytes)
        }
    }

    #[inline]
    fn is(&self, index: u32, text: Text) -> bool {
        let entry = &self.entries[index as usize];
        let length = text.bytes.len();
        entry.head == text.head
            && entry.tail == text.tail
            && entry.length as usize == length
            && (length <= 16 || same(self.bytes(index), text.bytes))
    }

    fn get(&self, index: u32) -> Text<'_> {
        Text::new(&self.page, self.span(index))
    }

    fn push(&mut self, Text { bytes, head, tail }: Text) {
        let length = bytes.len() as u32;
        self.page.extend_from_slice(&length.to_le_bytes());
        self.entries.push(Entry { head, tail, start: self.page.len() as u32, length });
        self.page.extend_from_slice(bytes);
    }

    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Numbers; told apart by their bits, so that a NaN is one value and zeros are two.
#[derive(Default)]
pub struct Bits(pub Vec<u64>);

impl Store for Bits {
    type Value<'a> = u64;

    #[inline]
    fn mix(value: u64) -> u64 {
        value.wrapping_mul(ODD)
    }

    #[inline]
    fn hash(value: u64, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(value)
    }

    #[inline]
    fn is(&self, index: u32, value: u64) -> bool {
        self.0[index as usize] == value
    }

    fn get(&self, index: u32) -> u64 {
        self.0[index as usize]
    }

    fn push(&mut self, value: u64) {
        self.0.push(value);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_told_apart_whatever_their_length() {
        let mut dictionary = Dictionary::<Strings>::default();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for length in 0..40 {
            texts.push(vec![0; length]);
            for place in 0..length {
                let mut text = vec![0; length];
                text[place] = 1;
                texts.push(text);
            }
        }
        for _ in 0..2 {
            for (expected, text) in (0..).zip(&texts) {
                // With as many bytes behind it as may be read along, and with none.
                let longer = [text.as_slice(), &[1; 8]].concat();
                for data in [text, &longer] {
                    assert_eq!(dictionary.index(Text::new(data, (0, text.len() as u32))), expected, "{text:?}");
                }
                assert_eq!(dictionary.store.get(expected).bytes, text);
            }
        }
    }
    /// Past where there are guesses, and with values that share a slot of them.
    #[test]
    fn numbers_are_told_apart_however_many_they_are() {
        let mut dictionary = Dictionary::<Bits>::default();
        let most = 2 * GUESSED_MAX as u64;
        let value = |index: u64| if index.is_multiple_of(2) { index.wrapping_neg() } else { index << 52 | index };
        for reach in [3, most / 8, most] {
            for index in (0..reach).chain((0..reach).rev()) {
                assert_eq!(dictionary.index(value(index)), index as u32);
            }
        }
        assert_eq!(dictionary.store.len() as u64, most);
    }
}
