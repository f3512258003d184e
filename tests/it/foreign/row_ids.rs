//! Format version 3: each row has an id, which stays what it was.

use std::collections::BTreeMap;

use super::Scene;

/// Row ids by event id, as Spark reads them.
fn row_ids(scene: &mut Scene) -> BTreeMap<i64, i64> {
    scene.settle();
    let rows =
        scene.sql("SELECT id, _row_id AS row_id, _last_updated_sequence_number AS updated FROM local.bronze.events");
    let ids: BTreeMap<i64, i64> =
        rows.iter().map(|row| (row["id"].as_i64().unwrap(), row["row_id"].as_i64().expect("a row id"))).collect();
    let different: std::collections::BTreeSet<i64> = ids.values().copied().collect();
    assert_eq!((ids.len(), different.len()), (rows.len(), rows.len()), "each row has an id of its own");
    assert!(rows.iter().all(|row| row["updated"].as_i64() > Some(0)), "{rows:?}");
    let next = scene.metadata()["next-row-id"].as_i64().unwrap();
    assert!(ids.values().all(|id| *id < next), "{next} is not above {ids:?}");
    ids
}

#[test]
fn a_table_of_format_version_3_keeps_every_rows_id_whoever_made_it_so() {
    let table = "local.bronze.events";
    for keys in ["properties = { \"format-version\" = \"3\" }\n", ""] {
        let mut scene = Scene::on_rest(keys);
        if keys.is_empty() {
            assert_eq!(scene.metadata()["format-version"], 2, "the default");
            scene.step("delete, merge-on-read");
            scene.sql(&format!("ALTER TABLE {table} SET TBLPROPERTIES ('format-version' = '3')"));
            scene.produce(10);
            scene.settle();
        }
        assert_eq!(scene.metadata()["format-version"], 3);
        // Enough commits for manifests to be merged.
        for _ in 0..17 {
            scene.produce(6);
            scene.settle();
        }
        let before = row_ids(&mut scene);
        for step in [
            "delete, merge-on-read",
            "update, merge-on-read",
            "delete, copy-on-write",
            "rewrite data files",
            "delete, merge-on-read",
        ] {
            scene.step(step);
            scene.produce(6);
            scene.check(&["spark"], step);
        }
        for _ in 0..17 {
            scene.produce(6);
            scene.settle();
        }
        let after = row_ids(&mut scene);
        let moved: Vec<_> =
            after.iter().filter(|(id, row)| before.get(*id).is_some_and(|before| before != *row)).collect();
        assert!(moved.is_empty(), "{moved:?} had other ids");
        scene.check(&["spark"], "all steps");

        // calve reads deletion vectors too.
        let (code, out, errors) = scene.project.calve(&["verify", "--accept-deletes", "bronze.events"]);
        assert_eq!(code, 0, "{out}{errors}");
        let (code, out, errors) =
            scene.project.calve(&["query", "--format", "csv", "SELECT count(*) AS n FROM bronze.events"]);
        assert_eq!((code, out), (0, format!("n\n{}\n", scene.model.events.len())), "{errors}");
        let metadata = scene.metadata();
        let last = metadata["last-sequence-number"].as_i64().unwrap();
        for snapshot in metadata["snapshots"].as_array().unwrap() {
            if snapshot["sequence-number"].as_i64() > Some(last - 15) {
                assert!(snapshot["first-row-id"].is_i64() && snapshot["added-rows"].is_i64(), "{snapshot}");
            }
        }
        assert_eq!(scene.daemon.terminate(), 0);
    }
}
