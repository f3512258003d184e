//! Where each message of a descriptor set is declared.

use std::collections::HashMap;
use std::sync::Arc;

use buffa_descriptor::generated::descriptor::{DescriptorProto, FileDescriptorProto};

use super::model::Place;

/// Full name → place, of every message of the files.
pub fn of(files: &[FileDescriptorProto]) -> HashMap<String, Place> {
    let mut places = HashMap::new();
    for file in files {
        let around = Place { file: file.name.as_deref().unwrap_or_default().into(), ..Place::default() };
        add(&file.message_type, file.package.as_deref().unwrap_or_default(), &around, &mut places);
    }
    places
}

/// Nesting is bounded by the decoder's recursion limit.
fn add(messages: &[DescriptorProto], scope: &str, around: &Place, places: &mut HashMap<String, Place>) {
    let mut written = 0;
    for (message, index) in messages.iter().zip(0..) {
        let name = message.name.as_deref().unwrap_or_default();
        let full_name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        let here = Place {
            file: Arc::clone(&around.file),
            index: [around.index.as_slice(), &[index]].concat(),
            written: [around.written.as_slice(), &[written]].concat(),
        };
        add(&message.nested_type, &full_name, &here, places);
        places.insert(full_name, here);
        let options = message.options.as_option();
        written += u32::from(!options.is_some_and(|options| options.map_entry.unwrap_or_default()));
    }
}
