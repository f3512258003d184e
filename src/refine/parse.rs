//! A refinement's file → its [`Model`]: the front matter's keys, the SQL's sources, and every fault with its line.

use std::collections::BTreeMap;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use sha2::{Digest, Sha256};

use super::model::{
    Check, Expectation, Incremental, Mode, Model, OnFail, OnOverwrite, OnSchemaChange, Read, Source, Trigger,
};
use super::yaml::{self, Node, Value};
use crate::config::nearest::suggest;
use crate::config::{Fault, Faults, TableName, units};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";

const KEYS: [&str; 13] = [
    "description",
    "target",
    "mode",
    "key",
    "order_by",
    "delete_when",
    "partition_by",
    "incremental",
    "sources",
    "trigger",
    "on_schema_change",
    "expect",
    "engine",
];

/// Collects faults of one file; a value that is at fault is replaced by its default so that the rest is checked too.
struct Context<'a> {
    file: &'a str,
    /// The file's line that line 1 of the front matter stands on.
    first_line: usize,
    faults: Faults,
}

pub fn model(file: &str, text: &str) -> Result<Model, Faults> {
    let (front, first_line, sql, sql_line) = split(file, text)?;
    let mut context = Context { file, first_line, faults: Faults::default() };
    let root = match yaml::parse(front) {
        Ok(root) => root,
        Err((line, message)) => {
            context.at(line.unwrap_or(1), format!("the front matter is not YAML: {message}"));
            Node { line: 1, value: Value::Map(vec![]) }
        }
    };
    let broken = !context.faults.is_empty();
    let mut model = context.front_matter(&root);
    model.sql = sql.to_owned();
    model.sql_line = sql_line;
    model.hash = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    if !broken {
        context.require_mode(&root, &model);
        match sources(sql) {
            Ok(found) => context.sources(&root, &mut model, found),
            Err((line, message)) => {
                let line = line.map_or(sql_line, |line| sql_line + line - 1);
                context.faults.push(Fault::new(file, line, message));
            }
        }
    }
    context.faults.into_result(model)
}

/// Front matter, its first line, the SQL, its first line. Lines count from 1.
fn split<'t>(file: &str, text: &'t str) -> Result<(&'t str, usize, &'t str, usize), Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.len() - text.trim_start().len();
    let first_line = 1 + text[..start].matches('\n').count();
    let Some(rest) = text[start..].strip_prefix(OPEN) else {
        let message =
            format!("has no front matter; begin the file with `{OPEN}`, a line `mode: append`, and `{CLOSE}`");
        return Err(Fault::new(file, first_line, message));
    };
    let Some(end) = rest.find(CLOSE) else {
        return Err(Fault::new(file, first_line, format!("the front matter does not end; close it with `{CLOSE}`")));
    };
    let (front, sql) = (&rest[..end], &rest[end + CLOSE.len()..]);
    let lead = sql.len() - sql.trim_start().len();
    let sql_line = first_line + front.matches('\n').count() + sql[..lead].matches('\n').count();
    Ok((front, first_line, sql.trim(), sql_line))
}

/// The tables that the SQL reads. An error has the line within the SQL, where it is known.
fn sources(sql: &str) -> Result<Vec<TableName>, (Option<usize>, String)> {
    if sql.is_empty() {
        return Err((None, "has no SQL after the front matter".to_owned()));
    }
    let mut statements = DFParser::parse_sql(sql).map_err(|error| {
        let message = crate::query::one_line(&error);
        let line = message.split("Line: ").nth(1).and_then(|rest| rest.split(',').next()?.trim().parse().ok());
        let what = message.split(" at Line:").next().unwrap_or(&message).trim_start_matches("sql parser error: ");
        (line, format!("the SQL does not parse: {}", what.trim_start_matches("ParserError(\"")))
    })?;
    let statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err((None, "has no SQL after the front matter".to_owned())),
        _ => return Err((None, "has several statements; a refinement is one SELECT".to_owned())),
    };
    match &statement {
        Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)) => {}
        _ => return Err((None, "is not a SELECT; a refinement is one SELECT".to_owned())),
    }
    let (tables, _) =
        resolve_table_references(&statement, true).map_err(|error| (None, crate::query::one_line(&error)))?;
    tables
        .into_iter()
        .map(|table| match table {
            TableReference::Partial { schema, table } => {
                let namespace = schema.split('.').map(str::to_owned).collect();
                Ok(TableName { namespace, name: table.to_string() })
            }
            TableReference::Bare { table } => {
                Err((None, format!("reads the table {table}; write its namespace too, as in bronze.{table}")))
            }
            TableReference::Full { ref catalog, .. } => Err((
                None,
                format!(
                    "reads {table} by its catalog; a refinement reads tables of its own catalog, without `{catalog}.`"
                ),
            )),
        })
        .collect()
}

impl Context<'_> {
    /// A fault at a line of the front matter.
    fn at(&mut self, line: usize, message: impl Into<String>) {
        self.faults.push(Fault::new(self.file, self.first_line + line - 1, message));
    }

    fn later(&mut self, line: usize, what: impl std::fmt::Display) {
        self.at(line, format!("{what} comes with a later version of calve"));
    }

    fn front_matter(&mut self, root: &Node) -> Model {
        let mut model = Model {
            target: self.target_of_path(),
            file: self.file.to_owned(),
            sql: String::new(),
            sql_line: 1,
            hash: String::new(),
            description: None,
            mode: Mode::Append,
            key: vec![],
            order_by: vec![],
            delete_when: None,
            partition_by: vec![],
            incremental: Incremental::Auto,
            sources: BTreeMap::new(),
            trigger: Trigger { on_commit: true, min_interval: None },
            on_schema_change: OnSchemaChange::Additive,
            expectations: vec![],
        };
        for (key, line, node) in self.map(root, "the front matter", &KEYS) {
            match key.as_str() {
                "description" => model.description = self.text(node, key),
                "target" => {
                    if let Some(name) = self.text(node, key) {
                        match table_name(&name) {
                            Some(target) => model.target = target,
                            None => self.at(*line, format!("target `{name}` is not a table; write namespace.table")),
                        }
                    }
                }
                "mode" => {
                    let modes = [
                        ("append", Mode::Append),
                        ("by_partition", Mode::ByPartition),
                        ("upsert", Mode::Upsert),
                        ("full", Mode::Full),
                        ("scd2", Mode::Scd2),
                        ("view", Mode::View),
                    ];
                    if let Some(mode) = self.choice(node, key, &modes) {
                        model.mode = mode;
                        if mode != Mode::Append {
                            self.later(*line, format!("mode {mode}"));
                        }
                    }
                }
                "key" => model.key = self.texts(node, key),
                "order_by" => model.order_by = self.texts(node, key),
                "delete_when" => model.delete_when = self.text(node, key),
                "partition_by" => model.partition_by = self.texts(node, key),
                "incremental" => {
                    let choices =
                        [("auto", Incremental::Auto), ("strict", Incremental::Strict), ("never", Incremental::Never)];
                    model.incremental = self.choice(node, key, &choices).unwrap_or(model.incremental);
                }
                "trigger" => model.trigger = self.trigger(node),
                "on_schema_change" => {
                    let choices = [
                        ("additive", OnSchemaChange::Additive),
                        ("evolve", OnSchemaChange::Evolve),
                        ("fail", OnSchemaChange::Fail),
                    ];
                    if let Some(choice) = self.choice(node, key, &choices) {
                        model.on_schema_change = choice;
                        if choice == OnSchemaChange::Evolve {
                            self.later(*line, "on_schema_change: evolve");
                        }
                    }
                }
                "expect" => {
                    model.expectations = self.expectations(node);
                    self.later(*line, "expect (checking rows before they are published)");
                }
                "engine" if self.text(node, key).is_some_and(|engine| engine != "local") => {
                    self.later(*line, "an engine other than local");
                }
                // `sources` waits for the SQL's own list.
                _ => {}
            }
        }
        if model.mode == Mode::Append {
            for (name, given) in [
                ("key", !model.key.is_empty()),
                ("order_by", !model.order_by.is_empty()),
                ("delete_when", model.delete_when.is_some()),
            ] {
                if given {
                    let line = line_of(root, name);
                    self.at(line, format!("`{name}` means nothing in mode append, which only adds rows; remove it"));
                }
            }
            if model.incremental == Incremental::Never {
                let line = line_of(root, "incremental");
                self.at(line, "`incremental: never` and mode append exclude each other: append adds what is new");
            }
        }
        model
    }

    fn require_mode(&mut self, root: &Node, model: &Model) {
        if !has(root, "mode") {
            self.at(1, "has no `mode`; add `mode: append`");
        }
        if model.target.namespace.iter().any(String::is_empty) || model.target.namespace.is_empty() {
            self.at(
                1,
                "lies in no namespace's folder; move it to sql/NAMESPACE/TABLE.sql, or add `target: NAMESPACE.TABLE`",
            );
        }
    }

    /// `sql/silver/orders.sql` → `silver.orders`; deeper folders are deeper namespaces.
    fn target_of_path(&self) -> TableName {
        let path = self.file.strip_prefix("sql/").unwrap_or(self.file);
        let mut parts: Vec<String> = path.trim_end_matches(".sql").split('/').map(str::to_owned).collect();
        let name = parts.pop().unwrap_or_default();
        TableName { namespace: parts, name }
    }

    /// Joins the SQL's tables and the front matter's `sources`, and applies mode append's rule of one delta source.
    fn sources(&mut self, root: &Node, model: &mut Model, found: Vec<TableName>) {
        let mut given = BTreeMap::new();
        if let Some((_, _, node)) = entry(root, "sources") {
            let names: Vec<String> = found.iter().map(TableName::to_string).collect();
            for (name, at, options) in self.map_of_any(node, "sources") {
                match found.iter().find(|table| table.to_string() == *name) {
                    Some(table) => {
                        let source = self.source(options, name);
                        given.insert(table.clone(), source);
                    }
                    None => {
                        let hint = suggest(name, names.iter().map(String::as_str));
                        self.at(*at, format!("the SQL does not read the table `{name}`; {hint}"));
                    }
                }
            }
        }
        for table in found {
            let (read, triggers, on_overwrite) = given.remove(&table).unwrap_or((None, None, None));
            let read = read.unwrap_or(Read::Delta);
            let source = Source {
                read,
                triggers: triggers.unwrap_or(read == Read::Delta),
                on_overwrite: on_overwrite.unwrap_or(OnOverwrite::Fail),
            };
            model.sources.insert(table, source);
        }
        let deltas: Vec<String> = model
            .sources
            .iter()
            .filter(|(_, source)| source.read == Read::Delta)
            .map(|(table, _)| table.to_string())
            .collect();
        if model.mode == Mode::Append && deltas.len() != 1 {
            let message = match (&deltas[..], model.sources.is_empty()) {
                (_, true) => "the SQL reads no table, so nothing would ever be new to it".to_owned(),
                ([], _) => "all sources are read as snapshots; mode append needs one whose new rows it adds".to_owned(),
                _ => format!(
                    "the SQL reads {} for their new rows, but mode append takes the new rows of one table; give the \
                     others `sources: {{ NAME: {{ read: snapshot }} }}`",
                    deltas.join(" and ")
                ),
            };
            let line = line_of(root, "sources");
            self.at(line, message);
        }
    }

    fn source(&mut self, node: &Node, name: &str) -> (Option<Read>, Option<bool>, Option<OnOverwrite>) {
        let mut source = (None, None, None);
        for (key, line, node) in self.map(node, &format!("sources.{name}"), &["read", "triggers", "on_overwrite"]) {
            match key.as_str() {
                "read" => source.0 = self.choice(node, key, &[("delta", Read::Delta), ("snapshot", Read::Snapshot)]),
                "triggers" => source.1 = self.boolean(node, key),
                _ => {
                    let choices =
                        [("fail", Some(OnOverwrite::Fail)), ("ignore", Some(OnOverwrite::Ignore)), ("recompute", None)];
                    match self.choice(node, key, &choices) {
                        Some(None) => self.later(*line, "on_overwrite: recompute"),
                        Some(choice) => source.2 = choice,
                        None => {}
                    }
                }
            }
        }
        source
    }

    fn trigger(&mut self, node: &Node) -> Trigger {
        let mut trigger = Trigger { on_commit: true, min_interval: None };
        let keys = ["on_commit", "min_interval", "cron", "timezone", "target_lag"];
        for (key, line, node) in self.map(node, "trigger", &keys) {
            match key.as_str() {
                "on_commit" => trigger.on_commit = self.boolean(node, key).unwrap_or(true),
                "min_interval" => {
                    if let Some(text) = self.text(node, key) {
                        match units::duration(&text) {
                            Ok(interval) => trigger.min_interval = Some(interval),
                            Err(why) => self.at(*line, format!("min_interval `{text}` {why}")),
                        }
                    }
                }
                later => self.later(*line, format!("trigger: {later}")),
            }
        }
        trigger
    }

    fn expectations(&mut self, node: &Node) -> Vec<Expectation> {
        let Value::List(items) = &node.value else {
            self.at(node.line, format!("`expect` is {}, not a list", node.value.kind()));
            return vec![];
        };
        items.iter().filter_map(|item| self.expectation(item)).collect()
    }

    fn expectation(&mut self, node: &Node) -> Option<Expectation> {
        let (mut name, mut checks, mut on_fail, mut max_fraction) = (None, vec![], None, None);
        let actions = [
            ("warn", OnFail::Warn),
            ("drop", OnFail::Drop),
            ("quarantine", OnFail::Quarantine),
            ("fail", OnFail::Fail),
        ];
        for (key, line, node) in self.map(node, "expect", &["name", "where", "sql", "on_fail", "max_fraction"]) {
            match key.as_str() {
                "name" => name = self.text(node, key),
                "where" => checks.extend(self.text(node, key).map(Check::Where)),
                "sql" => checks.extend(self.text(node, key).map(Check::Sql)),
                "on_fail" => on_fail = self.choice(node, key, &actions),
                _ => match node.value {
                    Value::Number(fraction) if (0.0..=1.0).contains(&fraction) => max_fraction = Some(fraction),
                    _ => self.at(*line, "`max_fraction` is not a number between 0 and 1"),
                },
            }
        }
        if checks.len() != 1 {
            self.at(node.line, "an expectation has either `where` or `sql`");
        }
        if name.is_none() {
            self.at(node.line, "an expectation has a `name`");
        }
        if on_fail.is_none() {
            self.at(node.line, "an expectation has `on_fail`: warn, drop, quarantine or fail");
        }
        Some(Expectation { name: name?, check: checks.pop()?, on_fail: on_fail?, max_fraction })
    }

    /// A map whose keys are all known and given once.
    fn map<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> &'n [(String, usize, Node)] {
        let entries = self.map_of_any(node, what);
        for (key, line, _) in entries {
            if !keys.contains(&key.as_str()) {
                let hint = suggest(key, keys.iter().copied());
                self.at(*line, format!("unknown key `{key}` in {what}; {hint}"));
            }
        }
        entries
    }

    fn map_of_any<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(String, usize, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                self.at(node.line, format!("{what} is {}, not a map of keys and values", other.kind()));
                &[]
            }
        }
    }

    fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            other => {
                self.at(node.line, format!("`{key}` is {}, not text", other.kind()));
                None
            }
        }
    }

    /// A list of texts; one text stands for a list of one.
    fn texts(&mut self, node: &Node, key: &str) -> Vec<String> {
        match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.text(item, key)).collect(),
            Value::Text(text) => vec![text.clone()],
            other => {
                self.at(node.line, format!("`{key}` is {}, not a list of texts", other.kind()));
                vec![]
            }
        }
    }

    fn boolean(&mut self, node: &Node, key: &str) -> Option<bool> {
        match node.value {
            Value::Bool(value) => Some(value),
            ref other => {
                self.at(node.line, format!("`{key}` is {}, not true or false", other.kind()));
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, node: &Node, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.at(node.line, format!("`{key}: {text}` is none of: {}", names.join(", ")));
        }
        found
    }
}

fn entry<'n>(root: &'n Node, key: &str) -> Option<&'n (String, usize, Node)> {
    match &root.value {
        Value::Map(entries) => entries.iter().find(|(name, _, _)| name == key),
        _ => None,
    }
}

fn has(root: &Node, key: &str) -> bool {
    entry(root, key).is_some()
}

fn line_of(root: &Node, key: &str) -> usize {
    entry(root, key).map_or(1, |(_, line, _)| *line)
}

fn table_name(text: &str) -> Option<TableName> {
    let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    let name = parts.pop()?;
    let valid = !parts.is_empty() && !name.is_empty() && parts.iter().all(|part| !part.is_empty());
    valid.then_some(TableName { namespace: parts, name })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match model("sql/silver/x.sql", text) {
            Ok(model) => panic!("no fault in {model:?}"),
            Err(faults) => faults.into_iter().map(|fault| fault.to_string()).collect(),
        }
    }

    #[test]
    fn a_model_is_read_whole() {
        let text = "/*---\ndescription: d\nmode: append\npartition_by: [day(at)]\nsources:\n  ref.rates: { read: snapshot }\n\
                    trigger: { on_commit: false, min_interval: 30s }\n---*/\n\nWITH r AS (SELECT * FROM ref.rates)\n\
                    SELECT o.id FROM bronze.orders o JOIN r ON o.c = r.c";
        let model = model("sql/silver/eu/x.sql", text).unwrap();
        assert_eq!(model.target.to_string(), "silver.eu.x");
        assert_eq!((model.mode, model.sql_line), (Mode::Append, 10));
        assert_eq!(model.partition_by, ["day(at)"]);
        assert_eq!(model.trigger, Trigger { on_commit: false, min_interval: Some(Duration::from_secs(30)) });
        let sources: Vec<_> =
            model.sources.iter().map(|(name, how)| (name.to_string(), how.read, how.triggers)).collect();
        assert_eq!(
            sources,
            [("bronze.orders".to_owned(), Read::Delta, true), ("ref.rates".to_owned(), Read::Snapshot, false)]
        );
        assert_eq!(model.hash.len(), 64);
    }

    #[test]
    fn every_fault_comes_with_its_line_and_all_at_once() {
        let text = "/*---\nmode: append\nkeys: [id]\nkey: [id]\non_schema_change: evolv\ntrigger:\n  min_interval: 30\n  \
                    cron: \"0 * * * *\"\nsources:\n  bronze.order: { read: snapshot, trigers: false }\nexpect:\n  \
                    - { name: a, where: \"x > 0\", on_fail: explode }\n---*/\nSELECT * FROM bronze.orders";
        let faults = faults(text);
        for says in [
            "sql/silver/x.sql:3: unknown key `keys` in the front matter; did you mean `key`?",
            "sql/silver/x.sql:4: `key` means nothing in mode append, which only adds rows; remove it",
            "sql/silver/x.sql:5: `on_schema_change: evolv` is none of: additive, evolve, fail",
            "sql/silver/x.sql:7: `min_interval` is a number, not text",
            "sql/silver/x.sql:8: trigger: cron comes with a later version of calve",
            "sql/silver/x.sql:10: the SQL does not read the table `bronze.order`; did you mean `bronze.orders`?",
            "sql/silver/x.sql:11: expect (checking rows before they are published) comes with a later version of calve",
            "sql/silver/x.sql:12: `on_fail: explode` is none of: warn, drop, quarantine, fail",
        ] {
            assert!(faults.iter().any(|fault| fault == says), "{says}\nis not in\n{}", faults.join("\n"));
        }
    }

    #[test]
    fn modes_of_later_versions_say_so() {
        for mode in ["by_partition", "upsert", "full", "scd2", "view"] {
            let faults = faults(&format!("/*---\nmode: {mode}\n---*/\nSELECT * FROM bronze.orders"));
            assert_eq!(faults, [format!("sql/silver/x.sql:2: mode {mode} comes with a later version of calve")]);
        }
    }

    #[test]
    fn what_is_not_one_select_over_named_tables_is_refused() {
        for (text, says) in [
            ("SELECT 1", "sql/silver/x.sql:1: has no front matter"),
            ("/*---\nmode: append\nSELECT 1", "does not end"),
            ("/*---\nmode: [append\n---*/\nSELECT * FROM a.b", "not YAML"),
            ("/*---\n---*/\nSELECT * FROM a.b", "sql/silver/x.sql:1: has no `mode`"),
            ("/*---\nmode: append\n---*/\n", "has no SQL"),
            ("/*---\nmode: append\n---*/\nSELECT * FROM a.b; SELECT 2", "several statements"),
            ("/*---\nmode: append\n---*/\nDROP TABLE a.b", "is not a SELECT"),
            ("/*---\nmode: append\n---*/\n\nSELECT *\nFORM a.b", "sql/silver/x.sql:6: the SQL does not parse"),
            ("/*---\nmode: append\n---*/\nSELECT * FROM orders", "bronze.orders"),
            ("/*---\nmode: append\n---*/\nSELECT * FROM c.a.b", "without `c.`"),
            ("/*---\nmode: append\n---*/\nSELECT 1", "reads no table"),
            ("/*---\nmode: append\n---*/\nSELECT * FROM a.b JOIN a.c USING (id)", "a.b and a.c"),
        ] {
            let faults = faults(text).join("\n");
            assert!(faults.contains(says), "{text}\n{faults}");
        }
    }
}
