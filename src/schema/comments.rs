//! The comments of a schema's source, by the full name of what they stand at; they become column docs.

use std::collections::HashMap;

use buffa_descriptor::generated::descriptor::source_code_info::Location;
use buffa_descriptor::generated::descriptor::{DescriptorProto, FileDescriptorProto};

// Field numbers of descriptor.proto, as source locations spell paths.
const FILE_MESSAGE: i32 = 4;
const FILE_EXTENSION: i32 = 7;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_EXTENSION: i32 = 6;
const MESSAGE_ONEOF: i32 = 8;

/// Full name (`pkg.Message.field`) → comment.
#[derive(Debug, Default)]
pub struct Comments {
    by_name: HashMap<String, String>,
}

impl Comments {
    pub fn of(files: &[FileDescriptorProto]) -> Self {
        let mut comments = Comments::default();
        for file in files {
            comments.add_file(file);
        }
        comments
    }

    pub fn get(&self, full_name: &str) -> Option<String> {
        self.by_name.get(full_name).cloned()
    }

    fn add_file(&mut self, file: &FileDescriptorProto) {
        let Some(info) = file.source_code_info.as_option() else { return };
        let by_path: HashMap<&[i32], &Location> =
            info.location.iter().map(|location| (location.path.as_slice(), location)).collect();
        let package = file.package.as_deref().unwrap_or_default();
        for (index, message) in file.message_type.iter().enumerate() {
            self.add_message(&by_path, &mut vec![FILE_MESSAGE, index as i32], package, message);
        }
        for (index, extension) in file.extension.iter().enumerate() {
            self.add(&by_path, &[FILE_EXTENSION, index as i32], join(package, extension.name.as_deref()));
        }
    }

    /// Nesting is bounded by the descriptor decoder's recursion limit.
    fn add_message(
        &mut self,
        by_path: &HashMap<&[i32], &Location>,
        path: &mut Vec<i32>,
        scope: &str,
        message: &DescriptorProto,
    ) {
        let full_name = join(scope, message.name.as_deref());
        self.add(by_path, path, full_name.clone());
        let members = (message.field.iter().map(|field| field.name.as_deref()).enumerate())
            .map(|(index, name)| (MESSAGE_FIELD, index, name))
            .chain(message.oneof_decl.iter().enumerate().map(|(i, oneof)| (MESSAGE_ONEOF, i, oneof.name.as_deref())))
            .chain(message.extension.iter().enumerate().map(|(i, ext)| (MESSAGE_EXTENSION, i, ext.name.as_deref())));
        for (kind, index, name) in members {
            path.extend([kind, index as i32]);
            self.add(by_path, path, join(&full_name, name));
            path.truncate(path.len() - 2);
        }
        for (index, nested) in message.nested_type.iter().enumerate() {
            path.extend([MESSAGE_NESTED, index as i32]);
            self.add_message(by_path, path, &full_name, nested);
            path.truncate(path.len() - 2);
        }
    }

    fn add(&mut self, by_path: &HashMap<&[i32], &Location>, path: &[i32], full_name: String) {
        let Some(location) = by_path.get(path) else { return };
        let comment = location.leading_comments.as_deref().and_then(tidy);
        // A comment behind the field, on its line, is how one-line fields are often documented.
        if let Some(comment) = comment.or_else(|| location.trailing_comments.as_deref().and_then(tidy)) {
            self.by_name.insert(full_name, comment);
        }
    }
}

fn join(scope: &str, name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") }
}

/// Lines trimmed, blank lines at both ends dropped; nothing if nothing is left.
fn tidy(comment: &str) -> Option<String> {
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    let text = lines.join("\n");
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}
