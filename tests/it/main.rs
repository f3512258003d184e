//! The promises of calve, one file each, on real parts where a promise is about one.

mod catalog_faults;
mod catalogs;
mod cli;
mod columns;
mod commit;
mod conformance;
mod crash;
mod evolve;
mod ingest;
mod interop;
mod outages;
mod query;
mod readback;
mod rebuild;
mod refine;
mod rest_protocol;
mod schemas;
mod shred;
mod shred_constructs;
mod shred_rules;
mod source;
mod storage;
mod support;
mod telemetry;
mod verify;
mod volume;
