//! The distinct values of a column chunk, numbered in the order in which they are met.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// What keeps the values, as the dictionary page has them.
pub trait Store: Default {
    type Value: ?Sized;

    fn hash(&self, value: &Self::Value, hasher: &DefaultHashBuilder) -> u64;
    fn is(&self, index: u32, value: &Self::Value) -> bool;
    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64;
    fn push(&mut self, value: &Self::Value);
    fn len(&self) -> usize;
}

#[derive(Default)]
pub struct Dictionary<S> {
    pub store: S,
    table: HashTable<u32>,
    /// Seeded: what others write must not be able to choose its bucket.
    hasher: DefaultHashBuilder,
    last: u32,
}

impl<S: Store> Dictionary<S> {
    #[inline]
    pub fn index(&mut self, value: &S::Value) -> u32 {
        // Many columns repeat the value before.
        if (self.last as usize) < self.store.len() && self.store.is(self.last, value) {
            return self.last;
        }
        let hash = self.store.hash(value, &self.hasher);
        self.last = match self.table.find(hash, |index| self.store.is(*index, value)) {
            Some(index) => *index,
            None => {
                let index = self.store.len() as u32;
                self.store.push(value);
                self.table.insert_unique(hash, index, |index| self.store.rehash(*index, &self.hasher));
                index
            }
        };
        self.last
    }

    /// Bytes of memory that finding values takes, beside the values.
    pub fn table_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<u32>() + 1)
    }
}

/// Byte strings: each behind its length.
#[derive(Default)]
pub struct Strings {
    pub page: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    pub fn get(&self, index: u32) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index as usize - 1] as usize };
        &self.page[start + 4..self.ends[index as usize] as usize]
    }
}

impl Store for Strings {
    type Value = [u8];

    fn hash(&self, value: &[u8], hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(value)
    }

    #[inline]
    fn is(&self, index: u32, value: &[u8]) -> bool {
        self.get(index) == value
    }

    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(self.get(index))
    }

    fn push(&mut self, value: &[u8]) {
        self.page.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.page.extend_from_slice(value);
        self.ends.push(self.page.len() as u32);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Numbers; told apart by their bits, so that a NaN is one value and zeros are two.
#[derive(Default)]
pub struct Bits(pub Vec<u64>);

impl Store for Bits {
    type Value = u64;

    #[inline]
    fn hash(&self, value: &u64, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(value)
    }

    #[inline]
    fn is(&self, index: u32, value: &u64) -> bool {
        self.0[index as usize] == *value
    }

    fn rehash(&self, index: u32, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(self.0[index as usize])
    }

    fn push(&mut self, value: &u64) {
        self.0.push(*value);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
