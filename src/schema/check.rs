//! Whether a message can be a table in mapping version 1; every fault of it at once.
//!
//! Each message type is looked at once, at the first path that reaches it: a schema whose paths are too many to list is
//! judged in time proportional to its types.

use std::collections::HashMap;

use super::mapping::{Fault, Options};
use super::metadata;
use super::model::{Cardinality, Field, Kind, MessageId, Pool};
use super::well_known::{self, WellKnown};

/// Messages nested below the record's own, map entries counted: what a record may have, a schema may have.
pub const DEPTH_MAX: usize = 100;

/// All faults of the message as a table; empty if it can be one.
pub fn faults(pool: &Pool, message: MessageId, options: &Options) -> Vec<Fault> {
    let mut check =
        Check { pool, path: vec![pool.message(message).full_name.clone()], visits: HashMap::new(), faults: Vec::new() };
    match well_known::recognise(pool, message) {
        Some(WellKnown::Json) => check.not_yet("a google.protobuf.Struct, Value or ListValue becomes JSON text"),
        Some(WellKnown::Leaf(_)) => {}
        None => {
            check.message(message, 0);
            if check.faults.is_empty() {
                check.width(message, options.columns_max);
            }
        }
    }
    check.faults
}

#[derive(Clone, Copy)]
enum Visit {
    OnTheWay,
    /// How many messages are nested below this one.
    Done {
        height: usize,
    },
}

struct Check<'a> {
    pool: &'a Pool,
    path: Vec<String>,
    visits: HashMap<MessageId, Visit>,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, message: impl Into<String>) {
        self.faults.push(Fault { path: self.path.join("."), message: message.into() });
    }

    fn not_yet(&mut self, what: &str) {
        self.fault(format!("{what}, which this version does not do yet"));
    }

    /// Visits a message type for the first time; the stack is bounded by [`DEPTH_MAX`].
    fn message(&mut self, id: MessageId, depth: usize) -> usize {
        self.visits.insert(id, Visit::OnTheWay);
        let pool = self.pool;
        let message = pool.message(id);
        let mut height = 0;
        if pool.calve_options.contains(&message.full_name) {
            self.not_yet("an option (calve.v1.table) stands here");
        }
        for oneof in &message.oneofs {
            if pool.calve_options.contains(&format!("{}.{}", message.full_name, oneof.name)) {
                self.not_yet(&format!("an option (calve.v1.oneof) stands at its oneof {}", oneof.name));
            }
        }
        if message.message_set {
            self.not_yet("a MessageSet");
        } else {
            let mut names: HashMap<String, &str> = HashMap::new();
            for field in &message.fields {
                if let Some(other) = names.insert(field.name.to_ascii_lowercase(), &field.name) {
                    self.fault(format!(
                        "the fields {path}.{other} and {path}.{name} have names that are equal ignoring case; engines cannot tell such columns apart: rename one",
                        path = self.path.join("."),
                        name = field.name
                    ));
                }
                self.path.push(field.name.clone());
                if depth == 0 && metadata::is_reserved(&field.name) {
                    self.fault(format!(
                        "the name is reserved for a column of calve or Iceberg ({}); rename the field",
                        metadata::RESERVED.join(" ")
                    ));
                }
                if pool.calve_options.contains(&format!("{}.{}", message.full_name, field.name)) {
                    self.not_yet("an option (calve.v1.column) stands here");
                }
                height = height.max(self.field(field, depth));
                self.path.pop();
            }
        }
        self.visits.insert(id, Visit::Done { height });
        height
    }

    /// How many messages the field nests.
    fn field(&mut self, field: &Field, depth: usize) -> usize {
        if field.extension {
            self.not_yet(&format!("an extension (number {}) becomes a column", field.number));
            return 0;
        }
        let entry = usize::from(matches!(field.cardinality, Cardinality::Map { .. }));
        match field.kind {
            Kind::Group(_) => {
                self.not_yet("a group (delimited encoding)");
                0
            }
            Kind::Message(id) => match well_known::recognise(self.pool, id) {
                Some(WellKnown::Leaf(_)) => entry + 1,
                Some(WellKnown::Json) => {
                    self.not_yet(&format!("a {} becomes JSON text", self.pool.message(id).full_name));
                    0
                }
                None => entry + 1 + self.nested(id, depth + entry + 1),
            },
            _ => entry,
        }
    }

    fn nested(&mut self, id: MessageId, depth: usize) -> usize {
        let name = &self.pool.message(id).full_name;
        match self.visits.get(&id).copied() {
            Some(Visit::OnTheWay) => {
                self.not_yet(&format!("the message {name} contains itself here; it becomes JSON text"));
                0
            }
            Some(Visit::Done { height }) if depth + height <= DEPTH_MAX => height,
            None if depth <= DEPTH_MAX => self.message(id, depth),
            _ => {
                self.fault(format!("more than {DEPTH_MAX} messages are nested here; no record may be that deep"));
                0
            }
        }
    }

    fn width(&mut self, message: MessageId, columns_max: usize) {
        let leaves = leaves(self.pool, message, usize::MAX);
        if leaves <= columns_max as u64 {
            return;
        }
        let fitting =
            (1..DEPTH_MAX).take_while(|depth| self::leaves(self.pool, message, *depth) <= columns_max as u64).last();
        let hint = match fitting {
            Some(depth) => format!("json_below = {depth} would fit, but this version does not do it yet: "),
            None => String::new(),
        };
        self.fault(format!("the message has {leaves} leaf columns, over columns_max = {columns_max}; {hint}raise columns_max if the table's readers stand that many"));
    }
}

/// The leaf columns of a message without recursion, messages at nesting depth `cut` (top level: 1) counted as one leaf.
fn leaves(pool: &Pool, message: MessageId, cut: usize) -> u64 {
    fn count(pool: &Pool, message: MessageId, cut: usize, known: &mut HashMap<(MessageId, usize), u64>) -> u64 {
        // Without a cut the count does not depend on the depth.
        if let Some(count) = known.get(&(message, cut)) {
            return *count;
        }
        let below = if cut == usize::MAX { cut } else { cut - 1 };
        let fields = &pool.message(message).fields;
        let mut sum: u64 = if fields.is_empty() { 1 } else { 0 };
        for field in fields {
            let key = u64::from(matches!(field.cardinality, Cardinality::Map { .. }));
            let value = match field.kind {
                Kind::Message(id) if below > 0 && well_known::recognise(pool, id).is_none() => {
                    count(pool, id, below, known)
                }
                _ => 1,
            };
            sum = sum.saturating_add(key).saturating_add(value);
        }
        known.insert((message, cut), sum);
        sum
    }
    count(pool, message, cut, &mut HashMap::new())
}
