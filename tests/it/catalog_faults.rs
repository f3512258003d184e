//! What a catalog says when its answers get lost, late or replaced: never that a commit failed which may have been
//! applied, and never a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calve::catalog::{self, Catalog, Error};
use calve::config::CatalogKind;
use iceberg::TableIdent;
use iceberg::table::Table;

use crate::support::parts::Part;
use crate::support::proxy::{Fault, Proxy};
use crate::support::tables::{append, commit_ids, configured, creation, fresh_table, glue_properties, namespace};

/// What a fault must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// "Unknown", and the commit was applied.
    UnknownApplied,
    /// "Unknown", and the commit was not applied.
    UnknownNot,
}

/// Commits under the fault, checks what the catalog said against what the table shows, then commits in peace.
/// `asking` sends the commit that meets the fault, `catalog` everything else.
async fn under_fault(
    catalog: &dyn Catalog,
    asking: &dyn Catalog,
    table: Table,
    id: &str,
    arm: impl FnOnce(),
    expected: Outcome,
) -> Table {
    let (requirements, updates) = append(&table, id).await;
    arm();
    let said = asking.commit(&table, requirements, updates).await;
    let mut now = catalog.load(table.identifier()).await.unwrap();
    // A server whose client gave up may still be at it.
    for _ in 0..300 {
        if expected != Outcome::UnknownApplied || commit_ids(&now).iter().any(|known| known == id) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        now = catalog.load(table.identifier()).await.unwrap();
    }
    let applied = commit_ids(&now).iter().any(|known| known == id);
    match expected {
        Outcome::Done => assert!(said.is_ok() && applied, "{id}: {said:?}"),
        Outcome::UnknownApplied => assert!(matches!(said, Err(Error::Unknown(_))) && applied, "{id}: {said:?}"),
        Outcome::UnknownNot => assert!(matches!(said, Err(Error::Unknown(_))) && !applied, "{id}: {said:?}"),
    }
    let (requirements, updates) = append(&now, &format!("{id}, then in peace")).await;
    catalog.commit(&now, requirements, updates).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_behind_a_bad_network() {
    let rest = Part::start("rest", &[]);
    let proxy = Proxy::start(&rest.address).await;
    let uri = proxy.url(&rest.address);
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &uri)])).await.unwrap();
    // One that does not wait long, for answers that never come.
    let hasty = [("uri", uri.as_str()), ("rest.client.socket-timeout-ms", "2000")];
    let hasty = catalog::open(&configured("rest", CatalogKind::Rest, &hasty)).await.unwrap();
    let bronze = namespace(&["bronze"]);
    catalog.create_namespace(&bronze).await.unwrap();
    let mut table = fresh_table(catalog.as_ref(), &bronze, "t").await;
    let mut faults = vec![
        (Fault::Reset, Outcome::UnknownNot),
        (Fault::LoseAnswer, Outcome::UnknownApplied),
        (Fault::Stall, Outcome::UnknownApplied),
        (Fault::Delay(Duration::from_millis(500)), Outcome::Done),
    ];
    for status in [429, 500, 502, 503, 504] {
        faults.push((Fault::Refuse(status), Outcome::UnknownNot));
        faults.push((Fault::Garble(status), Outcome::UnknownApplied));
    }
    // An answer that makes no sense is no answer.
    faults.push((Fault::Garble(200), Outcome::UnknownApplied));
    for (fault, expected) in faults {
        let arm = || proxy.arm("POST /v1/namespaces/bronze/tables/t ", fault, 1);
        let asking = if fault == Fault::Stall { &hasty } else { &catalog };
        let id = format!("{fault:?}");
        table = under_fault(catalog.as_ref(), asking.as_ref(), table, &id, arm, expected).await;
        assert!(proxy.spent());
    }
    // A refusal is one, and changes nothing.
    for (status, is_expected) in [
        (400, (|error| matches!(error, Error::Refused(_))) as fn(&Error) -> bool),
        (403, |error| matches!(error, Error::Refused(_))),
        (404, |error| matches!(error, Error::NotFound(_))),
        (409, |error| matches!(error, Error::Conflict(_))),
    ] {
        proxy.arm("POST /v1/namespaces/bronze/tables/t ", Fault::Refuse(status), 1);
        let (requirements, updates) = append(&table, "refused").await;
        let error = catalog.commit(&table, requirements, updates).await.unwrap_err();
        assert!(is_expected(&error), "{status}: {error:?}");
    }
    // An ingress that has no backend, not the catalog: what it says of tables is nothing.
    for status in [400, 403, 404, 409] {
        let page = Fault::Say(status, "<html><title>default backend</title></html>");
        proxy.arm("POST /v1/namespaces/bronze/tables/t ", page, 1);
        let (requirements, updates) = append(&table, "page").await;
        let error = catalog.commit(&table, requirements, updates).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{status}: {error:?}");
        proxy.arm("GET /v1/namespaces/bronze/tables/t ", page, 1);
        let error = catalog.load(table.identifier()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{status}: {error:?}");
    }
    // Reads may be repeated, so all of this is "unavailable".
    for fault in [Fault::Reset, Fault::LoseAnswer, Fault::Refuse(429), Fault::Refuse(503), Fault::Garble(500)] {
        proxy.arm("GET /v1/namespaces/bronze/tables/t ", fault, 1);
        let error = catalog.load(table.identifier()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{fault:?}: {error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let loaded = catalog.load(table.identifier()).await.unwrap();
    assert_eq!(loaded.metadata().current_snapshot_id(), table.metadata().current_snapshot_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glue_behind_a_bad_network() {
    let glue = Part::start("glue", &[]);
    let proxy = Proxy::start(&glue.address).await;
    let folder = tempfile::tempdir().unwrap();
    let mut properties = glue_properties(&proxy.url(&glue.address));
    properties.push(("warehouse", folder.path().display().to_string()));
    let properties: Vec<_> = properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let catalog = catalog::open(&configured("glue", CatalogKind::Glue, &properties)).await.unwrap();
    let bronze = namespace(&["bronze"]);
    catalog.create_namespace(&bronze).await.unwrap();
    let mut table = fresh_table(catalog.as_ref(), &bronze, "t").await;
    let mut faults = vec![
        (Fault::Reset, Outcome::UnknownNot),
        (Fault::LoseAnswer, Outcome::UnknownApplied),
        (Fault::Delay(Duration::from_millis(500)), Outcome::Done),
        (Fault::Garble(200), Outcome::UnknownApplied),
    ];
    // Statuses of gateways: Glue's own words come with the name of a refusal.
    for status in [429, 500, 503] {
        faults.push((Fault::Refuse(status), Outcome::UnknownNot));
        faults.push((Fault::Garble(status), Outcome::UnknownApplied));
    }
    for (fault, expected) in faults {
        let arm = || proxy.arm("AWSGlue.UpdateTable", fault, 1);
        table = under_fault(&*catalog, &*catalog, table, &format!("{fault:?}"), arm, expected).await;
        assert!(proxy.spent());
    }
    for fault in [Fault::Reset, Fault::LoseAnswer, Fault::Refuse(429), Fault::Refuse(503), Fault::Garble(500)] {
        proxy.arm("AWSGlue.GetTable", fault, 1);
        let error = catalog.load(table.identifier()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{fault:?}: {error:?}");
        // A commit that did not get as far as its update changed nothing.
        proxy.arm("AWSGlue.GetTable", fault, 1);
        let (requirements, updates) = append(&table, "not sent").await;
        let error = catalog.commit(&table, requirements, updates).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{fault:?}: {error:?}");
    }
    // Making a table whose answer is lost may have made it.
    proxy.arm("AWSGlue.CreateTable", Fault::LoseAnswer, 1);
    let ident = TableIdent::new(bronze.clone(), "made".to_owned());
    let lost = catalog.create(&ident, creation()).await;
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    assert!(catalog.load(&ident).await.is_ok());
    let loaded = catalog.load(table.identifier()).await.unwrap();
    assert_eq!(loaded.metadata().current_snapshot_id(), table.metadata().current_snapshot_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_that_fails_by_itself() {
    let rest = Part::start("rest", &[]);
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &rest.address)])).await.unwrap();
    let bronze = namespace(&["bronze"]);
    catalog.create_namespace(&bronze).await.unwrap();
    let mut table = fresh_table(catalog.as_ref(), &bronze, "t").await;
    let http = reqwest::Client::new();
    for status in [0, 500, 503] {
        for (when, expected) in [("before", Outcome::UnknownNot), ("after", Outcome::UnknownApplied)] {
            let url = format!("{}/_fault?when={when}&status={status}&times=1", rest.address);
            assert!(http.post(url).send().await.unwrap().status().is_success());
            table = under_fault(&*catalog, &*catalog, table, &format!("{status} {when}"), || (), expected).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behind_a_bad_network() {
    let postgres = Part::start("postgres", &[]);
    let proxy = Proxy::start(&postgres.address).await;
    let folder = tempfile::tempdir().unwrap();
    let (uri, warehouse) = (proxy.url(&postgres.address), folder.path().display().to_string());
    let config = configured("lake", CatalogKind::Sql, &[("uri", &uri), ("warehouse", &warehouse)]);
    let catalog = catalog::open(&config).await.unwrap();
    let bronze = namespace(&["bronze"]);
    catalog.create_namespace(&bronze).await.unwrap();
    let mut table = fresh_table(catalog.as_ref(), &bronze, "t").await;
    for round in 0..3 {
        for (fault, expected) in [
            (Fault::Reset, Outcome::UnknownNot),
            (Fault::LoseAnswer, Outcome::UnknownApplied),
            (Fault::Delay(Duration::from_millis(300)), Outcome::Done),
        ] {
            // Only the commit's parameters hold a metadata file's name.
            let arm = || proxy.arm(".metadata.json", fault, 1);
            table = under_fault(&*catalog, &*catalog, table, &format!("{fault:?} {round}"), arm, expected).await;
            assert!(proxy.spent());
        }
    }
    // While the database is away: unavailable, within a bounded time, and back when it is back.
    let address = proxy.address;
    drop(proxy);
    let (requirements, updates) = append(&table, "away").await;
    let asked = Instant::now();
    let error = catalog.commit(&table, requirements, updates).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_) | Error::Unknown(_)), "{error:?}");
    let error = catalog.load(table.identifier()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(asked.elapsed() < Duration::from_secs(60));
    let error = catalog::open(&config).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{address}: {error:?}");
}

#[tokio::test]
async fn sqlite_locked_by_another_process_waits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.db");
    let uri = format!("sqlite:///{}", file.display());
    let config =
        configured("local", CatalogKind::Sql, &[("uri", &uri), ("warehouse", folder.path().to_str().unwrap())]);
    let catalog = catalog::open(&config).await.unwrap();
    let bronze = namespace(&["bronze"]);
    catalog.create_namespace(&bronze).await.unwrap();
    let table = fresh_table(catalog.as_ref(), &bronze, "t").await;
    sqlx::any::install_default_drivers();
    let mut other =
        <sqlx::AnyConnection as sqlx::Connection>::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let unlock = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    });
    let (requirements, updates) = append(&table, "patient").await;
    let after = catalog.commit(&table, requirements, updates).await.unwrap();
    assert_eq!(commit_ids(&after), ["patient"]);
    unlock.await.unwrap();
}

#[tokio::test]
async fn a_bearer_token_opens_and_is_never_shown() {
    const TOKEN: &str = "planted-secret-7f3a";
    let rest = Part::start("rest", &[&format!("token={TOKEN}")]);
    let open = |token: &str, header: &str| {
        let properties = [("uri", rest.address.as_str()), ("token", token), ("header.X-Tenant", header)];
        configured("rest", CatalogKind::Rest, &properties)
    };
    let catalog = catalog::open(&open(TOKEN, "tenant")).await.unwrap();
    catalog.create_namespace(&namespace(&["bronze"])).await.unwrap();
    assert!(!format!("{catalog:?}").contains(TOKEN));
    // This server echoes what it was given.
    let wrong = "wrong-but-just-as-secret";
    let error = catalog::open(&open(wrong, "tenant")).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("401") && !error.to_string().contains(wrong), "{error}");
    // What cannot be a header is refused without showing it.
    let error = catalog::open(&open("line\nbreak-secret", "tenant")).await.unwrap_err();
    assert!(!error.to_string().contains("break-secret"), "{error}");
}

#[tokio::test]
async fn configurations_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().to_str().unwrap();
    let opened = |kind, properties: Vec<(&'static str, String)>| async move {
        let properties: Vec<_> = properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let result: Result<Arc<dyn Catalog>, Error> = catalog::open(&configured("c", kind, &properties)).await;
        result.unwrap_err()
    };
    let refused = |error: &Error, words: &str| {
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(words), "{error:?}");
    };
    let uri = || ("uri", format!("sqlite:///{warehouse}/c.db"));
    refused(&opened(CatalogKind::Sql, vec![uri()]).await, "property warehouse is missing");
    refused(&opened(CatalogKind::Sql, vec![("warehouse", warehouse.to_owned())]).await, "property uri is missing");
    let mysql = vec![("uri", "mysql://u:hush@h/d".to_owned()), ("warehouse", warehouse.to_owned())];
    let error = opened(CatalogKind::Sql, mysql).await;
    refused(&error, "neither sqlite");
    assert!(!error.to_string().contains("hush"));
    let odd = vec![uri(), ("warehouse", warehouse.to_owned()), ("calve.trust-mirror", "perhaps".to_owned())];
    refused(&opened(CatalogKind::Sql, odd).await, "calve.trust-mirror");
    let here = || vec![("glue.region", "us-east-1".to_owned()), ("glue.endpoint", "nonsense".to_owned())];
    refused(&opened(CatalogKind::Glue, here()).await, "glue.endpoint is no address");
    // Nobody listens on port 1.
    let error = opened(CatalogKind::Rest, vec![("uri", "http://127.0.0.1:1".to_owned())]).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}
