//! The promises of calve, one file each, on real parts where a promise is about one.

mod catalog_faults;
mod catalogs;
mod cli;
mod columns;
mod commit;
mod crash;
mod ingest;
mod interop;
mod query;
mod readback;
mod refine;
mod rest_protocol;
mod shred;
mod shred_rules;
mod source;
mod storage;
mod support;
mod verify;
