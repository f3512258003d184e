//! Byte strings, of any length each or of one.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type};
use parquet::basic::Encoding;
use parquet::errors::{ParquetError, Result};

use super::super::bounds::{Value, big_endian};
use super::bits::{hybrid, width};
use super::delta;
use super::dictionary::{Dictionary, Store, Strings, Text, word};
use super::values::{Summary, Values, unexpected};

/// Where a byte string lies.
type Span = (u32, u32);

pub struct Texts {
    data: Buffer,
    loaded: Vec<Span>,
    /// Whether no byte lies between loaded values.
    dense: bool,
    page: Page,
    dictionary: Option<Dictionary<Strings>>,
    /// With a dictionary: which entries the page has.
    used: Vec<bool>,
    encoding: Encoding,
    /// Bytes of each value, if all have as many.
    width: Option<usize>,
    /// Whether the bytes are a number, which is ordered as such.
    decimal: bool,
}

#[derive(Default)]
struct Page {
    /// Without a dictionary: the values, each behind its length if the encoding is plain.
    data: Vec<u8>,
    lengths: Vec<i32>,
    /// With a dictionary.
    indexes: Vec<u32>,
    ends: Option<(Vec<u8>, Vec<u8>)>,
    text_bytes: usize,
}

impl Texts {
    pub fn new(dictionary: bool, encoding: Encoding) -> Texts {
        Texts {
            data: Buffer::default(),
            loaded: Vec::new(),
            dense: true,
            page: Page::default(),
            dictionary: dictionary.then(Dictionary::default),
            used: Vec::new(),
            encoding,
            width: None,
            decimal: false,
        }
    }

    pub fn fixed(width: usize) -> Texts {
        Texts { width: Some(width), ..Texts::new(false, Encoding::PLAIN) }
    }

    fn offsets<O: OffsetSizeTrait>(&mut self, data: &Buffer, offsets: &[O], valid: Option<&NullBuffer>) -> Result<()> {
        let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
        if u32::try_from(last - first).is_err() {
            return Err(ParquetError::General(format!("a batch of {} bytes in one column is too large", last - first)));
        }
        self.data = data.slice_with_length(first, last - first);
        let starts = offsets.iter().map(|offset| (offset.as_usize() - first) as u32);
        let spans = starts.clone().zip(starts.skip(1));
        self.loaded.clear();
        self.loaded.extend(spans);
        if let Some(valid) = valid {
            let mut count = 0;
            for (index, valid) in valid.iter().enumerate() {
                self.loaded[count] = self.loaded[index];
                count += usize::from(valid);
            }
            self.loaded.truncate(count);
        }
        let between = |(first, last): (&Span, &Span)| (last.1 - first.0) as usize;
        self.dense = text_bytes(&self.loaded) == self.loaded.first().zip(self.loaded.last()).map_or(0, between);
        Ok(())
    }

    /// Values of one width, from bytes that nothing points into.
    fn owned(&mut self, data: Buffer, width: usize, valid: Option<&NullBuffer>) {
        let spans = (0..data.len() / width.max(1)).map(|index| ((index * width) as u32, ((index + 1) * width) as u32));
        self.loaded.clear();
        match valid {
            None => self.loaded.extend(spans),
            Some(valid) => self.loaded.extend(spans.zip(valid).filter(|(_, valid)| *valid).map(|(span, _)| span)),
        }
        self.dense = valid.is_none();
        self.data = data;
    }
}

fn text_bytes(spans: &[Span]) -> usize {
    spans.iter().map(|(start, end)| (end - start) as usize).sum()
}

fn text(data: &[u8], (start, end): Span) -> &[u8] {
    &data[start as usize..end as usize]
}

impl Values for Texts {
    fn load(&mut self, array: &ArrayRef, valid: Option<&NullBuffer>) -> Result<usize> {
        match (array.data_type(), self.width) {
            (DataType::Utf8, None) => {
                let array = array.as_string::<i32>();
                self.offsets(array.values(), array.offsets(), valid)?;
            }
            (DataType::LargeUtf8, None) => {
                let array = array.as_string::<i64>();
                self.offsets(array.values(), array.offsets(), valid)?;
            }
            (DataType::Binary, None) => {
                let array = array.as_binary::<i32>();
                self.offsets(array.values(), array.offsets(), valid)?;
            }
            (DataType::LargeBinary, None) => {
                let array = array.as_binary::<i64>();
                self.offsets(array.values(), array.offsets(), valid)?;
            }
            (DataType::Utf8View | DataType::BinaryView, None) => {
                let array = cast(array, &DataType::LargeBinary)?;
                let array = array.as_binary::<i64>();
                self.offsets(array.values(), array.offsets(), valid)?;
            }
            (DataType::FixedSizeBinary(size), Some(width)) if *size as usize == width => {
                let array = array.as_fixed_size_binary();
                let bytes = array.value_data().len();
                debug_assert_eq!(bytes, array.len() * width);
                self.owned(Buffer::from(array.value_data()), width, valid);
            }
            (DataType::Decimal128(..), Some(width)) => {
                self.decimal = true;
                let values = array.as_primitive::<Decimal128Type>().values();
                let mut data = Vec::with_capacity(values.len() * width);
                values.iter().for_each(|value| data.extend_from_slice(&value.to_be_bytes()[16 - width..]));
                self.owned(Buffer::from_vec(data), width, valid);
            }
            _ => return Err(unexpected(array)),
        }
        Ok(self.loaded.len())
    }

    fn bytes(&self, range: Range<usize>) -> usize {
        let spans = &self.loaded[range];
        match (spans.first(), spans.last()) {
            (Some(first), Some(last)) => spans.len() * size_of::<u32>() + (last.1 - first.0) as usize,
            _ => 0,
        }
    }

    fn append(&mut self, range: Range<usize>) {
        let spans = &self.loaded[range];
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return };
        let page = &mut self.page;
        page.text_bytes += if self.dense { (last.1 - first.0) as usize } else { text_bytes(spans) };
        if let Some(dictionary) = &mut self.dictionary {
            page.indexes.extend(spans.iter().map(|span| {
                let index = dictionary.index(Text::new(&self.data, *span));
                if index as usize >= self.used.len() {
                    self.used.resize(dictionary.store.len(), false);
                }
                self.used[index as usize] = true;
                index
            }));
            return;
        }
        widen(&mut page.ends, ends(&self.data, spans, self.decimal), self.decimal);
        let behind_lengths = self.width.is_none() && self.encoding == Encoding::PLAIN;
        if behind_lengths {
            page.data.reserve(spans.len() * size_of::<u32>() + (last.1 - first.0) as usize);
            for span in spans {
                page.data.extend_from_slice(&(span.1 - span.0).to_le_bytes());
                page.data.extend_from_slice(text(&self.data, *span));
            }
        } else if self.dense {
            page.data.extend_from_slice(text(&self.data, (first.0, last.1)));
        } else {
            spans.iter().for_each(|span| page.data.extend_from_slice(text(&self.data, *span)));
        }
        if self.width.is_none() && !behind_lengths {
            page.lengths.extend(spans.iter().map(|(start, end)| (end - start) as i32));
        }
    }

    fn hashed(&self, range: Range<usize>, visit: &mut dyn FnMut(&[u8])) {
        self.loaded[range].iter().for_each(|span| visit(text(&self.data, *span)));
    }

    fn page_bytes(&self) -> usize {
        self.page.data.len() + size_of::<u32>() * (self.page.lengths.len() + self.page.indexes.len())
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Summary {
        let page = &mut self.page;
        let mut encoding = if self.width.is_some() { Encoding::PLAIN } else { self.encoding };
        match &self.dictionary {
            Some(dictionary) => {
                encoding = Encoding::RLE_DICTIONARY;
                let width = width((dictionary.store.len() as u64).saturating_sub(1));
                out.push(width as u8);
                hybrid(&page.indexes, width, out);
                let used = (0u32..).zip(&self.used).filter(|(_, used)| **used);
                let spans: Vec<Span> = used.map(|(index, _)| dictionary.store.span(index)).collect();
                if !spans.is_empty() {
                    let (least, most) = ends(&dictionary.store.page, &spans, false);
                    page.ends = Some((least.to_vec(), most.to_vec()));
                }
                self.used.fill(false);
            }
            None if encoding == Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                delta::encode(&page.lengths, out);
                out.extend_from_slice(&page.data);
            }
            None => out.extend_from_slice(&page.data),
        }
        let value = |bytes: Vec<u8>| match self.decimal {
            true => big_endian(&bytes).map(Value::Decimal),
            false => Some(Value::Bytes(bytes)),
        };
        let ends = page.ends.take().and_then(|(least, most)| value(least).zip(value(most)));
        let text_bytes = self.width.is_none().then_some(page.text_bytes as i64);
        page.data.clear();
        page.lengths.clear();
        page.indexes.clear();
        page.text_bytes = 0;
        Summary { encoding, ends, text_bytes }
    }

    fn dictionary_bytes(&self) -> usize {
        self.dictionary.as_ref().map_or(0, |dictionary| dictionary.store.page.len())
    }

    fn table_bytes(&self) -> usize {
        self.dictionary.as_ref().map_or(0, |dictionary| {
            dictionary.table_bytes() + dictionary.store.len() * size_of::<Text>() + self.used.len()
        })
    }

    fn end_dictionary(&mut self) -> Option<(Vec<u8>, usize)> {
        let store = self.dictionary.take()?.store;
        self.used = Vec::new();
        let entries = store.len();
        Some((store.page, entries))
    }
}

/// The least and the largest of some byte strings.
fn ends<'a>(data: &'a [u8], spans: &[Span], decimal: bool) -> (&'a [u8], &'a [u8]) {
    let (mut least, mut most) = (spans[0], spans[0]);
    // What all have in common is not compared again and again: keys are of what comes after it.
    let common = if decimal { 0 } else { common(data, spans) };
    let mut keys = [key(data, behind(least, common), decimal); 2];
    for span in &spans[1..] {
        let key = key(data, behind(*span, common), decimal);
        if key < keys[0] || key == keys[0] && text(data, *span) < text(data, least) {
            (keys[0], least) = (key, *span);
        } else if key > keys[1] || key == keys[1] && text(data, *span) > text(data, most) {
            (keys[1], most) = (key, *span);
        }
    }
    (text(data, least), text(data, most))
}

/// Bytes that all strings begin with, as if zeros went on behind each: perhaps more than one of them has.
fn common(data: &[u8], spans: &[Span]) -> u32 {
    let mut common = 0;
    loop {
        let first = key(data, behind(spans[0], common), false);
        let mut differing = 0;
        for spans in spans.chunks(64) {
            differing |= spans.iter().fold(0, |all, span| all | key(data, behind(*span, common), false) ^ first);
            if differing.leading_zeros() < 8 {
                return common;
            }
        }
        common += differing.leading_zeros() / 8;
        if differing != 0 || first == 0 {
            return common;
        }
    }
}

fn behind((start, end): Span, bytes: u32) -> Span {
    (end.min(start.saturating_add(bytes)), end)
}

/// The first eight bytes as a number that is ordered like them; zeros stand for those that are not there.
fn key(data: &[u8], (start, end): Span, decimal: bool) -> u64 {
    let key = word(data, start as usize, (end - start).min(8) as usize).swap_bytes();
    // Of a number in two's complement the sign's bit counts the other way round.
    if decimal { key ^ 1 << 63 } else { key }
}

fn widen(ends: &mut Option<(Vec<u8>, Vec<u8>)>, (least, most): (&[u8], &[u8]), decimal: bool) {
    let order = |a: &[u8], b: &[u8]| -> Ordering {
        let key = |bytes: &[u8]| key(bytes, (0, bytes.len() as u32), decimal);
        key(a).cmp(&key(b)).then_with(|| a.cmp(b))
    };
    match ends {
        None => *ends = Some((least.to_vec(), most.to_vec())),
        Some((low, high)) => {
            if order(least, low).is_lt() {
                *low = least.to_vec();
            }
            if order(most, high).is_gt() {
                *high = most.to_vec();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Few letters, a zero among them, behind starts that many have in common.
    #[test]
    fn the_ends_are_the_least_and_the_largest() {
        for seed in 0..20_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (shared, longest) = (rng.random_range(0..20_usize), rng.random_range(0..20));
            let (mut data, mut spans) = (Vec::new(), Vec::new());
            for _ in 0..rng.random_range(1..200) {
                let start = data.len() as u32;
                data.extend(std::iter::repeat_n(7, rng.random_range(shared.saturating_sub(1)..=shared)));
                data.extend((0..rng.random_range(0..=longest)).map(|_| [0, 7, 255][rng.random_range(0..3)]));
                spans.push((start, data.len() as u32));
            }
            let texts = || spans.iter().map(|span| text(&data, *span));
            let expected = (texts().min().unwrap(), texts().max().unwrap());
            assert_eq!(ends(&data, &spans, false), expected, "seed {seed}");
        }
    }
}
