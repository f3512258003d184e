//! A TOML file read key by key: every key that is asked for is known, every other is a fault, and each fault has its
//! line. Values are interpolated on the way out; messages quote what the file says, not what it stands for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use super::fault::{Fault, Faults};
use super::interpolate::Sources;
use super::nearest;

/// One file, with where its faults go.
pub struct File<'a> {
    /// How messages call it.
    pub shown: &'a str,
    pub text: &'a str,
    pub sources: &'a Sources<'a>,
    pub faults: &'a RefCell<Faults>,
}

impl File<'_> {
    pub fn fault(&self, line: Option<usize>, message: impl Into<String>) {
        self.faults.borrow_mut().push(Fault::new(self.shown, line, message));
    }

    /// The line, from 1, that a span of bytes begins in.
    pub fn line(&self, span: Option<Range<usize>>) -> Option<usize> {
        let before = self.text.as_bytes().get(..span?.start)?;
        Some(1 + before.iter().filter(|byte| **byte == b'\n').count())
    }
}

/// A value and the line that it is written in.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub value: T,
    pub line: Option<usize>,
}

/// A table of the file: `[daemon]`, `[topics.orders]`, the file itself.
pub struct Section<'a> {
    pub file: &'a File<'a>,
    table: &'a dyn TableLike,
    /// `topics.orders`, for messages; empty for the file itself.
    path: String,
    pub line: Option<usize>,
    known: RefCell<Vec<&'static str>>,
    /// Keys that are known, but not listed as such: those that a later version brings.
    silent: RefCell<Vec<&'static str>>,
    /// Tables in this one have names that the user chose.
    named_tables: Cell<bool>,
}

impl<'a> Section<'a> {
    pub fn root(file: &'a File<'a>, table: &'a dyn TableLike) -> Self {
        Section::new(file, table, String::new(), Some(1))
    }

    fn new(file: &'a File<'a>, table: &'a dyn TableLike, path: String, line: Option<usize>) -> Self {
        Section {
            file,
            table,
            path,
            line,
            known: RefCell::default(),
            silent: RefCell::default(),
            named_tables: Cell::default(),
        }
    }

    /// The key's whole name: `topics.orders.start`.
    pub fn name(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_string(),
            path => format!("{path}.{}", quoted(key)),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|item| !item.is_none())
    }

    /// The line that `key` is written in, or the section's own.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let entry = self.table.get_key_value(key);
        entry.and_then(|(key, item)| self.file.line(key.span().or(item.span()))).or(self.line)
    }

    /// A fault about `key`: `topics.orders.start …`.
    pub fn fault(&self, key: &str, reason: impl AsRef<str>) {
        self.file.fault(self.line_of(key), format!("{} {}", self.name(key), reason.as_ref()));
    }

    /// A fault about a key that is not there.
    pub fn missing(&self, key: &str, remedy: &str) {
        self.file.fault(self.line, format!("{} is missing: {remedy}", self.name(key)));
    }

    /// A key that the contract knows and this version does not: refused, because ignoring it would be worse.
    pub fn later(&self, key: &'static str, what: &str) {
        self.silent.borrow_mut().push(key);
        if self.has(key) {
            self.fault(key, format!("is not supported yet: {what} comes with a later version; remove the key"));
        }
    }

    /// A string, interpolated.
    pub fn text(&self, key: &'static str) -> Option<Located<String>> {
        let item = self.item(key)?;
        match item.as_str() {
            Some(text) => self.interpolated(key, item, text),
            None => self.wrong_type(key, item, "a string"),
        }
    }

    /// A string with a form of its own.
    pub fn parsed<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let item = self.item(key)?;
        let raw = match item.as_value() {
            Some(Value::String(text)) => text.value().clone(),
            Some(Value::Datetime(time)) => time.value().to_string(),
            Some(Value::Integer(_) | Value::Float(_)) => {
                self.fault(key, format!("must be a string: {}", unquoted_hint(item)));
                return None;
            }
            _ => return self.wrong_type(key, item, "a string"),
        };
        let Located { value, line } = self.interpolated(key, item, &raw)?;
        match parse(&value) {
            Ok(value) => Some(Located { value, line }),
            Err(reason) => {
                self.fault(key, format!("= \"{raw}\" {reason}"));
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<Located<T>> {
        self.parsed(key, |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let hint =
                    nearest::nearest(text, names.iter().copied()).map(|near| format!("; did you mean \"{near}\"?"));
                format!("is none of {}{}", names.join(", "), hint.unwrap_or_default())
            })
        })
    }

    /// A whole number of at least 1.
    pub fn count(&self, key: &'static str) -> Option<Located<usize>> {
        let item = self.item(key)?;
        let Some(number) = item.as_integer() else { return self.wrong_type(key, item, "a whole number") };
        match usize::try_from(number) {
            Ok(value) if value > 0 => Some(Located { value, line: self.line_of(key) }),
            _ => {
                self.fault(key, format!("= {number} must be at least 1"));
                None
            }
        }
    }

    pub fn flag(&self, key: &'static str) -> Option<Located<bool>> {
        let item = self.item(key)?;
        match item.as_bool() {
            Some(value) => Some(Located { value, line: self.line_of(key) }),
            None => self.wrong_type(key, item, "true or false"),
        }
    }

    /// A list of strings.
    pub fn list(&self, key: &'static str) -> Option<Located<Vec<String>>> {
        let item = self.item(key)?;
        let Some(array) = item.as_array() else { return self.wrong_type(key, item, "a list of strings") };
        let mut values = Vec::new();
        for element in array {
            let Some(text) = element.as_str() else { return self.wrong_type(key, item, "a list of strings") };
            let line = self.file.line(element.span()).or_else(|| self.line_of(key));
            match self.file.sources.interpolate(text) {
                Ok(value) => values.push(value),
                Err(reason) => self.file.fault(line, format!("{} {reason}", self.name(key))),
            }
        }
        Some(Located { value: values, line: self.line_of(key) })
    }

    /// A table with keys of its own.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let item = self.item(key)?;
        match item.as_table_like() {
            Some(table) => Some(Section::new(self.file, table, self.name(key), self.line_of(key))),
            None => self.wrong_type(key, item, "a table"),
        }
    }

    /// The tables in a table whose keys are names that the user chose.
    pub fn sections(&self) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (name, item) in self.table.iter() {
            match item.as_table_like() {
                Some(table) => {
                    let section = Section::new(self.file, table, self.name(name), self.line_of(name));
                    sections.push((name.to_string(), section));
                }
                None => self.fault(name, format!("must be a table, `[{}]`, not {}", self.name(name), type_name(item))),
            }
        }
        sections
    }

    /// The tables in a table that has keys of its own as well; their keys are names that the user chose.
    pub fn named_tables(&self) -> Vec<(String, Section<'a>)> {
        self.named_tables.set(true);
        let section = |(name, item): (&str, &'a Item)| {
            let table = item.as_table_like()?;
            Some((name.to_string(), Section::new(self.file, table, self.name(name), self.line_of(name))))
        };
        self.table.iter().filter_map(section).collect()
    }

    /// Properties with dots in their names, as strings; `a.b = 1` and `"a.b" = "1"` are the same.
    pub fn properties(&self, key: &'static str) -> BTreeMap<String, Located<String>> {
        self.section(key).map(|section| section.flat()).unwrap_or_default()
    }

    /// All keys of this section and of the tables in it, joined by dots.
    pub fn flat(&self) -> BTreeMap<String, Located<String>> {
        let mut found = BTreeMap::new();
        self.flatten("", self.table, &mut found);
        found
    }

    fn flatten(&self, prefix: &str, table: &dyn TableLike, found: &mut BTreeMap<String, Located<String>>) {
        for (name, item) in table.iter() {
            let full = format!("{prefix}{name}");
            let line = table.key(name).and_then(|key| self.file.line(key.span())).or(self.line);
            let text = match item {
                Item::Value(Value::String(text)) => text.value().clone(),
                Item::Value(Value::Integer(number)) => number.value().to_string(),
                Item::Value(Value::Float(number)) => number.value().to_string(),
                Item::Value(Value::Boolean(yes)) => yes.value().to_string(),
                _ => {
                    match item.as_table_like() {
                        Some(table) => self.flatten(&format!("{full}."), table, found),
                        None => {
                            let message = format!("{} must be a string, not {}", self.name(&full), type_name(item));
                            self.file.fault(line, message);
                        }
                    }
                    continue;
                }
            };
            match self.file.sources.interpolate(&text) {
                Ok(_) if found.contains_key(&full) => {
                    self.file.fault(line, format!("{} is there twice; remove one", self.name(&full)));
                }
                Ok(value) => {
                    found.insert(full, Located { value, line });
                }
                Err(reason) => self.file.fault(line, format!("{} {reason}", self.name(&full))),
            }
        }
    }

    /// Keys that are known whether they are there or not.
    pub fn expects(&self, keys: &[&'static str]) {
        self.known.borrow_mut().extend(keys);
    }

    /// Every key that nobody asked for is a fault.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for (key, item) in self.table.iter() {
            let named = self.named_tables.get() && item.is_table_like();
            if named || known.contains(&key) || self.silent.borrow().contains(&key) {
                continue;
            }
            let mut message = if self.path.is_empty() {
                format!("unknown key {}", quoted(key))
            } else {
                format!("unknown key {} in [{}]", quoted(key), self.path)
            };
            if item.is_table_like()
                && self.path.starts_with("topics.")
                && nearest::nearest(key, known.iter().copied()).is_none()
            {
                let topic = self.path.trim_start_matches("topics.");
                let _ = write!(message, "; a topic's name with dots needs quotes: [topics.\"{topic}.{key}\"]");
            } else {
                let _ = write!(message, "; {}", nearest::suggest(key, known.iter().copied()));
            }
            self.file.fault(self.line_of(key), message);
        }
    }

    fn item(&self, key: &'static str) -> Option<&'a Item> {
        self.known.borrow_mut().push(key);
        self.table.get(key).filter(|item| !item.is_none())
    }

    fn interpolated(&self, key: &str, item: &Item, text: &str) -> Option<Located<String>> {
        // The value's own line: it may stand below its key.
        let line = self.line_of(key).or_else(|| self.file.line(item.span()));
        match self.file.sources.interpolate(text) {
            Ok(value) => Some(Located { value, line }),
            Err(reason) => {
                self.fault(key, reason);
                None
            }
        }
    }

    fn wrong_type<T>(&self, key: &str, item: &Item, wanted: &str) -> Option<T> {
        self.fault(key, format!("must be {wanted}, not {}", type_name(item)));
        None
    }
}

/// A key as TOML wants it spelled.
pub fn quoted(key: &str) -> String {
    match key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') && !key.is_empty() {
        true => key.to_string(),
        false => format!("\"{key}\""),
    }
}

fn type_name(item: &Item) -> &'static str {
    match item {
        Item::Value(Value::String(_)) => "a string",
        Item::Value(Value::Integer(_)) => "a whole number",
        Item::Value(Value::Float(_)) => "a number",
        Item::Value(Value::Boolean(_)) => "true or false",
        Item::Value(Value::Datetime(_)) => "a time",
        Item::Value(Value::Array(_)) => "a list",
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table",
        Item::ArrayOfTables(_) => "a list of tables",
        Item::None => "nothing",
    }
}

fn unquoted_hint(item: &Item) -> String {
    let number = item.as_integer().map(|n| n.to_string()).or_else(|| item.as_float().map(|n| n.to_string()));
    format!("write \"{}\" with its unit, in quotes", number.unwrap_or_default())
}
