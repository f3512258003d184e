//! Compression of pages.

use std::io::Write;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};

/// What compresses the pages of a file, one after the other: one state for all of its columns.
pub struct Codec {
    compressor: Compressor,
    /// Room for a page, and for what becomes of it, used again and again.
    page: Vec<u8>,
    compressed: Vec<u8>,
}

enum Compressor {
    None,
    Zstd(zstd::bulk::Compressor<'static>),
    Snappy(Box<snap::raw::Encoder>),
    Gzip(flate2::Compression),
    Lz4,
}

impl Codec {
    pub fn new(compression: Compression) -> Result<Codec> {
        let compressor = match compression {
            Compression::UNCOMPRESSED => Compressor::None,
            Compression::ZSTD(level) => Compressor::Zstd(zstd::bulk::Compressor::new(level.compression_level())?),
            Compression::SNAPPY => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::GZIP(level) => Compressor::Gzip(flate2::Compression::new(level.compression_level())),
            Compression::LZ4_RAW => Compressor::Lz4,
            other => return Err(ParquetError::NYI(format!("compression with {other}"))),
        };
        Ok(Codec { compressor, page: Vec::new(), compressed: Vec::new() })
    }

    /// An empty page, to be filled and compressed.
    pub fn page(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.page)
    }

    /// The page as it goes into the file, in memory of its own size: what compressors write to has room for a page that
    /// does not become smaller, and a row group would keep it for each of its pages.
    pub fn compress(&mut self, page: Vec<u8>) -> Result<Bytes> {
        let out = &mut self.compressed;
        out.clear();
        match &mut self.compressor {
            Compressor::None => {}
            Compressor::Zstd(compressor) => {
                out.reserve(zstd::zstd_safe::compress_bound(page.len()));
                compressor.compress_to_buffer(&page, out)?;
            }
            Compressor::Snappy(encoder) => {
                out.resize(snap::raw::max_compress_len(page.len()), 0);
                let length = encoder.compress(&page, out).map_err(|error| ParquetError::External(Box::new(error)))?;
                out.truncate(length);
            }
            Compressor::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(&mut *out, *level);
                encoder.write_all(&page)?;
                encoder.finish()?;
            }
            Compressor::Lz4 => {
                out.resize(lz4_flex::block::get_maximum_output_size(page.len()), 0);
                let length = lz4_flex::block::compress_into(&page, out)
                    .map_err(|error| ParquetError::External(Box::new(error)))?;
                out.truncate(length);
            }
        }
        let bytes = Bytes::copy_from_slice(if matches!(self.compressor, Compressor::None) { &page } else { out });
        self.page = page;
        self.page.clear();
        Ok(bytes)
    }
}
