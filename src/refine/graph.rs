//! Which model reads which model's table: the order of runs, and what lies downstream of a commit.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Model;
use crate::config::{Fault, TableName};

/// Models in an order in which each comes after those whose tables it reads.
#[derive(Clone, Debug)]
pub struct Graph {
    models: Vec<Model>,
}

impl Graph {
    /// # Errors
    /// Models that read each other in a circle; the fault prints it.
    pub fn new(models: Vec<Model>) -> Result<Graph, Fault> {
        let by_target: BTreeMap<&TableName, &Model> = models.iter().map(|model| (&model.target, model)).collect();
        let mut order: Vec<&TableName> = Vec::new();
        let mut done = BTreeSet::new();
        for model in &models {
            visit(model, &by_target, &mut Vec::new(), &mut done, &mut order)?;
        }
        let position: BTreeMap<TableName, usize> =
            order.into_iter().enumerate().map(|(index, table)| (table.clone(), index)).collect();
        let mut models = models;
        models.sort_by_key(|model| position.get(&model.target).copied());
        Ok(Graph { models })
    }

    /// All models; each after those whose tables it reads.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    pub fn model(&self, target: &TableName) -> Option<&Model> {
        self.models.iter().find(|model| model.target == *target)
    }

    /// The models that a commit to `table` triggers, at any distance, in the order in which to run them.
    pub fn downstream(&self, table: &TableName) -> Vec<&Model> {
        let mut changed = BTreeSet::from([table]);
        let mut found = Vec::new();
        for model in &self.models {
            let triggered = model.sources.iter().any(|(source, how)| how.triggers && changed.contains(source));
            if model.trigger.on_commit && triggered {
                changed.insert(&model.target);
                found.push(model);
            }
        }
        found
    }

    /// The models that read `table`, at any distance and in any way.
    pub fn descendants(&self, table: &TableName) -> Vec<&Model> {
        let mut above = BTreeSet::from([table]);
        let mut found = Vec::new();
        for model in &self.models {
            if model.sources.keys().any(|source| above.contains(source)) {
                above.insert(&model.target);
                found.push(model);
            }
        }
        found
    }
}

fn visit<'m>(
    model: &'m Model,
    by_target: &BTreeMap<&TableName, &'m Model>,
    path: &mut Vec<&'m Model>,
    done: &mut BTreeSet<&'m TableName>,
    order: &mut Vec<&'m TableName>,
) -> Result<(), Fault> {
    if done.contains(&model.target) {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|on_path| on_path.target == model.target) {
        let mut circle: Vec<String> = path[start..].iter().map(|model| model.target.to_string()).collect();
        circle.push(model.target.to_string());
        let message =
            format!("reads its own result: {}; a refinement cannot be its own source", circle.join(" reads "));
        return Err(Fault::new(&model.file, model.sql_line, message));
    }
    path.push(model);
    for source in model.sources.keys() {
        if let Some(upstream) = by_target.get(source) {
            visit(upstream, by_target, path, done, order)?;
        }
    }
    path.pop();
    done.insert(&model.target);
    order.push(&model.target);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(of: &[(&str, &str)]) -> Vec<Model> {
        of.iter()
            .map(|(target, source)| {
                let file = format!("sql/{}.sql", target.replace('.', "/"));
                Model::parse(&file, &format!("/*---\nmode: append\n---*/\nSELECT * FROM {source}")).unwrap()
            })
            .collect()
    }

    fn names<'m>(models: impl IntoIterator<Item = &'m Model>) -> Vec<String> {
        models.into_iter().map(|model| model.target.to_string()).collect()
    }

    #[test]
    fn upstream_comes_first_and_downstream_is_found_at_any_distance() {
        let graph =
            Graph::new(models(&[("gold.a", "silver.a"), ("silver.a", "bronze.a"), ("silver.b", "bronze.b")])).unwrap();
        assert_eq!(names(graph.models()), ["silver.a", "gold.a", "silver.b"]);
        let bronze = TableName { namespace: vec!["bronze".into()], name: "a".into() };
        assert_eq!(names(graph.downstream(&bronze)), ["silver.a", "gold.a"]);
        let silver = TableName { namespace: vec!["silver".into()], name: "a".into() };
        assert_eq!(names(graph.downstream(&silver)), ["gold.a"]);
    }

    #[test]
    fn a_circle_is_printed() {
        let fault = Graph::new(models(&[("a.x", "a.y"), ("a.y", "a.z"), ("a.z", "a.x")])).unwrap_err();
        assert!(fault.message.contains("a.x reads a.y reads a.z reads a.x"), "{fault}");
        let fault = Graph::new(models(&[("a.x", "a.x")])).unwrap_err();
        assert!(fault.message.contains("a.x reads a.x"), "{fault}");
    }
}
