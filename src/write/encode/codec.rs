//! Compression of pages.

use std::io::Write;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};

/// What compresses the pages of a file, one after the other: one state for all of its columns.
pub struct Codec {
    compressor: Compressor,
    /// Room for a page, used again and again.
    page: Vec<u8>,
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
        Ok(Codec { compressor, page: Vec::new() })
    }

    /// An empty page, to be filled and compressed.
    pub fn page(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.page)
    }

    pub fn compress(&mut self, page: Vec<u8>) -> Result<Bytes> {
        let compressed = match &mut self.compressor {
            Compressor::None => return Ok(page.into()),
            Compressor::Zstd(compressor) => compressor.compress(&page)?,
            Compressor::Snappy(encoder) => {
                encoder.compress_vec(&page).map_err(|error| ParquetError::External(Box::new(error)))?
            }
            Compressor::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), *level);
                encoder.write_all(&page)?;
                encoder.finish()?
            }
            Compressor::Lz4 => lz4_flex::block::compress(&page),
        };
        self.page = page;
        self.page.clear();
        Ok(compressed.into())
    }
}
