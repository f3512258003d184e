//! A column chunk: pages as they fill up, and what the footer and the page index say of them.

use std::collections::VecDeque;
use std::io::Read;

use bytes::{Buf, Bytes};
use parquet::basic::{BoundaryOrder, Compression, Encoding, EncodingMask, PageType};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, LevelHistogram, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::super::bounds::Value;
use super::bits::{hybrid, width};
use super::codec::Codec;
use super::levels::{Leaf, Levels};
use super::statistics::{cut_least, cut_most, statistics};
use super::values::{Values, values};

/// One column of the open row group.
pub struct Column {
    descriptor: ColumnDescPtr,
    limits: Limits,
    values: Box<dyn Values>,
    /// Of the page that is being filled.
    def: Vec<u8>,
    rep: Vec<u8>,
    slots: usize,
    rows: usize,
    /// Pages, and the dictionary that goes before them, as they will be in the file: each in memory of its own size, for
    /// a buffer that grows holds up to twice what it has.
    pages: Vec<Bytes>,
    page_bytes: usize,
    dictionary: Option<Bytes>,
    dictionary_sizes: Sizes,
    chunk: Chunk,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    bloom: Option<(Sbbf, f64)>,
}

struct Limits {
    compression: Compression,
    page_bytes: usize,
    page_rows: usize,
    dictionary_bytes: usize,
    /// Bytes of ends that statistics and the page index keep.
    statistics_bytes: Option<usize>,
    index_bytes: Option<usize>,
}

#[derive(Clone, Copy, Default)]
struct Sizes {
    compressed: usize,
    uncompressed: usize,
}

/// What the pages so far add up to.
struct Chunk {
    sizes: Sizes,
    slots: usize,
    rows: usize,
    nulls: u64,
    ends: Option<(Value, Value)>,
    /// Of the page before, if any had ends.
    last: Option<(Value, Value)>,
    ascending: bool,
    descending: bool,
    text_bytes: Option<i64>,
    def: Option<LevelHistogram>,
    rep: Option<LevelHistogram>,
    encodings: Vec<PageEncodingStats>,
}

impl Column {
    pub fn new(descriptor: ColumnDescPtr, properties: &WriterProperties) -> Result<Column> {
        let path = descriptor.path();
        let bloom = match properties.bloom_filter_properties(path) {
            Some(bloom) => Some((Sbbf::new_with_ndv_fpp(bloom.ndv, bloom.fpp)?, bloom.fpp)),
            None => None,
        };
        Ok(Column {
            limits: Limits {
                compression: properties.compression(path),
                page_bytes: properties.column_data_page_size_limit(path),
                page_rows: properties.data_page_row_count_limit(),
                dictionary_bytes: properties.column_dictionary_page_size_limit(path),
                statistics_bytes: properties.statistics_truncate_length(),
                index_bytes: properties.column_index_truncate_length(),
            },
            values: values(&descriptor, properties)?,
            def: Vec::new(),
            rep: Vec::new(),
            slots: 0,
            rows: 0,
            pages: Vec::new(),
            page_bytes: 0,
            dictionary: None,
            dictionary_sizes: Sizes::default(),
            chunk: Chunk {
                sizes: Sizes::default(),
                slots: 0,
                rows: 0,
                nulls: 0,
                ends: None,
                last: None,
                ascending: true,
                descending: true,
                text_bytes: None,
                def: LevelHistogram::try_new(descriptor.max_def_level()),
                rep: LevelHistogram::try_new(descriptor.max_rep_level()),
                encodings: Vec::new(),
            },
            column_index: ColumnIndexBuilder::new(descriptor.physical_type()),
            offset_index: OffsetIndexBuilder::new(),
            bloom,
            descriptor,
        })
    }

    /// Appends a batch's part of the column.
    pub fn write(&mut self, leaf: Leaf, codec: &mut Codec) -> Result<()> {
        let count = self.values.load(leaf.array, leaf.valid)?;
        if let Some((bloom, _)) = &mut self.bloom {
            self.values.hashed(0..count, &mut |bytes| bloom.insert(bytes));
        }
        let (mut slot, mut value) = (0, 0);
        while slot < leaf.slots {
            let mut rows = self.limits.page_rows - self.rows;
            let (mut slot_end, mut value_end);
            loop {
                slot_end = self.rows_end(&leaf, slot, &mut rows);
                value_end = value + self.present(&leaf, slot..slot_end);
                let bytes = self.values.page_bytes() + self.values.bytes(value..value_end);
                if rows <= 1 || bytes <= self.limits.page_bytes {
                    break;
                }
                rows = rows.div_ceil(2);
            }
            match leaf.def {
                Levels::All(def) if self.descriptor.max_def_level() > 0 => {
                    self.def.resize(self.def.len() + slot_end - slot, def);
                }
                Levels::All(_) => {}
                Levels::Each(def) => self.def.extend_from_slice(&def[slot..slot_end]),
            }
            if let Some(rep) = leaf.rep {
                self.rep.extend_from_slice(&rep[slot..slot_end]);
            }
            self.values.append(value..value_end);
            self.slots += slot_end - slot;
            self.rows += rows;
            (slot, value) = (slot_end, value_end);
            if self.rows >= self.limits.page_rows || self.values.page_bytes() >= self.limits.page_bytes {
                self.end_page(codec)?;
            }
            if self.values.dictionary_bytes() >= self.limits.dictionary_bytes.max(1) {
                self.end_page(codec)?;
                self.end_dictionary(codec)?;
            }
        }
        Ok(())
    }

    /// Where so many rows from a slot on end, or fewer, if there are no more.
    fn rows_end(&self, leaf: &Leaf, slot: usize, rows: &mut usize) -> usize {
        match leaf.rep {
            None => {
                *rows = (*rows).min(leaf.slots - slot);
                slot + *rows
            }
            Some(rep) => {
                let left = count(&rep[slot..], 0);
                if left <= *rows {
                    *rows = left;
                    return leaf.slots;
                }
                let mut starts = (slot..).zip(&rep[slot..]).filter(|(_, rep)| **rep == 0).map(|(slot, _)| slot);
                starts.nth(*rows).unwrap_or(leaf.slots)
            }
        }
    }

    fn present(&self, leaf: &Leaf, slots: std::ops::Range<usize>) -> usize {
        let max = self.descriptor.max_def_level() as u8;
        match leaf.def {
            Levels::All(def) if def == max => slots.len(),
            Levels::All(_) => 0,
            Levels::Each(def) => count(&def[slots], max),
        }
    }

    fn end_page(&mut self, codec: &mut Codec) -> Result<()> {
        if self.slots == 0 {
            return Ok(());
        }
        let mut page = codec.page();
        let mut nulls = 0;
        let [max_def, max_rep] = [self.descriptor.max_def_level(), self.descriptor.max_rep_level()];
        let [def, rep] = [histogram(&self.def, max_def), histogram(&self.rep, max_rep)];
        if max_rep > 0 {
            levels(&self.rep, max_rep, &mut page);
        }
        if let Some(def) = &def {
            levels(&self.def, max_def, &mut page);
            nulls = self.slots as i64 - def.get(max_def as usize).unwrap_or(0);
        }
        let summary = self.values.flush(&mut page);
        self.chunk.add(self.slots, self.rows, nulls, &summary.ends, summary.text_bytes, (&def, &rep));
        if nulls as usize == self.slots {
            self.column_index.append(true, Vec::new(), Vec::new(), nulls);
        } else if let Some((least, most)) = &summary.ends {
            let length = self.limits.index_bytes;
            let (least, _) = cut_least(&self.descriptor, least, length);
            let (most, _) = cut_most(&self.descriptor, most, length);
            self.column_index.append(false, least, most, nulls);
        } else {
            // Nothing but NaN, of which the index cannot speak.
            self.column_index.to_invalid();
        }
        self.column_index.append_histograms(&rep, &def);
        self.offset_index.append_row_count(self.rows as i64);
        self.offset_index.append_unencoded_byte_array_data_bytes(summary.text_bytes);

        let uncompressed = page.len();
        let page = Page::DataPage {
            buf: codec.compress(page)?,
            num_values: self.slots as u32,
            encoding: summary.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (page, spec) = stored(CompressedPage::new(page, uncompressed))?;
        self.offset_index.append_offset_and_size(self.page_bytes as i64, spec.compressed_size as i32);
        self.page_bytes += page.len();
        self.pages.push(page);
        self.chunk.sizes.compressed += spec.compressed_size;
        self.chunk.sizes.uncompressed += spec.uncompressed_size;
        match self.chunk.encodings.last_mut() {
            Some(last) if last.encoding == summary.encoding => last.count += 1,
            _ => self.chunk.encodings.push(PageEncodingStats {
                page_type: PageType::DATA_PAGE,
                encoding: summary.encoding,
                count: 1,
            }),
        }
        self.def.clear();
        self.rep.clear();
        (self.slots, self.rows) = (0, 0);
        Ok(())
    }

    /// Writes the dictionary, which later pages do without.
    fn end_dictionary(&mut self, codec: &mut Codec) -> Result<()> {
        let Some((page, entries)) = self.values.end_dictionary() else { return Ok(()) };
        let uncompressed = page.len();
        let page = Page::DictionaryPage {
            buf: codec.compress(page)?,
            num_values: entries as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let (page, spec) = stored(CompressedPage::new(page, uncompressed))?;
        self.dictionary_sizes = Sizes { compressed: spec.compressed_size, uncompressed: spec.uncompressed_size };
        self.dictionary = Some(page);
        Ok(())
    }

    /// Bytes that the chunk takes in the file so far; the page that is being filled counts as it is.
    pub fn encoded_bytes(&self) -> usize {
        self.page_bytes + self.dictionary_len() + self.values.dictionary_bytes() + self.values.page_bytes()
    }

    fn dictionary_len(&self) -> usize {
        self.dictionary.as_ref().map_or(0, Bytes::len)
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.encoded_bytes() + self.values.table_bytes() + self.def.len() + self.rep.len()
    }

    /// The chunk, and what is to be said of it. The column is of no use then.
    pub fn close(mut self, codec: &mut Codec) -> Result<(Parts, ColumnCloseResult)> {
        self.end_page(codec)?;
        self.end_dictionary(codec)?;
        let statistics =
            statistics(&self.descriptor, self.chunk.ends.as_ref(), self.chunk.nulls, self.limits.statistics_bytes);
        let (has_dictionary, shift) = (self.dictionary.is_some(), self.dictionary_len() as i64);
        let mut encodings = self.chunk.encodings;
        if has_dictionary {
            encodings.insert(
                0,
                PageEncodingStats { page_type: PageType::DICTIONARY_PAGE, encoding: Encoding::PLAIN, count: 1 },
            );
        }
        let used: Vec<Encoding> = encodings.iter().map(|page| page.encoding).chain([Encoding::RLE]).collect();
        let sizes = [self.chunk.sizes, self.dictionary_sizes];
        let compressed = sizes.iter().map(|sizes| sizes.compressed).sum::<usize>();
        let metadata = ColumnChunkMetaData::builder(self.descriptor.clone())
            .set_compression(self.limits.compression)
            .set_encodings_mask(EncodingMask::new_from_encodings(used.iter()))
            .set_page_encoding_stats(encodings)
            .set_total_compressed_size(compressed as i64)
            .set_total_uncompressed_size(sizes.iter().map(|sizes| sizes.uncompressed as i64).sum())
            .set_num_values(self.chunk.slots as i64)
            .set_data_page_offset(shift)
            .set_dictionary_page_offset(has_dictionary.then_some(0))
            .set_statistics(statistics)
            .set_unencoded_byte_array_data_bytes(self.chunk.text_bytes)
            .set_repetition_level_histogram(self.chunk.rep)
            .set_definition_level_histogram(self.chunk.def)
            .build()?;
        self.column_index.set_boundary_order(match (self.chunk.ascending, self.chunk.descending) {
            (true, _) => BoundaryOrder::ASCENDING,
            (false, true) => BoundaryOrder::DESCENDING,
            (false, false) => BoundaryOrder::UNORDERED,
        });
        let column_index = if self.column_index.valid() { Some(self.column_index.build()?) } else { None };
        let mut offset_index = self.offset_index.build();
        offset_index.page_locations.iter_mut().for_each(|page| page.offset += shift);
        let close = ColumnCloseResult {
            bytes_written: compressed as u64,
            rows_written: self.chunk.rows as u64,
            metadata,
            bloom_filter: self.bloom.map(|(mut bloom, rate)| {
                bloom.fold_to_target_fpp(rate);
                bloom
            }),
            column_index,
            offset_index: Some(offset_index),
        };
        Ok((Parts(self.dictionary.into_iter().chain(self.pages).collect()), close))
    }
}

impl Chunk {
    fn add(
        &mut self,
        slots: usize,
        rows: usize,
        nulls: i64,
        ends: &Option<(Value, Value)>,
        text_bytes: Option<i64>,
        (def, rep): (&Option<LevelHistogram>, &Option<LevelHistogram>),
    ) {
        self.slots += slots;
        self.rows += rows;
        self.nulls += nulls as u64;
        for (all, page) in [(&mut self.def, def), (&mut self.rep, rep)] {
            if let (Some(all), Some(page)) = (all, page) {
                all.add(page);
            }
        }
        if let Some(bytes) = text_bytes {
            *self.text_bytes.get_or_insert(0) += bytes;
        }
        let Some((least, most)) = ends else { return };
        if let Some((last_least, last_most)) = &self.last {
            self.ascending &= last_least.cmp(least).is_le() && last_most.cmp(most).is_le();
            self.descending &= last_least.cmp(least).is_ge() && last_most.cmp(most).is_ge();
        }
        self.last = Some((least.clone(), most.clone()));
        self.ends = Some(match self.ends.take() {
            None => (least.clone(), most.clone()),
            Some((low, high)) => (
                if least.cmp(&low).is_lt() { least.clone() } else { low },
                if most.cmp(&high).is_gt() { most.clone() } else { high },
            ),
        });
    }
}

/// A page with its header, and what is to be said of it.
fn stored(page: CompressedPage) -> Result<(Bytes, PageWriteSpec)> {
    /// About what a header takes.
    const HEADER_BYTES: usize = 64;
    let mut out = TrackedWrite::new(Vec::with_capacity(page.compressed_size() + HEADER_BYTES));
    let spec = SerializedPageWriter::new(&mut out).write_page(page)?;
    Ok((out.into_inner()?.into(), spec))
}

/// A chunk's bytes: the dictionary, which is complete at last only, and the pages.
pub struct Parts(VecDeque<Bytes>);

impl Length for Parts {
    fn len(&self) -> u64 {
        self.0.iter().map(|part| part.len() as u64).sum()
    }
}

impl ChunkReader for Parts {
    type T = Reader;

    fn get_read(&self, start: u64) -> Result<Reader> {
        let mut reader = Reader(self.0.clone());
        std::io::copy(&mut reader.by_ref().take(start), &mut std::io::sink())?;
        Ok(reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(length);
        self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Parts, one after the other.
pub struct Reader(VecDeque<Bytes>);

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        let Some(part) = self.0.front_mut() else { return Ok(0) };
        let length = part.len().min(into.len());
        part.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

fn count(levels: &[u8], level: u8) -> usize {
    // In pieces whose count fits a byte, which are added up many at a time.
    let pieces = levels.chunks(255);
    pieces.map(|piece| usize::from(piece.iter().map(|other| u8::from(*other == level)).sum::<u8>())).sum()
}

fn histogram(levels: &[u8], max: i16) -> Option<LevelHistogram> {
    let mut histogram = LevelHistogram::try_new(max)?;
    for level in 0..=max {
        histogram.increment_by(level, count(levels, level as u8) as i64);
    }
    Some(histogram)
}

/// Levels as a page of the first version has them: behind their length.
fn levels(levels: &[u8], max: i16, page: &mut Vec<u8>) {
    let start = page.len();
    page.extend_from_slice(&[0; 4]);
    hybrid(levels, width(max as u64), page);
    let length = (page.len() - start - 4) as u32;
    page[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
