//! The distinct values of a column chunk, numbered in the order in which they are met.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// What keeps the values, as the dictionary page has them.
pub trait Store: Default {
    type Value<'a>: Copy;

    fn hash(value: Self::Value<'_>, hasher: &DefaultHashBuilder) -> u64;
    fn is(&self, index: u32, value: Self::Value<'_>) -> bool;
    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64;
    fn push(&mut self, value: Self::Value<'_>);
    fn len(&self) -> usize;
}

#[derive(Default)]
pub struct Dictionary<S> {
    pub store: S,
    table: HashTable<u32>,
    /// Seeded: what others write must not be able to choose its bucket.
    hasher: DefaultHashBuilder,
}

impl<S: Store> Dictionary<S> {
    #[inline]
    pub fn index(&mut self, value: S::Value<'_>) -> u32 {
        // Many columns have but one value.
        if self.store.len() == 1 && self.store.is(0, value) {
            return 0;
        }
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
        self.table.insert_unique(hash, index, |index| self.store.rehash(*index, &self.hasher));
        index
    }

    /// Bytes of memory that finding values takes, beside the values.
    pub fn table_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<u32>() + 1)
    }
}

/// A byte string, with its first and last eight bytes as numbers; of fewer bytes, all of them are the first. Up to
/// sixteen bytes, which most words have, these and the length are all of it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    bytes: &'a [u8],
    head: u64,
    tail: u64,
}

impl Text<'_> {
    #[inline]
    pub fn new(bytes: &[u8]) -> Text<'_> {
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => {
                Text { bytes, head: u64::from_le_bytes(*first), tail: u64::from_le_bytes(*last) }
            }
            _ => {
                let head = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
                    (Some(first), Some(last)) => {
                        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
                    }
                    _ => bytes.iter().fold(0, |head, byte| head << 8 | u64::from(*byte)),
                };
                Text { bytes, head, tail: 0 }
            }
        }
    }
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
    fn get(&self, index: u32) -> &[u8] {
        let (start, end) = self.span(index);
        &self.page[start as usize..end as usize]
    }

    /// Where a value lies in the page.
    pub fn span(&self, index: u32) -> (u32, u32) {
        let entry = &self.entries[index as usize];
        (entry.start, entry.start + entry.length)
    }
}

impl Store for Strings {
    type Value<'a> = Text<'a>;

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
            && (length <= 16 || self.get(index) == text.bytes)
    }

    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64 {
        Self::hash(Text::new(self.get(index)), hasher)
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
    fn hash(value: u64, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(value)
    }

    #[inline]
    fn is(&self, index: u32, value: u64) -> bool {
        self.0[index as usize] == value
    }

    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(self.0[index as usize])
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
                assert_eq!(dictionary.index(Text::new(text)), expected, "{text:?}");
                assert_eq!(dictionary.store.get(expected), text);
            }
        }
    }
}
