//! What of a message becomes columns, and what they become: the schema's own options, and what calve.toml says of paths,
//! which wins.

use std::collections::BTreeMap;

use super::columns::{self, Form, Layout};
use super::mapping::{Fault, Leaf, Options};
use super::model::{Field, Kind, Message, MessageId, Pool};
use super::well_known;
use crate::config::{ColumnOptions, ColumnType, nearest};

/// What calve.toml says of a topic's message.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// None if it says nothing.
    root: Option<Choice>,
}

/// What calve.toml says of a field, and of what lies below it.
#[derive(Clone, Debug, Default)]
struct Choice {
    kind: Option<ColumnType>,
    exclude: Option<bool>,
    /// It, or something below it, is among the included.
    included: bool,
    /// Of the message's fields, only those that are included.
    only: bool,
    /// Whether a oneof of the message has a case column, by its index.
    cases: BTreeMap<usize, bool>,
    /// By field number.
    below: BTreeMap<u32, Choice>,
}

/// A message in the topic's: what was chosen for its fields.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a>(Option<&'a Choice>);

/// A field that becomes a column.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub kind: ColumnType,
    /// Whether calve.toml says so.
    pub by_toml: bool,
    pub below: Here<'a>,
}

impl<'a> Here<'a> {
    pub fn root(choices: &'a Choices) -> Self {
        Here(choices.root.as_ref())
    }

    /// Whether the schema alone decides from here on, so that it is the same wherever the message stands.
    pub fn is_plain(self) -> bool {
        self.0.is_none()
    }

    /// What the field becomes; none if it is left out.
    pub fn field(self, field: &Field) -> Option<Wanted<'a>> {
        let choice = self.0.and_then(|here| here.below.get(&field.number));
        let left_out = self.0.is_some_and(|here| here.only) && choice.is_none_or(|choice| !choice.included);
        let excluded = choice.and_then(|choice| choice.exclude).or(field.options.exclude).unwrap_or_default();
        if left_out || excluded {
            return None;
        }
        let chosen = choice.and_then(|choice| choice.kind);
        let kind = chosen.or(field.options.kind).unwrap_or(ColumnType::Default);
        Some(Wanted { kind, by_toml: chosen.is_some(), below: Here(choice) })
    }

    /// Whether the message's `oneof`-th oneof has a case column. Among included columns, one that only the schema asks
    /// for stands where one of its members does.
    pub fn case_column(self, message: &Message, oneof: usize) -> bool {
        if let Some(chosen) = self.0.and_then(|here| here.cases.get(&oneof)) {
            return *chosen;
        }
        let mut members = message.fields.iter().filter(|field| field.oneof == Some(oneof));
        let only = self.0.is_some_and(|here| here.only);
        message.oneofs[oneof].case_column && (!only || members.any(|member| self.field(member).is_some()))
    }
}

/// Why a field cannot become a column of a type, if it cannot.
pub fn misfit(pool: &Pool, field: &Field, kind: ColumnType) -> Option<String> {
    let leaf = match field.kind {
        Kind::Message(id) | Kind::Group(id) => well_known::recognise(pool, id),
        _ => None,
    };
    let time = matches!(leaf, Some(Leaf::Timestamp(_) | Leaf::Duration(_)));
    let message = matches!(field.kind, Kind::Message(_) | Kind::Group(_));
    let (fits, wanted) = match kind {
        ColumnType::Default => (true, "anything"),
        ColumnType::Long => (
            time || matches!(field.kind, Kind::Uint64 | Kind::Fixed64)
                || matches!(leaf, Some(Leaf::Wrapper(_, Kind::Uint64))),
            "uint64, fixed64, google.protobuf.UInt64Value, Timestamp and Duration",
        ),
        ColumnType::Int => (matches!(field.kind, Kind::Enum(_)), "enums"),
        ColumnType::Json => (message, "messages"),
        ColumnType::Millis => (time, "google.protobuf.Timestamp and Duration"),
    };
    let name = kind.as_str();
    (!fits).then(|| format!("the type {name} is for {wanted}; the field is {}", field.kind.name(pool)))
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Target<'a> {
    Field(&'a Field),
    /// The oneof's index.
    Oneof(usize),
}

/// A path of names, found in the schema.
struct Found<'a> {
    /// Of the message that the target is in.
    parent: Vec<&'a Field>,
    target: Target<'a>,
}

impl Found<'_> {
    /// The field's own number path; the message's, for a oneof.
    fn numbers(&self) -> Vec<u32> {
        let own = match self.target {
            Target::Field(field) => Some(field.number),
            Target::Oneof(_) => None,
        };
        self.parent.iter().map(|field| field.number).chain(own).collect()
    }
}

impl Choices {
    /// What the options say of the message, and all that is wrong with it.
    pub fn of(pool: &Pool, message: MessageId, options: &Options) -> (Choices, Vec<Fault>) {
        let mut builder = Builder { pool, message, root: Choice::default(), included: Vec::new(), faults: Vec::new() };
        builder.include(&options.include);
        builder.exclude(&options.exclude);
        builder.columns(options);
        builder.reach(options);
        let says = !(options.include.is_empty() && options.exclude.is_empty() && options.columns.is_empty());
        (Choices { root: says.then_some(builder.root) }, builder.faults)
    }
}

struct Builder<'a> {
    pool: &'a Pool,
    message: MessageId,
    root: Choice,
    included: Vec<(Vec<u32>, &'a str)>,
    faults: Vec<Fault>,
}

impl<'a> Builder<'a> {
    fn fault(&mut self, key: &[&str], path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            path: format!("{} \"{path}\"", key[0]),
            message: message.into(),
            key: key.iter().map(|part| part.to_string()).collect(),
        });
    }

    fn find(&mut self, key: &[&str], path: &str) -> Option<Found<'a>> {
        find(self.pool, self.message, path).map_err(|why| self.fault(key, path, why)).ok()
    }

    /// A path that must lead to a field.
    fn find_field(&mut self, key: &[&str], path: &str) -> Option<Vec<u32>> {
        let found = self.find(key, path)?;
        match found.target {
            Target::Field(_) => Some(found.numbers()),
            Target::Oneof(_) => {
                self.fault(key, path, "is a oneof, which is no column; name its members");
                None
            }
        }
    }

    fn choice(&mut self, numbers: &[u32]) -> &mut Choice {
        numbers.iter().fold(&mut self.root, |choice, number| choice.below.entry(*number).or_default())
    }

    fn include(&mut self, paths: &'a [String]) {
        for path in paths {
            if let Some(numbers) = self.find_field(&["include"], path) {
                self.included.push((numbers, path));
            }
        }
        for (numbers, _) in self.included.clone() {
            for depth in 0..numbers.len() {
                let prefix = &numbers[..depth];
                // What is included as a whole stays whole.
                let whole = self.included.iter().any(|(other, _)| prefix.starts_with(other));
                self.choice(prefix).only |= !whole;
                let choice = self.choice(&numbers[..=depth]);
                choice.included = true;
                choice.exclude = Some(false);
            }
        }
    }

    fn exclude(&mut self, paths: &[String]) {
        for path in paths {
            let key = &["exclude"];
            let Some(numbers) = self.find_field(key, path) else { continue };
            self.leave_out(key, path, &numbers);
        }
    }

    fn leave_out(&mut self, key: &[&str], path: &str, numbers: &[u32]) {
        if let Some((_, other)) = self.included.iter().find(|(other, _)| other.starts_with(numbers)) {
            let message = format!("is excluded, and \"{other}\" is included; remove one of the two");
            return self.fault(key, path, message);
        }
        let inside = self.included.is_empty() || self.included.iter().any(|(other, _)| numbers.starts_with(other));
        if !inside {
            return self.fault(key, path, "is not among the included columns; there is no need to exclude it");
        }
        self.choice(numbers).exclude = Some(true);
    }

    fn columns(&mut self, options: &Options) {
        for (path, column) in &options.columns {
            let key: &[&str] = &["columns", path];
            let Some(found) = self.find(key, path) else { continue };
            let numbers = found.numbers();
            match found.target {
                Target::Oneof(oneof) => {
                    if column.kind.is_some() || column.exclude.is_some() {
                        self.fault(key, path, "is a oneof: it takes case_column only; name its members for the rest");
                    }
                    if let Some(case) = column.case_column {
                        self.choice(&numbers).cases.insert(oneof, case);
                    }
                }
                Target::Field(field) => {
                    if column.case_column.is_some() {
                        self.fault(key, path, "is a field: case_column is for oneofs");
                    }
                    match column.kind.and_then(|kind| misfit(self.pool, field, kind)) {
                        Some(why) => self.fault(key, path, why),
                        None => self.choice(&numbers).kind = column.kind,
                    }
                    match column.exclude {
                        Some(true) if column.kind.is_some() => {
                            self.fault(key, path, "has a type and is excluded; remove one of the two");
                        }
                        Some(true) => self.leave_out(key, path, &numbers),
                        Some(false) if options.exclude.contains(path) => {
                            self.fault(
                                key,
                                path,
                                "says exclude = false, and `exclude` names it; remove one of the two",
                            );
                        }
                        Some(false) => self.choice(&numbers).exclude = Some(false),
                        None => {}
                    }
                }
            }
        }
    }

    /// Whatever is said of a path must be said of a column: nothing around it may be left out or be JSON text.
    fn reach(&mut self, options: &Options) {
        if !self.faults.is_empty() {
            return;
        }
        let choices = Choices { root: Some(self.root.clone()) };
        let columns = options.columns.iter().map(|(path, column)| (vec!["columns", path.as_str()], path, *column));
        let excluded = options.exclude.iter().map(|path| (vec!["exclude"], path, ColumnOptions::default()));
        let included = options.include.iter().map(|path| (vec!["include"], path, ColumnOptions::default()));
        for (key, path, column) in columns.chain(excluded).chain(included) {
            let Ok(found) = find(self.pool, self.message, path) else { continue };
            let own = match found.target {
                Target::Field(field) if column.kind.is_some() => Some(field),
                _ => None,
            };
            let mut layout = Layout::new(self.pool, options, &choices);
            layout.way.push(self.message);
            for field in found.parent.iter().copied() {
                match layout.down(field) {
                    Some(Form::Struct(id)) => layout.way.push(id),
                    Some(Form::Leaf(_)) => {
                        self.fault(&key, path, format!("is no column: it lies in {}, which becomes JSON", field.name));
                        break;
                    }
                    None => {
                        self.fault(&key, path, format!("is no column: {} is left out", field.name));
                        break;
                    }
                }
            }
            if layout.path.len() == found.parent.len()
                && let Some(own) = own
                && layout.down(own).is_none()
            {
                self.fault(&key, path, format!("is no column: {} is left out", own.name));
            }
        }
    }
}

/// Follows a path of names down from a message, or says why it leads nowhere.
fn find<'a>(pool: &'a Pool, message: MessageId, path: &str) -> Result<Found<'a>, String> {
    let recognised = columns::single(pool, message).is_some();
    let mut message = pool.message(message);
    if recognised {
        return Err(format!("names no column: {} is one column by itself", message.full_name));
    }
    let mut parent = Vec::new();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let Some(field) = message.fields.iter().find(|field| field.column_name() == name) else {
            let oneof = message.oneofs.iter().position(|oneof| oneof.name == name);
            if let (Some(oneof), None) = (oneof, names.peek()) {
                return Ok(Found { parent, target: Target::Oneof(oneof) });
            }
            let fields = message.fields.iter().map(|field| field.column_name().into_owned());
            let known: Vec<String> = fields.chain(message.oneofs.iter().map(|oneof| oneof.name.clone())).collect();
            let hint = nearest::suggest(name, known.iter().map(String::as_str));
            return Err(format!("leads nowhere: {} has no field {name}; {hint}", message.full_name));
        };
        if names.peek().is_none() {
            return Ok(Found { parent, target: Target::Field(field) });
        }
        let below = match field.kind {
            Kind::Message(id) | Kind::Group(id) if well_known::recognise(pool, id).is_none() => pool.message(id),
            kind => return Err(format!("leads nowhere: {name} is {}, which is one column", kind.name(pool))),
        };
        parent.push(field);
        message = below;
    }
    Err("is empty".to_string())
}
