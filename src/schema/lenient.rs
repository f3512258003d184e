//! Field names that protox refuses and Protobuf does not.
//!
//! In proto3, protox takes two names of one message for a conflict when they are equal without case and underscores
//! (`foo_bar`, `foobar`). protoc compares JSON names, in which these differ. So such fields get other names on the way
//! through protox, and their own back in what it makes. What protoc would refuse, the descriptor reader still does.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use anyhow::Result;
use buffa::{DecodeOptions, Message};
use buffa_descriptor::generated::descriptor::{DescriptorProto, FileDescriptorSet};
use protox::file::{File, FileResolver};
use protox::prost_reflect::prost_types;

/// A field under another name, by file, message path and field number.
type Place = (String, Vec<String>, i32);

/// The fields that were renamed; shared by the resolver and whoever restores them.
#[derive(Clone, Debug, Default)]
pub struct Renamed(Rc<RefCell<HashMap<Place, Original>>>);

#[derive(Clone, Debug)]
struct Original {
    name: String,
    json_name: Option<String>,
}

/// Opens files as `inner` does, fields with such names renamed. A file in which that happens loses its source text, and
/// with it the line in protox's later messages about it.
pub struct Lenient<R> {
    pub inner: R,
    pub renamed: Renamed,
}

impl<R: FileResolver> FileResolver for Lenient<R> {
    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        self.inner.resolve_path(path)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = self.inner.open_file(name)?;
        if file.file_descriptor_proto().syntax() != "proto3" {
            return Ok(file);
        }
        let mut descriptor = file.file_descriptor_proto().clone();
        let mut renamed = Vec::new();
        for message in &mut descriptor.message_type {
            rename(message, name, &mut Vec::new(), &mut renamed);
        }
        if renamed.is_empty() {
            return Ok(file);
        }
        self.renamed.0.borrow_mut().extend(renamed);
        Ok(File::from_file_descriptor_proto(descriptor))
    }
}

/// The parser bounds how deep messages are nested.
fn rename(
    message: &mut prost_types::DescriptorProto,
    file: &str,
    path: &mut Vec<String>,
    renamed: &mut Vec<(Place, Original)>,
) {
    path.push(message.name().to_string());
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let mut names: HashSet<String> = HashSet::new();
    let mut exact: HashSet<String> = HashSet::new();
    for field in &mut message.field {
        // The same name twice is a fault, and protox says so.
        if !exact.insert(field.name().to_string()) || names.insert(plain(field.name())) {
            continue;
        }
        let original = Original { name: field.name().to_string(), json_name: field.json_name.take() };
        renamed.push(((file.to_string(), path.clone(), field.number()), original));
        field.name = Some(format!("renamed_field_{}", field.number()));
    }
    for nested in &mut message.nested_type {
        rename(nested, file, path, renamed);
    }
    path.pop();
}

impl Renamed {
    /// The compiled set with every field under its own name.
    pub fn restore(&self, set: Vec<u8>) -> Result<Vec<u8>> {
        let renamed = self.0.borrow();
        if renamed.is_empty() {
            return Ok(set);
        }
        let options = DecodeOptions::new().with_element_memory_limit(usize::MAX);
        let mut set: FileDescriptorSet = options
            .decode_from_slice(&set)
            .map_err(|e| anyhow::anyhow!("the compiled schema cannot be read back: {e}"))?;
        for file in &mut set.file {
            let name = file.name.clone().unwrap_or_default();
            for message in &mut file.message_type {
                restore(message, &name, &mut Vec::new(), &renamed);
            }
        }
        Ok(set.encode_to_vec())
    }
}

fn restore(message: &mut DescriptorProto, file: &str, path: &mut Vec<String>, renamed: &HashMap<Place, Original>) {
    path.push(message.name.clone().unwrap_or_default());
    for field in &mut message.field {
        let place = (file.to_string(), path.clone(), field.number.unwrap_or_default());
        if let Some(original) = renamed.get(&place) {
            field.name = Some(original.name.clone());
            field.json_name = original.json_name.clone();
        }
    }
    for nested in &mut message.nested_type {
        restore(nested, file, path, renamed);
    }
    path.pop();
}
