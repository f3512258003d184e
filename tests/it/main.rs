//! The promises of calve, one file each, on real parts where a promise is about one.

mod catalogs;
mod support;
