//! Whether a message can be a table in mapping version 1; every fault of it at once.
//!
//! The columns are walked as [`columns`] lays them out, without making them: a schema whose paths are too many to list
//! is given up at [`LEAVES_COUNTED_MAX`].

use std::collections::{HashMap, HashSet};

use super::columns::{self, Form, Layout};
use super::mapping::{Fault, Leaf, Options};
use super::metadata;
use super::model::{Cardinality, Message, MessageId, Pool};
use super::width;

/// Messages nested below the record's own, map entries counted: what a record may have, a schema may have.
pub const DEPTH_MAX: usize = 100;

/// Leaf columns are counted up to here.
pub const LEAVES_COUNTED_MAX: u64 = 100_000;

/// All faults of the message as a table; empty if it can be one.
pub fn faults(pool: &Pool, message: MessageId, options: &Options) -> Vec<Fault> {
    let full_name = pool.message(message).full_name.clone();
    let mut check = Check {
        layout: Layout { pool, options, way: Vec::new(), path: Vec::new() },
        prefix: full_name.clone(),
        seen: HashSet::new(),
        chosen: HashSet::new(),
        leaves: 0,
        too_deep: false,
        faults: Vec::new(),
    };
    match columns::single(pool, message) {
        Some(Form::Leaf(_)) => {}
        Some(Form::Struct(_)) | None => check.message(message, 0),
    }
    let Check { leaves, chosen, mut faults, .. } = check;
    if leaves <= LEAVES_COUNTED_MAX {
        for path in options.json.iter().filter(|path| !chosen.contains(path.as_str())) {
            faults.push(Fault {
                path: full_name.clone(),
                message: format!(
                    "json names {path:?}, which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\""
                ),
            });
        }
    }
    if faults.is_empty() && leaves > options.columns_max as u64 {
        faults.push(Fault { path: full_name, message: width::fault(pool, message, options, leaves) });
    }
    faults
}

struct Check<'a> {
    layout: Layout<'a>,
    /// The topic's message.
    prefix: String,
    /// Types whose names and options were looked at, at the first path that reached them.
    seen: HashSet<MessageId>,
    /// The paths of [`Options::json`] that exist.
    chosen: HashSet<&'a str>,
    leaves: u64,
    /// Too deep a path was found: one is enough to say so.
    too_deep: bool,
    faults: Vec<Fault>,
}

impl<'a> Check<'a> {
    fn fault(&mut self, message: impl Into<String>) {
        let path =
            [&self.prefix].into_iter().chain(&self.layout.path).map(String::as_str).collect::<Vec<_>>().join(".");
        self.faults.push(Fault { path, message: message.into() });
    }

    fn not_yet(&mut self, what: &str) {
        self.fault(format!("{what}, which this version does not do yet"));
    }

    /// Walks a message's columns; the stack is bounded by [`DEPTH_MAX`].
    fn message(&mut self, id: MessageId, depth: usize) {
        let pool = self.layout.pool;
        let message = pool.message(id);
        if depth > DEPTH_MAX {
            if !self.too_deep {
                self.fault(format!("more than {DEPTH_MAX} messages are nested here; no record may be that deep"));
            }
            self.too_deep = true;
            return;
        }
        let first = self.seen.insert(id);
        if first {
            self.options(message);
        }
        if message.fields.is_empty() {
            self.leaves += 1;
        }
        // An item of a MessageSet is a group around its message.
        let depth = depth + usize::from(message.message_set);
        let mut names: HashMap<String, &str> = HashMap::new();
        self.layout.way.push(id);
        for field in &message.fields {
            if self.leaves > LEAVES_COUNTED_MAX {
                break;
            }
            let name = field.column_name().into_owned();
            if first && let Some(other) = names.insert(name.to_ascii_lowercase(), &field.name) {
                let path = [&self.prefix].into_iter().chain(&self.layout.path);
                let path = path.map(String::as_str).collect::<Vec<_>>().join(".");
                self.fault(format!(
                    "the fields {path}.{other} and {path}.{} have names that are equal ignoring case; engines cannot tell such columns apart: rename one",
                    field.name
                ));
            }
            let reserved = self.layout.path.is_empty() && metadata::is_reserved(&name);
            self.layout.path.push(name);
            if reserved {
                self.fault(format!(
                    "the name is reserved for a column of calve or Iceberg ({}); rename the field",
                    metadata::RESERVED.join(" ")
                ));
            }
            if first && pool.calve_options.contains(&format!("{}.{}", message.full_name, field.name)) {
                self.not_yet("an option (calve.v1.column) stands here");
            }
            let entry = usize::from(matches!(field.cardinality, Cardinality::Map { .. }));
            self.leaves += entry as u64;
            match self.layout.form(field.kind) {
                Form::Leaf(leaf) => self.leaf(leaf),
                Form::Struct(inner) => self.message(inner, depth + entry + 1),
            }
            self.layout.path.pop();
        }
        self.layout.way.pop();
    }

    fn leaf(&mut self, leaf: Leaf) {
        self.leaves += 1;
        if let Leaf::Json(_) = leaf {
            let (path, options) = (&self.layout.path, self.layout.options);
            let named = options.json.iter().find(|named| path.iter().map(String::as_str).eq(named.split('.')));
            self.chosen.extend(named.map(String::as_str));
        }
    }

    fn options(&mut self, message: &Message) {
        let noted = &self.layout.pool.calve_options;
        if noted.contains(&message.full_name) {
            self.not_yet("an option (calve.v1.table) stands here");
        }
        for oneof in &message.oneofs {
            if noted.contains(&format!("{}.{}", message.full_name, oneof.name)) {
                self.not_yet(&format!("an option (calve.v1.oneof) stands at its oneof {}", oneof.name));
            }
        }
    }
}
