//! Descriptors in, columns out: `.proto` folders and descriptor sets become one resolved [`model`]; a message of it
//! becomes the columns of a table ([`mapping`]). The only folder that names a descriptor crate.

pub mod mapping;
pub mod model;
