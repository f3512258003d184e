//! Of an input what only the fuzzer needs.

use crate::support::hostile::{Hostile, Input, Topic};

impl Input {
    /// What [`Input::parse`] reads.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.topic, self.flags];
        for record in &self.records {
            let length = record.len().min(u16::MAX.into());
            bytes.extend((length as u16).to_le_bytes());
            bytes.extend(&record[..length]);
        }
        bytes
    }
}

impl Hostile {
    /// The topic that an input means.
    pub fn topic(&self, number: u8) -> &Topic {
        &self.topics[usize::from(number) % self.topics.len()]
    }
}
