//! Messages of one partition, copied out of librdkafka into a [`RawBatch`].

use std::sync::Arc;

use crate::batch::{OffsetRange, Permit, RawBatch, RawRecord, Span, Times};

use super::native::Message;

/// A batch is full with so many bytes or records. Its spans never overflow: one more record is at most 1 GB
/// (message.max.bytes).
const BYTES_TARGET: usize = 2 << 20;
const RECORDS_MAX: usize = 8192;

/// Room for the record that overshoots [`BYTES_TARGET`]; a larger one makes the batch grow.
const LAST_RECORD_BYTES: usize = 64 << 10;

/// A batch that is being filled.
pub(super) struct Assembly {
    from: i64,
    records: Vec<RawRecord>,
    headers: Vec<(Span, Option<Span>)>,
    arena: Vec<u8>,
    times: Option<Times>,
}

impl Assembly {
    /// From offset `from`, with room for a full batch: pages that nothing is written to take no memory, and what is not
    /// used is given back at the end. A batch that grew would be copied, to fresh pages each time.
    pub fn new(from: i64) -> Self {
        Assembly {
            from,
            records: Vec::with_capacity(RECORDS_MAX),
            headers: Vec::new(),
            arena: Vec::with_capacity(BYTES_TARGET + LAST_RECORD_BYTES + RawBatch::PADDING),
            times: None,
        }
    }

    pub fn is_full(&self) -> bool {
        self.arena.len() >= BYTES_TARGET || self.records.len() >= RECORDS_MAX
    }

    /// False when the record's headers cannot be parsed.
    pub fn push(&mut self, message: Message<'_>) -> bool {
        let key = message.key().map(|key| append(&mut self.arena, key));
        let value = message.value().map(|value| append(&mut self.arena, value));
        let first_header = self.headers.len() as u32;
        let (arena, headers) = (&mut self.arena, &mut self.headers);
        let parsed = message.headers(|name, value| {
            let name = append(arena, name);
            headers.push((name, value.map(|value| append(arena, value))));
        });
        let (timestamp_ms, timestamp_type) = message.timestamp();
        let record = RawRecord {
            offset: message.offset(),
            timestamp_ms,
            timestamp_type,
            key,
            value,
            headers: Span { start: first_header, end: self.headers.len() as u32 },
        };
        self.times = Times::and(self.times, &record);
        self.records.push(record);
        parsed
    }

    /// The batch, and the bytes that it holds; `None` when it has no records.
    pub fn finish(mut self, topic: &Arc<str>, partition: i32) -> Option<(RawBatch, u64)> {
        let to = self.records.last()?.offset + 1;
        self.arena.resize(self.arena.len() + RawBatch::PADDING, 0);
        if self.arena.capacity() - self.arena.len() > self.arena.len() / 8 {
            self.arena.shrink_to_fit();
        }
        if self.records.capacity() - self.records.len() > self.records.len() / 8 {
            self.records.shrink_to_fit();
        }
        let bytes = self.arena.capacity()
            + self.records.capacity() * size_of::<RawRecord>()
            + self.headers.capacity() * size_of::<(Span, Option<Span>)>();
        let batch = RawBatch {
            topic: topic.clone(),
            partition,
            range: OffsetRange { from: self.from, to },
            records: self.records,
            headers: self.headers,
            arena: self.arena,
            times: self.times,
            permit: Permit::default(),
        };
        Some((batch, bytes as u64))
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = arena.len() as u32;
    arena.extend_from_slice(bytes);
    Span { start, end: arena.len() as u32 }
}
