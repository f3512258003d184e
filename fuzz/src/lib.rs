//! The part of calve that is fuzzed.

// The targets need a part of each.
#![allow(dead_code, unused_imports)]

#[path = "../../src/batch.rs"]
pub mod batch;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/schema/mod.rs"]
pub mod schema;
#[path = "../../src/shred/mod.rs"]
pub mod shred;
