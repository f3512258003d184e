//! What others do to rows, snapshots and branches, in any order.

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::{FOREIGN, Scene, insert};

impl Scene {
    fn foreign_ids(&mut self, count: i64) -> Vec<i64> {
        let ids = self.foreign..self.foreign + count;
        self.foreign = ids.end;
        self.model.foreign.extend(ids.clone().map(|id| (id, ())));
        ids.collect()
    }

    /// Some ids of events that are there, which are old enough to be committed for sure.
    fn some_ids(&mut self) -> std::ops::Range<i64> {
        self.settle();
        let from = self.random.random_range(0..self.produced - 5);
        from..from + self.random.random_range(1..5)
    }

    pub(super) fn step(&mut self, step: &str) {
        let table = "local.bronze.events";
        match step {
            "append by Spark" => {
                let ids = self.foreign_ids(3);
                self.sql(&insert(table, table, &ids));
            }
            "append by PyIceberg" => {
                let ids: Vec<String> = self.foreign_ids(2).iter().map(i64::to_string).collect();
                self.pyiceberg(&[&["append"], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
            }
            "overwrite by PyIceberg" => {
                self.model.foreign.clear();
                let ids: Vec<String> = self.foreign_ids(2).iter().map(i64::to_string).collect();
                self.pyiceberg(&[&["overwrite"], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
            }
            "delete by PyIceberg" => {
                let ids = self.some_ids();
                self.pyiceberg(&["delete", &ids.start.to_string(), &ids.end.to_string()]);
                self.model.events.retain(|id, _| !ids.contains(id));
            }
            "delete, copy-on-write" | "delete, merge-on-read" => {
                let ids = self.some_ids();
                let mode = step.rsplit(' ').next().unwrap();
                self.sql(&format!("ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.mode' = '{mode}')"));
                self.sql(&format!("DELETE FROM {table} WHERE id >= {} AND id < {}", ids.start, ids.end));
                self.model.events.retain(|id, _| !ids.contains(id));
            }
            "update, copy-on-write" | "update, merge-on-read" => {
                let ids = self.some_ids();
                let mode = step.rsplit(' ').next().unwrap();
                let column = self.name_column.clone();
                self.sql(&format!("ALTER TABLE {table} SET TBLPROPERTIES ('write.update.mode' = '{mode}')"));
                self.sql(&format!(
                    "UPDATE {table} SET {column} = 'changed' WHERE id >= {} AND id < {}",
                    ids.start, ids.end
                ));
                for (_, name) in self.model.events.range_mut(ids) {
                    "changed".clone_into(name);
                }
            }
            "rewrite data files" => {
                self.sql("CALL local.system.rewrite_data_files(table => 'bronze.events', options => map('rewrite-all', 'true'))");
            }
            "rewrite manifests" => {
                self.sql("CALL local.system.rewrite_manifests('bronze.events')");
            }
            "rewrite position deletes" => {
                self.sql("CALL local.system.rewrite_position_delete_files('bronze.events')");
            }
            "expire snapshots" => {
                self.sql("CALL local.system.expire_snapshots(table => 'bronze.events', older_than => TIMESTAMP '2999-01-01 00:00:00', retain_last => 1)");
            }
            "roll back" => self.roll_back(),
            "branch and tag" => {
                let name = format!("b{}", self.random.random::<u16>());
                self.sql(&format!("ALTER TABLE {table} CREATE BRANCH {name}"));
                self.sql(&insert(&format!("{table}.branch_{name}"), table, &[2 * FOREIGN]));
                self.sql(&format!("ALTER TABLE {table} CREATE TAG t{name}"));
                self.pyiceberg(&["tag", &format!("p{name}")]);
                let head = self.head();
                self.sql(&format!("ALTER TABLE {table} REPLACE BRANCH {name} AS OF VERSION {head}"));
                self.sql(&format!("ALTER TABLE {table} DROP TAG t{name}"));
            }
            "set properties" => {
                let value = self.random.random::<u16>();
                self.sql(&format!(
                    "ALTER TABLE {table} SET TBLPROPERTIES ('owner.note' = '{value}', 'write.parquet.compression-codec' = 'gzip')"
                ));
            }
            other => panic!("no step {other}"),
        }
    }

    fn head(&mut self) -> i64 {
        let main = self.sql("SELECT snapshot_id FROM local.bronze.events.refs WHERE name = 'main'");
        main[0]["snapshot_id"].as_i64().unwrap()
    }

    /// Back to a snapshot after which others appended and deleted and calve went on: theirs is undone, what calve read
    /// since comes again.
    fn roll_back(&mut self) {
        self.settle();
        let (head, model, produced) = (self.head(), self.model.clone(), self.produced);
        self.step("append by Spark");
        self.step("delete, merge-on-read");
        self.produce(20);
        self.settle();
        self.sql(&format!("CALL local.system.rollback_to_snapshot('bronze.events', {head})"));
        self.model = model;
        self.model.events.extend((produced..self.produced).map(|id| (id, format!("event number {id}"))));
        // These are committed once more.
        self.committed += (self.produced - produced) as u64;
    }
}

#[test]
fn whatever_others_do_to_the_rows_calve_goes_on() {
    let mut scene = Scene::on_rest("");
    let mut steps = vec![
        "append by Spark",
        "append by PyIceberg",
        "overwrite by PyIceberg",
        "delete by PyIceberg",
        "delete, copy-on-write",
        "delete, merge-on-read",
        "update, copy-on-write",
        "update, merge-on-read",
        "rewrite data files",
        "rewrite manifests",
        "rewrite position deletes",
        "expire snapshots",
        "roll back",
        "branch and tag",
        "set properties",
    ];
    steps.shuffle(&mut scene.random);
    println!("steps: {steps:?}");
    for step in steps {
        let before = std::time::Instant::now();
        // Some of it is still on its way while the other writer works.
        let records = scene.random.random_range(1..60);
        scene.produce(records);
        scene.step(step);
        scene.produce(10);
        scene.check(&["spark"], step);
        println!("{step}: {:.1} s", before.elapsed().as_secs_f64());
    }
    scene.check(&["duckdb", "pyiceberg"], "all steps");
    let metadata = scene.metadata();
    assert_ne!(metadata["properties"]["owner.note"], Value::Null, "others' properties stay");
    let branches = metadata["refs"].as_object().unwrap().keys().filter(|name| name.starts_with('b')).count();
    assert_eq!(branches, 1, "others' branches stay: {}", metadata["refs"]);

    // Metadata that somebody compresses is read, and written so.
    scene.sql("ALTER TABLE local.bronze.events SET TBLPROPERTIES ('write.metadata.compression-codec' = 'gzip')");
    for _ in 0..2 {
        scene.produce(10);
        scene.settle();
    }
    assert!(scene.location().ends_with(".gz.metadata.json"), "{}", scene.location());
    scene.check(&["spark", "pyiceberg"], "gzip");

    // Deleted rows are missing, and it says whose doing that is. Earlier deletes may have been rolled back.
    scene.step("delete, merge-on-read");
    scene.check(&["spark"], "delete at last");
    let (code, out, errors) = scene.project.calve(&["verify", "bronze.events"]);
    assert_eq!(code, 3, "{out}{errors}");
    assert!(out.contains("by another writer (spark 4.0.5), deleted "), "{out}");
    let (code, out, errors) = scene.project.calve(&["verify", "--accept-deletes", "bronze.events"]);
    assert_eq!(code, 0, "{out}{errors}");
    assert_eq!(scene.daemon.terminate(), 0);
}
