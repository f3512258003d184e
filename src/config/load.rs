//! Reads a project: `calve.toml` and `catalogs/*.toml`, every fault of all of them at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml_edit::{Document, TableLike};

use super::fault::{Fault, Faults};
use super::interpolate::{Sources, plain};
use super::reader::{File, Section};
use super::{Catalog, Project, services, topics};

/// Reads the project whose `calve.toml` is `path` (or is in the folder `path`), with the process's environment.
pub fn load(path: &Path) -> Result<Project, Faults> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// Like [`load`], with variables from elsewhere.
pub fn load_with(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Project, Faults> {
    match read(path, variable) {
        (Some(project), faults) => faults.into_result(project),
        (None, faults) => Err(faults),
    }
}

/// What can be read of a project, and all that is wrong with it, so that its schemas and refinements can be checked in
/// the same go. Topics and catalogs with faults of their own may be absent. Never neither a project nor a fault.
pub fn read(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> (Option<Project>, Faults) {
    let path = if path.is_dir() { path.join("calve.toml") } else { path.to_path_buf() };
    let shown = path.to_string_lossy().trim_start_matches("./").to_string();
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let unreadable = |message: String| (None, Fault::new(&shown, None, message).into());
    let root = match std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }) {
        Ok(root) => root,
        Err(error) => return unreadable(format!("the project's folder cannot be found: {}", plain(&error))),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let remedy = "run `calve init` to make a project, or name one with --config";
            return unreadable(format!("cannot be read: {}; {remedy}", plain(&error)));
        }
    };

    let faults = RefCell::new(Faults::default());
    let sources = Sources { root: &root, variable };
    let catalogs = catalogs(&folder, &root, &sources, &faults);
    let file = File { shown: &shown, text: &text, sources: &sources, faults: &faults };
    let project = parse(&file).map(|document| project(Section::root(&file, document.as_table()), &root, &catalogs));
    let mut faults = faults.into_inner();
    faults.sort();
    (project, faults)
}

/// The line in a TOML file that a key is written in, for faults that are found after reading. `path` leads to it through
/// the tables; keys with dots in them are found however they are spelled.
pub fn locate(file: &Path, path: &[&str]) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let document = Document::parse(text.as_str()).ok()?;
    let mut table: &dyn TableLike = document.as_table();
    let mut at = None;
    let mut rest: Vec<&str> = path.to_vec();
    while !rest.is_empty() {
        let (key, item) = match table.get_key_value(rest[0]) {
            Some(found) => {
                rest.remove(0);
                found
            }
            None => {
                let (first, tail) = rest[0].split_once('.')?;
                rest[0] = tail;
                table.get_key_value(first)?
            }
        };
        at = key.span().or(item.span());
        if !rest.is_empty() {
            table = item.as_table_like()?;
        }
    }
    Some(1 + text.get(..at?.start)?.matches('\n').count())
}

fn project(section: Section<'_>, root: &Path, catalogs: &BTreeMap<String, Option<Catalog>>) -> Project {
    let file = section.file;
    let daemon = services::daemon(section.section("daemon"));
    let kafka_section = section.section("kafka");
    let kafka_line = kafka_section.as_ref().map_or(section.line, |kafka| kafka.line);
    let servers_given = kafka_section.as_ref().is_some_and(|kafka| kafka.has("bootstrap_servers"));
    let kafka = services::kafka(kafka_section);
    let registry = section.section("schema_registry").map(services::schema_registry);
    let defaults = section.section("defaults").map(|defaults| topics::keys(&defaults, root)).unwrap_or_default();
    let registered = section.section("topics").map(|topics| topics.sections()).unwrap_or_default();
    section.finish();

    if !registered.is_empty() && !servers_given {
        let remedy = "write the brokers' addresses, like \"127.0.0.1:9092\"";
        file.fault(kafka_line, format!("kafka.bootstrap_servers is missing: {remedy}"));
    }
    let around = topics::Surroundings { root, catalogs, registry: registry.as_ref() };
    let mut found = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for (name, section) in registered {
        lines.insert(name.clone(), section.line);
        let own = topics::keys(&section, root);
        if let Some(topic) = topics::topic(&name, &section, own, &defaults, &around) {
            found.insert(name, topic);
        }
    }
    let mut in_file_order: Vec<_> = found.values().collect();
    in_file_order.sort_by_key(|topic| lines.get(&topic.name).copied());
    topics::check_tables(in_file_order, |topic, message| {
        file.fault(lines.get(&topic.name).copied().flatten(), message)
    });

    Project {
        root: root.to_path_buf(),
        daemon,
        kafka,
        schema_registry: registry,
        catalogs: catalogs.iter().filter_map(|(name, catalog)| Some((name.clone(), catalog.clone()?))).collect(),
        topics: found,
    }
}

/// All catalogs by name; one that is there, but wrong, is `None`, so that a topic may still refer to it.
fn catalogs(
    folder: &Path,
    root: &Path,
    sources: &Sources<'_>,
    faults: &RefCell<Faults>,
) -> BTreeMap<String, Option<Catalog>> {
    let mut catalogs = BTreeMap::new();
    for (name, path) in catalog_files(&root.join("catalogs"), faults) {
        let shown = folder.join("catalogs").join(path.file_name().unwrap_or_default());
        let shown = shown.to_string_lossy().trim_start_matches("./").to_string();
        let catalog = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let file = File { shown: &shown, text: &text, sources, faults };
                parse(&file).and_then(|document| {
                    super::catalogs::catalog(&name, root, Section::root(&file, document.as_table()))
                })
            }
            Err(error) => {
                faults.borrow_mut().push(Fault::new(&shown, None, format!("cannot be read: {}", plain(&error))));
                None
            }
        };
        catalogs.insert(name, catalog);
    }
    catalogs
}

fn catalog_files(folder: &Path, faults: &RefCell<Faults>) -> Vec<(String, PathBuf)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            faults.borrow_mut().push(Fault::new("catalogs", None, format!("cannot be read: {}", plain(&error))));
            return Vec::new();
        }
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_string(), path)))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    files.sort();
    files
}

/// The file as TOML; when it is none, the line where it stops being TOML is a fault.
fn parse<'a>(file: &File<'a>) -> Option<Document<&'a str>> {
    match Document::parse(file.text) {
        Ok(document) => Some(document),
        Err(error) => {
            // The error's own rendering quotes the line, which may hold a secret.
            let reason = error.message().replace('\n', " ");
            file.fault(file.line(error.span()).or(Some(1)), format!("is not TOML: {reason}"));
            None
        }
    }
}
