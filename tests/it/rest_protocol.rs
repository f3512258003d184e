//! The corners of the REST protocol that Iceberg's own test server does not show: a prefix, overrides, pages, what is
//! not offered, idempotency, redirects.

use axum::response::Response;
use calve::catalog::{self, Error};
use calve::config::CatalogKind;
use serde_json::{Value, json};

use crate::support::http::{Asked, Fake, empty, json as answer};
use crate::support::tables::{append_manifests, configured, creation, namespace};

/// A table's answer, as little of it as there must be.
pub fn table(location: &str) -> Value {
    json!({
        "metadata-location": format!("{location}/metadata/00000-x.metadata.json"),
        "metadata": {
            "format-version": 2, "table-uuid": "6b9c7a52-8d4c-4f57-9d2b-0a2b6f1f3c11", "location": location,
            "last-sequence-number": 0, "last-updated-ms": 1_795_000_000_000_u64, "last-column-id": 1,
            "current-schema-id": 0,
            "schemas": [{ "type": "struct", "schema-id": 0, "fields": [
                { "id": 1, "name": "id", "required": false, "type": "long" }] }],
            "default-spec-id": 0, "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
            "default-sort-order-id": 0, "sort-orders": [{ "order-id": 0, "fields": [] }],
        },
    })
}

/// Top-level namespaces on two pages, one of them with a child, whose tables are on two pages.
fn listings(asked: &Asked) -> Response {
    let (_, path) = asked.line.split_once("/tenants/one").unwrap_or_default();
    let named = |name: &str| json!({ "namespace": ["a", "deep"], "name": name });
    let (path, page) = path.split_once("pageToken=").unwrap_or((path, ""));
    let page = page.split('&').next().unwrap();
    answer(
        200,
        match (path.trim_end_matches(['?', '&']), page) {
            ("/namespaces", "") => json!({ "namespaces": [["a"]], "next-page-token": "2/x" }),
            ("/namespaces", "2%2Fx") => json!({ "namespaces": [["b"]], "next-page-token": null }),
            ("/namespaces?parent=a", "") => json!({ "namespaces": [["a", "deep"]] }),
            ("/namespaces/a%2Fdeep/tables", "") => {
                json!({ "identifiers": [named("t3"), named("t1")], "next-page-token": "more" })
            }
            ("/namespaces/a%2Fdeep/tables", "more") => json!({ "identifiers": [named("t2")] }),
            (path, _) if path.starts_with("/namespaces?parent=") => json!({ "namespaces": [] }),
            _ => json!({
                "defaults": { "header.X-Default": "theirs", "header.X-Tenant": "two", "s3.region": "eu-central-1" },
                "overrides": { "prefix": "tenants/one", "namespace-separator": "%2F", "header.X-Over": "theirs" },
                "idempotency-key-lifetime": "PT30M",
            }),
        },
    )
}

#[tokio::test]
async fn servers_configure_their_clients() {
    let fake = Fake::start(listings).await;
    let address = format!("{}/catalog/", fake.url());
    let properties = [
        ("uri", address.as_str()),
        ("warehouse", "s3://lake/w h"),
        ("prefix", "ours"),
        ("token", "bearer-secret"),
        ("header.X-Tenant", "one"),
        ("header.X-Over", "ours"),
    ];
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &properties)).await.unwrap();
    let (a, deep, b) = (namespace(&["a"]), namespace(&["a", "deep"]), namespace(&["b"]));
    assert_eq!(catalog.namespaces().await.unwrap(), [a, deep.clone(), b]);
    let names: Vec<_> = catalog.tables(&deep).await.unwrap().into_iter().map(|ident| ident.name).collect();
    assert_eq!(names, ["t1", "t2", "t3"]);
    let lines: Vec<_> = fake.lines().iter().map(|line| line.replace("/catalog/v1/tenants/one", "")).collect();
    assert_eq!(
        lines,
        [
            "GET /catalog/v1/config?warehouse=s3%3A%2F%2Flake%2Fw%20h",
            "GET /namespaces",
            "GET /namespaces?pageToken=2%2Fx",
            "GET /namespaces?parent=a",
            "GET /namespaces?parent=b",
            "GET /namespaces?parent=a%2Fdeep",
            "GET /namespaces/a%2Fdeep/tables",
            "GET /namespaces/a%2Fdeep/tables?pageToken=more",
        ]
    );
    for (at, asked) in fake.asked().iter().enumerate() {
        assert_eq!(asked.header("authorization"), Some("Bearer bearer-secret"));
        assert_eq!(asked.header("x-iceberg-access-delegation"), Some("vended-credentials"));
        assert_eq!(asked.header("x-tenant"), Some("one"));
        // Known since the first answer.
        assert_eq!(asked.header("x-over"), Some(if at == 0 { "ours" } else { "theirs" }));
        assert_eq!(asked.header("x-default"), if at == 0 { None } else { Some("theirs") });
    }

    // Pages of the size that was asked for.
    let mut sized = properties.to_vec();
    sized.push(("rest-page-size", "2"));
    let fake = Fake::start(listings).await;
    let address = format!("{}/catalog/", fake.url());
    sized[0].1 = &address;
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &sized)).await.unwrap();
    assert_eq!(catalog.tables(&deep).await.unwrap().len(), 3);
    let lines = fake.lines();
    assert!(lines[1].ends_with("/tables?pageToken=&pageSize=2"), "{lines:?}");
    assert!(lines[2].ends_with("/tables?pageToken=more&pageSize=2"), "{lines:?}");
}

#[tokio::test]
async fn what_a_server_does_not_offer_is_not_asked_for() {
    let fake = Fake::start(|asked| match asked.line.split('?').next().unwrap() {
        "GET /v1/config" => answer(
            200,
            json!({ "defaults": {}, "overrides": {}, "endpoints": [
                "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}", "POST /v1/{prefix}/transactions/commit",
            ] }),
        ),
        _ => answer(200, table("s3://nowhere/t")),
    })
    .await;
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &fake.url())])).await.unwrap();
    let ident = iceberg::TableIdent::new(namespace(&["a"]), "t".to_owned());
    let base = catalog.load(&ident).await.unwrap();
    let (requirements, updates) = append_manifests(&base, "one", "s3://nowhere/manifests.avro".to_owned());
    for (error, missing) in [
        (catalog.create_namespace(&namespace(&["a"])).await.unwrap_err(), "POST /v1/{prefix}/namespaces"),
        (catalog.namespaces().await.unwrap_err(), "GET /v1/{prefix}/namespaces"),
        (catalog.create(&ident, creation()).await.unwrap_err(), "POST /v1/{prefix}/namespaces/{namespace}/tables"),
        (catalog.commit(&base, requirements, updates).await.unwrap_err(), "/tables/{table}"),
        (catalog.drop_table(&ident).await.unwrap_err(), "DELETE /v1"),
    ] {
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        assert!(
            error.to_string().contains(&format!("does not offer {missing}"))
                || missing.starts_with('/')
                || missing.starts_with("DELETE"),
            "{error}"
        );
    }
    assert_eq!(fake.lines(), ["GET /v1/config", "GET /v1/namespaces/a/tables/t"]);
}

#[tokio::test]
async fn a_commit_sent_again_is_the_same_commit() {
    let fake = Fake::start(|asked| match asked.line.split_once(' ').unwrap() {
        ("GET", "/v1/config") => {
            answer(200, json!({ "defaults": {}, "overrides": {}, "idempotency-key-lifetime": "PT30M" }))
        }
        ("GET", _) => answer(200, table("s3://nowhere/t")),
        _ => empty(502),
    })
    .await;
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &fake.url())])).await.unwrap();
    let ident = iceberg::TableIdent::new(namespace(&["a"]), "t".to_owned());
    let base = catalog.load(&ident).await.unwrap();
    for id in ["one", "one", "two"] {
        let (requirements, updates) = append_manifests(&base, id, "s3://nowhere/manifests.avro".to_owned());
        let error = catalog.commit(&base, requirements, updates).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    }
    let asked = fake.asked();
    let keys: Vec<_> = asked.iter().filter_map(|asked| asked.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 3, "{asked:?}");
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert!(uuid::Uuid::parse_str(keys[0]).is_ok());
}

/// A commit that is answered with "see there" must not become a question: the table that is there would look like the
/// commit's success.
#[tokio::test]
async fn redirects_do_not_turn_commits_into_questions() {
    for (status, follows) in [(301, false), (302, false), (303, false), (307, true), (308, true)] {
        let fake = Fake::start(move |asked| match asked.line.split_once(' ').unwrap() {
            ("GET", "/v1/config") => answer(200, json!({ "defaults": {}, "overrides": {} })),
            ("POST", "/v1/namespaces/a/tables/t") => {
                let mut moved = empty(status);
                moved.headers_mut().insert("location", "/elsewhere".parse().unwrap());
                moved
            }
            _ => answer(200, table("s3://nowhere/t")),
        })
        .await;
        let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &fake.url())])).await.unwrap();
        let base = catalog.load(&iceberg::TableIdent::from_strs(["a", "t"]).unwrap()).await.unwrap();
        let (requirements, updates) = append_manifests(&base, "one", "s3://nowhere/manifests.avro".to_owned());
        let committed = catalog.commit(&base, requirements, updates).await;
        let last = fake.asked().pop().unwrap();
        if follows {
            assert_eq!((last.line.as_str(), committed.is_ok()), ("POST /elsewhere", true));
            assert!(last.body().contains("assert-ref-snapshot-id"));
        } else {
            assert_eq!(last.line, "POST /v1/namespaces/a/tables/t");
            let error = committed.unwrap_err();
            assert!(
                matches!(error, Error::Unknown(_)) && error.to_string().contains("redirect to /elsewhere"),
                "{error:?}"
            );
        }
    }
    // Nor does a token go where the server points.
    let other = Fake::start(|_| answer(200, json!({ "defaults": {}, "overrides": {} }))).await;
    let there = format!("{}/v1/config", other.url());
    let fake = Fake::start(move |_| {
        let mut moved = empty(307);
        moved.headers_mut().insert("location", there.parse().unwrap());
        moved
    })
    .await;
    let properties = [("uri", fake.url()), ("header.X-Key", "planted-secret".to_owned())];
    let properties = properties.each_ref().map(|(key, value)| (*key, value.as_str()));
    let error = catalog::open(&configured("rest", CatalogKind::Rest, &properties)).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(other.lines(), [""; 0]);
}
