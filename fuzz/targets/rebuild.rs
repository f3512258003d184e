//! Row, message, row: both ways end where they began.

#![no_main]
#![allow(dead_code, unused_imports)] // Of the tests, which are shared.

use std::cell::RefCell;

mod input;
mod mutate;
#[path = "../../tests/it/rebuild.rs"]
mod rebuild;
#[path = "../../tests/it/shred.rs"]
mod shred;
mod support;

thread_local! {
    static HOSTILE: RefCell<support::hostile::Hostile> = RefCell::new(support::hostile::Hostile::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| HOSTILE.with(|hostile| hostile.borrow_mut().rebuild(data)));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    HOSTILE.with(|hostile| mutate::mutate(&hostile.borrow(), data, size, max_size, seed))
});
