//! Descriptor sets and `.proto` files that nobody meant.

#![no_main]
#![allow(dead_code, unused_imports)] // Of the tests, which are shared.

use std::sync::LazyLock;

#[path = "../../tests/it/rebuild.rs"]
mod rebuild;
#[path = "../../tests/it/shred.rs"]
mod shred;
mod support;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::hostile::Hostile::descriptors(FOLDER.path(), data));
