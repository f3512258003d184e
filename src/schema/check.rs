//! Whether a message can be a table in mapping version 1; every fault of it at once.
//!
//! The columns are walked as [`columns`] lays them out, without making them: a schema whose paths are too many to list
//! is given up at [`LEAVES_COUNTED_MAX`].

use std::collections::{HashMap, HashSet};

use super::choices::{Choices, Here, misfit};
use super::columns::{self, Form, Layout};
use super::mapping::{Fault, Leaf, Options};
use super::model::{Cardinality, Field, Message, MessageId, Pool};
use super::{metadata, width};

/// Messages nested below the record's own, map entries counted: what a record may have, a schema may have.
pub const DEPTH_MAX: usize = 100;

/// Leaf columns are counted up to here.
pub const LEAVES_COUNTED_MAX: u64 = 100_000;

/// What was chosen of the message's columns, or all that keeps it from being a table.
pub fn choices(pool: &Pool, message: MessageId, options: &Options) -> Result<Choices, Vec<Fault>> {
    let (choices, mut faults) = Choices::of(pool, message, options);
    faults.extend(self::faults(pool, message, options, &choices));
    if faults.is_empty() { Ok(choices) } else { Err(faults) }
}

fn faults(pool: &Pool, message: MessageId, options: &Options, choices: &Choices) -> Vec<Fault> {
    let full_name = pool.message(message).full_name.clone();
    let mut check = Check {
        layout: Layout::new(pool, options, choices),
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
    let fields = &pool.message(message).fields;
    if !fields.is_empty() && fields.iter().all(|field| Here::root(choices).field(field).is_none()) {
        check.fault("all of its fields are left out; a table needs a column");
    }
    let Check { leaves, chosen, mut faults, .. } = check;
    if leaves <= LEAVES_COUNTED_MAX {
        for path in options.json.iter().filter(|path| !chosen.contains(path.as_str())) {
            let message = format!(
                "json names {path:?}, which is no field of a message that would otherwise be a struct; name fields from the topic's message down, as \"customer.address\""
            );
            faults.push(Fault { path: full_name.clone(), message, key: vec!["json".to_string()] });
        }
    }
    if faults.is_empty() && leaves > options.columns_max as u64 {
        faults.push(Fault::new(full_name, width::fault(pool, message, options, choices, leaves)));
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
        self.faults.push(Fault::new(path, message));
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
        // What calve.toml says of one place is judged there.
        let first = self.seen.insert(id) || !self.layout.here().is_plain();
        if first {
            self.names(message);
        }
        // An item of a MessageSet is a group around its message.
        let depth = depth + usize::from(message.message_set);
        let before = self.leaves;
        self.leaves += self.layout.cases(message).count() as u64;
        self.layout.way.push(id);
        for field in &message.fields {
            if self.leaves > LEAVES_COUNTED_MAX {
                break;
            }
            let Some(form) = self.layout.down(field) else { continue };
            let entry = usize::from(matches!(field.cardinality, Cardinality::Map { .. }));
            self.leaves += entry as u64;
            match form {
                Form::Leaf(leaf) => self.leaf(leaf),
                Form::Struct(inner) => self.message(inner, depth + entry + 1),
            }
            self.layout.up();
        }
        self.layout.way.pop();
        if self.leaves == before {
            // `_present`
            self.leaves += 1;
        }
    }

    /// No two columns of a level are called the same, nor one like a column of calve's or Iceberg's; and the options
    /// that the schema has for its fields fit them.
    fn names(&mut self, message: &Message) {
        let here = self.layout.here();
        let mut names: HashMap<String, String> = HashMap::new();
        let cases = self.layout.cases(message).map(|oneof| (None, columns::case_name(&message.oneofs[oneof].name)));
        let fields = message.fields.iter().map(|field| (Some(field), field.column_name().into_owned()));
        for (field, name) in fields.chain(cases.collect::<Vec<_>>()) {
            self.layout.path.push(name.clone());
            if let Some(why) = field.and_then(|field| self.misfit(here, field)) {
                self.fault(why);
            }
            let is_column = field.is_none_or(|field| here.field(field).is_some());
            if is_column && self.layout.path.len() == 1 && metadata::is_reserved(&name) {
                self.fault(format!(
                    "the name is reserved for a column of calve or Iceberg ({}); rename the field",
                    metadata::RESERVED.join(" ")
                ));
            }
            self.layout.path.pop();
            if !is_column {
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let name = field.map_or(name, |field| field.name.clone());
            if let Some(other) = names.insert(lower, name.clone()) {
                let path = [&self.prefix].into_iter().chain(&self.layout.path);
                let path = path.map(String::as_str).collect::<Vec<_>>().join(".");
                self.fault(format!(
                    "the fields {path}.{other} and {path}.{name} have names that are equal ignoring case; engines cannot tell such columns apart: rename one"
                ));
            }
        }
    }

    /// What is wrong with a field's own option.
    fn misfit(&self, here: Here<'_>, field: &Field) -> Option<String> {
        if field.options.exclude == Some(true) && field.options.kind.is_some() {
            return Some("its option (calve.v1.column) has a type and excludes it; remove one of the two".to_string());
        }
        let wanted = here.field(field).filter(|wanted| !wanted.by_toml)?;
        let why = misfit(self.layout.pool, field, wanted.kind)?;
        Some(format!("its option (calve.v1.column): {why}"))
    }

    fn leaf(&mut self, leaf: Leaf) {
        self.leaves += 1;
        if let Leaf::Json(_) = leaf {
            let (path, options) = (&self.layout.path, self.layout.options);
            let named = options.json.iter().find(|named| path.iter().map(String::as_str).eq(named.split('.')));
            self.chosen.extend(named.map(String::as_str));
        }
    }
}
