//! Compression of pages.

use std::io::Write;

use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};

/// What compresses the pages of a file, one after the other: one state for all of its columns.
pub enum Codec {
    Uncompressed,
    Zstd(zstd::bulk::Compressor<'static>),
    Snappy(snap::raw::Encoder),
    Gzip(flate2::Compression),
    Lz4,
}

impl Codec {
    pub fn new(compression: Compression) -> Result<Codec> {
        Ok(match compression {
            Compression::UNCOMPRESSED => Codec::Uncompressed,
            Compression::ZSTD(level) => Codec::Zstd(zstd::bulk::Compressor::new(level.compression_level())?),
            Compression::SNAPPY => Codec::Snappy(snap::raw::Encoder::new()),
            Compression::GZIP(level) => Codec::Gzip(flate2::Compression::new(level.compression_level())),
            Compression::LZ4_RAW => Codec::Lz4,
            other => return Err(ParquetError::NYI(format!("compression with {other}"))),
        })
    }

    pub fn compress(&mut self, page: Vec<u8>) -> Result<Vec<u8>> {
        Ok(match self {
            Codec::Uncompressed => page,
            Codec::Zstd(compressor) => compressor.compress(&page)?,
            Codec::Snappy(encoder) => {
                encoder.compress_vec(&page).map_err(|error| ParquetError::External(Box::new(error)))?
            }
            Codec::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), *level);
                encoder.write_all(&page)?;
                encoder.finish()?
            }
            Codec::Lz4 => lz4_flex::block::compress(&page),
        })
    }
}
