//! What a topic's configuration and schema come to: its table's columns and partitions, without asking any service.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use iceberg::spec::UnboundPartitionSpec;

use crate::config::{Fault, SchemaSource, Topic, locate, nearest};
use crate::schema::mapping::{Mapping, Options};
use crate::schema::model::Pool;
use crate::schema::{partition, sort, source};

/// The table that a topic would be given.
#[derive(Clone, Debug)]
pub struct Planned {
    pub mapping: Mapping,
    pub partition_spec: UnboundPartitionSpec,
}

/// Plans topics; reads each schema source once.
#[derive(Default)]
pub struct Planner {
    pools: HashMap<SchemaSource, Result<Arc<Pool>, String>>,
}

impl Planner {
    /// Plans a topic of the project at `config`; all of its faults, each at the key that it is about.
    pub fn plan(&mut self, config: &Path, topic: &Topic) -> Result<Planned, Vec<Fault>> {
        let fault = |key: &[&str], message: String| {
            let (file, line) = place(config, topic, key);
            Fault::new(file, line, format!("topic {}: {message}", topic.name))
        };
        let pool = self.pools.entry(topic.schema.clone()).or_insert_with(|| {
            // One line: what, then why, as the error's causes tell it.
            source::load(&topic.schema).map_err(|error| one_line(&format!("{error:#}")))
        });
        let pool = pool.as_ref().map_err(|reason| vec![fault(&["schema"], reason.clone())])?;
        let Some(message) = &topic.message else {
            return Err(vec![fault(&["message"], "no message is named".to_string())]);
        };
        let Some(id) = pool.find(message) else {
            let names = pool.messages.iter().map(|message| message.full_name.as_str());
            let names = names.filter(|name| !name.starts_with("google.protobuf."));
            let hint = nearest::suggest(message, names);
            return Err(vec![fault(&["message"], format!("its schema has no message {message}; {hint}"))]);
        };
        let faults = |key: &'static str| {
            move |faults: Vec<crate::schema::mapping::Fault>| -> Vec<Fault> {
                let key_of = |of_schema: &crate::schema::mapping::Fault| match of_schema.key.as_slice() {
                    [] => vec![key.to_string()],
                    own => own.to_vec(),
                };
                let place = |of_schema| {
                    let key = key_of(of_schema);
                    let key: Vec<&str> = key.iter().map(String::as_str).collect();
                    fault(&key, one_line(&of_schema.to_string()))
                };
                faults.iter().map(place).collect()
            }
        };
        let mapping = Mapping::create(pool.clone(), id, &Options::from(topic)).map_err(faults("message"))?;
        let partition_spec = partition::parse(&topic.partition_by, &mapping.iceberg).map_err(faults("partition_by"))?;
        sort::parse(&topic.sort_by, &mapping.iceberg).map_err(faults("sort_by"))?;
        Ok(Planned { mapping, partition_spec })
    }
}

/// Where a key of a topic is written: in its own section, in the defaults, or nowhere, which is the topic's line.
fn place(config: &Path, topic: &Topic, key: &[&str]) -> (String, Option<usize>) {
    let (file, line) = match topic.place.rsplit_once(':') {
        Some((file, line)) => (file.to_string(), line.parse().ok()),
        None => (topic.place.clone(), None),
    };
    let path = if config.is_dir() { config.join("calve.toml") } else { config.to_path_buf() };
    let own = locate(&path, &[&["topics", topic.name.as_str()], key].concat());
    (file, own.or_else(|| locate(&path, &[&["defaults"], key].concat())).or(line))
}

/// Errors of dependencies span lines; a fault is one.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
