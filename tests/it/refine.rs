//! Refinements in mode append: the target is what the SQL gives over all rows of the source, each exactly once, whatever
//! happens in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use calve::config::TableName;
use calve::refine::run::{Outcome, Runner};
use calve::refine::schedule::Ran;
use calve::refine::{Graph, Model, Refinements};
use fail::FailScenario;
use iceberg::spec::{ListType, NestedField, NestedFieldRef, Operation, PrimitiveType, StructType, Type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::support::lake::{Lake, ident};

/// Failpoints are the process's; tests that set or meet them take turns.
static FAILPOINTS: Mutex<()> = Mutex::const_new(());

async fn no_failpoints() -> MutexGuard<'static, ()> {
    FAILPOINTS.lock().await
}

fn field(id: i32, name: &str, of: Type) -> NestedFieldRef {
    NestedField::optional(id, name, of).into()
}

fn primitive(id: i32, name: &str, of: PrimitiveType) -> NestedFieldRef {
    field(id, name, Type::Primitive(of))
}

fn orders() -> Vec<NestedFieldRef> {
    let line = StructType::new(vec![primitive(5, "sku", PrimitiveType::String), primitive(6, "n", PrimitiveType::Int)]);
    let lines = ListType::new(field(4, "element", Type::Struct(line)));
    vec![
        primitive(1, "id", PrimitiveType::Long),
        primitive(2, "status", PrimitiveType::String),
        field(3, "lines", Type::List(lines)),
    ]
}

const LINES: &str = "SELECT id, status, line.sku AS sku, line.n * 2 AS n, line.n AS __n \
                     FROM (SELECT *, unnest(lines) AS line FROM bronze.orders) WHERE status <> 'void'";

fn model(target: &str, sql: &str) -> Model {
    with_front("", target, sql)
}

fn with_front(front: &str, target: &str, sql: &str) -> Model {
    let file = format!("sql/{}.sql", target.replace('.', "/"));
    Model::parse(&file, &format!("/*---\nmode: append\n{front}\n---*/\n{sql}")).unwrap()
}

fn order(id: u64, status: &str, lines: usize) -> String {
    let lines: Vec<String> = (0..lines).map(|n| format!("{{\"sku\":\"s{n}\",\"n\":{n}}}")).collect();
    format!("{{\"id\":{id},\"status\":\"{status}\",\"lines\":[{}]}}\n", lines.join(","))
}

async fn run(lake: &Lake, model: &Model) -> Outcome {
    Runner::new(lake.engine.clone()).run(model, &CancellationToken::new()).await.unwrap()
}

async fn refused(lake: &Lake, model: &Model) -> String {
    let error = Runner::new(lake.engine.clone()).run(model, &CancellationToken::new()).await.unwrap_err();
    assert!(!error.is_retry(), "{error}");
    error.to_string()
}

/// The project at the root of this repository, and its topics' columns.
fn example() -> (calve::config::Project, BTreeMap<TableName, SchemaRef>) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("calve.toml");
    let project = calve::config::load(&config).unwrap();
    let mut planner = calve::cli::plan::Planner::default();
    let topics = project.topics.values().map(|topic| {
        let planned = planner.plan(&config, topic).unwrap();
        (topic.table.clone(), calve::query::arrow_schema(&planned.mapping.iceberg).unwrap())
    });
    let known = topics.collect();
    (project, known)
}

#[tokio::test]
async fn the_examples_models_fit_its_messages_and_a_wrong_column_is_found_offline() {
    let (project, known) = example();
    let refinements = Refinements::load(&project).unwrap();
    assert!(refinements.graph().models().iter().any(|model| model.target.to_string() == "silver.order_lines"));
    refinements.check(&known).await.unwrap();

    let models = vec![
        model("silver.typo", "SELECT order_idd FROM bronze.orders"),
        with_front("partition_by: [day(order_id)]", "silver.spec", "SELECT order_id FROM bronze.orders"),
        model("silver.sum", "SELECT count(*) AS n FROM bronze.orders"),
        model("gold.below", "SELECT sku FROM silver.lines WHERE nowhere = 1"),
        model("silver.lines", "SELECT order_id, line.sku FROM (SELECT *, unnest(lines) AS line FROM bronze.orders)"),
        model("silver.foreign", "SELECT anything FROM elsewhere.table"),
    ];
    let runner = refinements.runner().clone();
    let faults = Refinements::new(Graph::new(models).unwrap(), runner).check(&known).await.unwrap_err().to_string();
    for says in [
        "sql/silver/typo.sql:5: ",
        "order_idd",
        "sql/silver/spec.sql:5: ",
        "sql/silver/sum.sql:5: the SQL aggregates",
        "sql/gold/below.sql:5: ",
        "nowhere",
    ] {
        assert!(faults.contains(says), "{says} is not in\n{faults}");
    }
    assert_eq!(faults.lines().count(), 4, "{faults}");
}

#[tokio::test]
async fn new_rows_are_added_once_and_nothing_new_is_no_commit() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let model = with_front("partition_by: [status]", "silver.lines", LINES);

    assert_eq!(run(&lake, &model).await, Outcome::UpToDate, "a source without rows makes an empty target");
    assert_eq!(lake.rows("SELECT * FROM silver.lines").await, Vec::<String>::new());

    lake.append("bronze.orders", &(order(1, "open", 2) + &order(2, "void", 1) + &order(3, "paid", 0))).await;
    let Outcome::Committed { rows_in, rows_out, more, .. } = run(&lake, &model).await else { panic!("rows are new") };
    assert_eq!((rows_in, rows_out, more), (3, 2, false));
    assert_eq!(run(&lake, &model).await, Outcome::UpToDate);

    lake.append("bronze.orders", &order(4, "paid", 1)).await;
    run(&lake, &model).await;
    assert_eq!(lake.rows("SELECT * FROM silver.lines").await, ["1|open|s0|0", "1|open|s1|2", "4|paid|s0|0"]);

    let target = lake.table("silver.lines").await;
    assert_eq!(target.metadata().default_partition_spec().fields()[0].name, "status");
    let summary = &target.metadata().current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["calve.refine.model"], "silver.lines");
    assert_eq!(summary["calve.refine.mode"], "append");
    assert_eq!((summary["calve.refine.rows-in"].as_str(), summary["calve.refine.rows-out"].as_str()), ("1", "1"));
    assert_eq!(summary["calve.refine.hash"], model.hash);
    let source = lake.table("bronze.orders").await;
    let state: serde_json::Value = serde_json::from_str(&summary["refresh-state"]).unwrap();
    assert_eq!(state["source-states"][0]["snapshot-id"], source.metadata().current_snapshot_id().unwrap());
    assert_eq!(state["source-states"][0]["uuid"], source.metadata().uuid().to_string());
    let mirror: serde_json::Value =
        serde_json::from_str(&target.metadata().properties()["calve.refine.state"]).unwrap();
    assert_eq!(mirror["snapshot-id"], target.metadata().current_snapshot_id().unwrap().to_string());
    assert_eq!(mirror["refresh-state"], state);
}

/// Random commits, strangers' compactions, rollbacks of the target and runs that die anywhere: after a last run the
/// target is what the SQL gives over the whole source.
#[tokio::test]
async fn incremental_equals_full_whatever_happens() {
    let _turn = no_failpoints().await;
    for seed in [1, 2, 3, 4, 5, 6].map(|seed: u64| seed + 20_261_122) {
        println!("seed {seed}");
        let scenario = FailScenario::setup();
        let mut random = StdRng::seed_from_u64(seed);
        let lake = Lake::new().await;
        lake.create("bronze.orders", orders()).await;
        let model = model("silver.lines", LINES);
        let (mut next_id, mut kills) = (0, 0);
        for step in 0..30 {
            match random.random_range(0..10) {
                0..=3 => {
                    let mut rows = String::new();
                    for _ in 0..random.random_range(1..20) {
                        let status = ["open", "void", "paid"][random.random_range(0..3)];
                        rows += &order(next_id, status, random.random_range(0..4));
                        next_id += 1;
                    }
                    lake.append("bronze.orders", &rows).await;
                }
                4 => {
                    lake.compact("bronze.orders").await;
                }
                5 if lake.catalog.load(&ident("silver.lines")).await.is_ok() => {
                    lake.compact("silver.lines").await;
                }
                6 => roll_back_target(&lake, &mut random).await,
                7 | 8 => {
                    let points = ["writing", "written", "before_commit", "after_commit"];
                    let point = format!("refine::{}", points[random.random_range(0..points.len())]);
                    fail::cfg(&point, "return").unwrap();
                    let runner = Runner::new(lake.engine.clone());
                    if runner.run(&model, &CancellationToken::new()).await.is_err() {
                        kills += 1;
                    }
                    fail::remove(&point);
                }
                _ => {
                    run_in_chunks(&lake, &model).await;
                }
            }
            if step % 10 == 9 {
                run_in_chunks(&lake, &model).await;
                let full = lake.rows(&LINES.replace(", line.n AS __n", "")).await;
                assert_eq!(lake.rows("SELECT * FROM silver.lines").await, full, "seed {seed} step {step}");
            }
        }
        println!("seed {seed}: {next_id} orders, {kills} kills");
        scenario.teardown();
    }
}

/// Runs until there is nothing more, every commit a small piece of the delta.
async fn run_in_chunks(lake: &Lake, model: &Model) -> usize {
    let runner = Runner::new(lake.engine.clone()).with_delta_bytes_max(1);
    let mut commits = 0;
    while let Outcome::Committed { more, .. } = runner.run(model, &CancellationToken::new()).await.unwrap() {
        commits += 1;
        if !more {
            break;
        }
    }
    commits
}

async fn roll_back_target(lake: &Lake, random: &mut StdRng) {
    let Ok(target) = lake.catalog.load(&ident("silver.lines")).await else { return };
    let mut line = vec![];
    let mut next = target.metadata().current_snapshot_id();
    while let Some(snapshot) = next.and_then(|id| target.metadata().snapshot_by_id(id)) {
        line.push(snapshot.snapshot_id());
        next = snapshot.parent_snapshot_id();
    }
    if !line.is_empty() {
        lake.roll_back("silver.lines", line[random.random_range(0..line.len())]).await;
    }
}

#[tokio::test]
async fn two_runners_at_once_add_every_row_once() {
    let _turn = no_failpoints().await;
    let lake = Arc::new(Lake::new().await);
    lake.create("bronze.orders", orders()).await;
    let model = Arc::new(model("silver.lines", LINES));
    for round in 0..5 {
        lake.append("bronze.orders", &order(round, "open", 3)).await;
        let runs = (0..3).map(|_| {
            let (lake, model) = (lake.clone(), model.clone());
            tokio::spawn(async move { run(&lake, &model).await })
        });
        let outcomes = futures::future::join_all(runs).await;
        let committed = outcomes.iter().filter(|run| matches!(run, Ok(Outcome::Committed { .. }))).count();
        assert_eq!(committed, 1, "{outcomes:?}");
    }
    assert_eq!(lake.rows("SELECT count(*), count(DISTINCT id) FROM silver.lines").await, ["15|5"]);
}

#[tokio::test]
async fn a_source_that_is_not_what_it_was_stops_the_model() {
    let _turn = no_failpoints().await;
    let model = model("silver.lines", LINES);
    let filled = || async {
        let lake = Lake::new().await;
        lake.create("bronze.orders", orders()).await;
        let first = lake.append("bronze.orders", &order(1, "open", 1)).await;
        run(&lake, &model).await;
        (lake, first)
    };

    let (lake, _) = filled().await;
    lake.catalog.drop_table(&ident("bronze.orders")).await.unwrap();
    lake.create("bronze.orders", orders()).await;
    lake.append("bronze.orders", &order(1, "open", 1)).await;
    let error = refused(&lake, &model).await;
    assert!(error.contains("bronze.orders was dropped and created again"), "{error}");

    let (lake, first) = filled().await;
    lake.append("bronze.orders", &order(2, "open", 1)).await;
    run(&lake, &model).await;
    lake.roll_back("bronze.orders", first).await;
    lake.append("bronze.orders", &order(3, "open", 1)).await;
    let error = refused(&lake, &model).await;
    assert!(error.contains("rolled back"), "{error}");

    let (lake, first) = filled().await;
    lake.append("bronze.orders", &order(2, "open", 1)).await;
    lake.append("bronze.orders", &order(3, "open", 1)).await;
    lake.expire("bronze.orders", vec![first]).await;
    run(&lake, &model).await;
    assert_eq!(
        lake.rows("SELECT id FROM silver.lines").await,
        ["1", "2", "3"],
        "the watermark itself may expire, as long as everything after it is there"
    );
    lake.append("bronze.orders", &order(4, "open", 1)).await;
    lake.append("bronze.orders", &order(5, "open", 1)).await;
    let source = lake.table("bronze.orders").await;
    let head = source.metadata().current_snapshot_id();
    let old = source.metadata().snapshots().map(|snapshot| snapshot.snapshot_id()).filter(|id| Some(*id) != head);
    lake.expire("bronze.orders", old.collect()).await;
    let error = refused(&lake, &model).await;
    assert!(error.contains("expired past snapshot"), "{error}");
}

#[tokio::test]
async fn overwritten_sources_stop_the_model_or_are_ignored_as_told() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let strict = model("silver.lines", LINES);
    let lax = with_front("sources: { bronze.orders: { on_overwrite: ignore } }", "silver.lax", LINES);
    lake.append("bronze.orders", &order(1, "open", 1)).await;
    run(&lake, &strict).await;
    run(&lake, &lax).await;
    lake.publish("bronze.orders", Operation::Overwrite, vec![]).await;
    lake.append("bronze.orders", &order(2, "open", 1)).await;
    let error = refused(&lake, &strict).await;
    assert!(error.contains("changed or deleted rows (overwrite)") && error.contains("on_overwrite: ignore"), "{error}");
    run(&lake, &lax).await;
    assert_eq!(lake.rows("SELECT id FROM silver.lax").await, ["1", "2"]);
}

#[tokio::test]
async fn a_target_that_something_else_filled_is_left_alone() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    lake.append("bronze.orders", &order(1, "open", 1)).await;
    lake.create("silver.lines", orders()).await;
    lake.append("silver.lines", &order(9, "open", 1)).await;
    let error = refused(&lake, &model("silver.lines", LINES)).await;
    assert!(error.contains("something else filled it"), "{error}");
}

#[tokio::test]
async fn the_state_survives_strangers_who_expire_the_targets_history() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let model = model("silver.lines", LINES);
    lake.append("bronze.orders", &order(1, "open", 1)).await;
    let Outcome::Committed { snapshot_id, .. } = run(&lake, &model).await else { panic!("rows are new") };
    lake.compact("silver.lines").await;
    lake.expire("silver.lines", vec![snapshot_id]).await;
    lake.append("bronze.orders", &order(2, "open", 1)).await;
    run(&lake, &model).await;
    assert_eq!(lake.rows("SELECT id FROM silver.lines").await, ["1", "2"]);
}

#[tokio::test]
async fn a_changed_query_adds_columns_and_changes_no_type() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    lake.append("bronze.orders", &order(1, "open", 1)).await;
    run(&lake, &model("silver.o", "SELECT id, status FROM bronze.orders")).await;
    lake.append("bronze.orders", &order(2, "open", 2)).await;
    run(&lake, &model("silver.o", "SELECT cardinality(lines) AS n, id FROM bronze.orders")).await;
    assert_eq!(lake.rows("SELECT id, status, n FROM silver.o").await, ["1|open|null", "2|null|2"]);
    lake.append("bronze.orders", &order(3, "open", 2)).await;
    let error = refused(&lake, &model("silver.o", "SELECT CAST(id AS VARCHAR) AS id FROM bronze.orders")).await;
    assert!(error.contains("the column id is long in the table and string in the query"), "{error}");
    let error = refused(&lake, &model("silver.o", "SELECT count(*) AS id FROM bronze.orders")).await;
    assert!(error.contains("sql/silver/o.sql:5: the SQL aggregates"), "{error}");
}

#[tokio::test]
async fn other_sources_are_read_whole_as_of_the_run() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let status = vec![primitive(1, "status", PrimitiveType::String), primitive(2, "label", PrimitiveType::String)];
    lake.create("ref.status", status).await;
    lake.append("ref.status", "{\"status\":\"open\",\"label\":\"Open!\"}\n").await;
    let model = with_front(
        "sources: { ref.status: { read: snapshot } }",
        "silver.named",
        "SELECT o.id, s.label FROM bronze.orders o LEFT JOIN ref.status s ON o.status = s.status",
    );
    lake.append("bronze.orders", &(order(1, "open", 0) + &order(2, "paid", 0))).await;
    run(&lake, &model).await;
    lake.append("ref.status", "{\"status\":\"paid\",\"label\":\"Paid!\"}\n").await;
    assert_eq!(run(&lake, &model).await, Outcome::UpToDate, "no order is new");
    lake.append("bronze.orders", &order(3, "paid", 0)).await;
    run(&lake, &model).await;
    assert_eq!(lake.rows("SELECT * FROM silver.named").await, ["1|Open!", "2|null", "3|Paid!"]);
}

#[tokio::test]
async fn a_chain_runs_in_order_and_a_failure_holds_what_is_below_it() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let models = vec![
        model("gold.skus", "SELECT sku, n FROM silver.lines"),
        model("silver.lines", LINES),
        model("silver.bad", "SELECT 1 / (id - id) AS x FROM bronze.orders"),
        model("gold.worse", "SELECT x FROM silver.bad"),
    ];
    let refinements = Refinements::new(Graph::new(models).unwrap(), Runner::new(lake.engine.clone()));
    lake.append("bronze.orders", &order(1, "open", 2)).await;
    let bronze = calve::config::TableName { namespace: vec!["bronze".into()], name: "orders".into() };
    let reports = refinements.run_downstream(&bronze, &CancellationToken::new()).await;
    let of = |target: &str| reports.iter().find(|report| report.target == target).unwrap().result.clone();
    assert_eq!(of("silver.lines"), Ran::Committed { commits: 1, rows_in: 1, rows_out: 2 });
    assert_eq!(of("gold.skus"), Ran::Committed { commits: 1, rows_in: 2, rows_out: 2 });
    assert!(matches!(of("silver.bad"), Ran::Failed { error } if error.contains("Divide by zero")), "{reports:?}");
    assert_eq!(of("gold.worse"), Ran::Held { by: "silver.bad".to_owned() });
    let source = lake.table("bronze.orders").await;
    let watermarks = refinements.watermarks(&bronze).await;
    assert_eq!(watermarks.into_iter().collect::<Vec<_>>(), [source.metadata().current_snapshot_id().unwrap()]);
}

#[tokio::test]
async fn the_scheduler_follows_commits_until_it_is_stopped() {
    let _turn = no_failpoints().await;
    let lake = Lake::new().await;
    lake.create("bronze.orders", orders()).await;
    let models = vec![model("silver.lines", LINES), model("gold.skus", "SELECT sku, n FROM silver.lines")];
    let refinements = Refinements::new(Graph::new(models).unwrap(), Runner::new(lake.engine.clone()));
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (refinements, stop) = (refinements.clone(), stop.clone());
        async move { refinements.serve(stop).await }
    });
    let bronze = calve::config::TableName { namespace: vec!["bronze".into()], name: "orders".into() };
    for id in 0..4 {
        lake.append("bronze.orders", &order(id, "open", 1)).await;
        refinements.on_commit(&bronze);
    }
    let arrived = async {
        while lake.catalog.load(&ident("gold.skus")).await.is_err()
            || lake.rows("SELECT * FROM gold.skus").await.len() < 4
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("all rows arrive downstream");
    assert_eq!(lake.rows("SELECT * FROM gold.skus").await, ["s0|0"; 4]);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), serving).await.expect("it stops").unwrap();
    assert!(refinements.status().iter().all(|status| status.state == "idle"), "{:?}", refinements.status());
}
