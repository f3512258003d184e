//! The corners of the REST protocol that Iceberg's own test server does not show: a prefix, overrides, pages,
//! idempotency.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use calve::catalog::{self, Error};
use calve::config::CatalogKind;
use serde_json::{Value, json};

use crate::support::tables::{append_manifests, configured, namespace};

/// What the server was asked: method, path with query, and the headers that matter.
#[derive(Clone, Debug, Default)]
struct Asked {
    line: String,
    authorization: Option<String>,
    tenant: Option<String>,
    idempotency_key: Option<String>,
}

type Log = Arc<Mutex<Vec<Asked>>>;

impl Asked {
    fn of(request: &Request) -> Asked {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Asked {
            line: format!("{} {}", request.method(), request.uri()),
            authorization: header("authorization"),
            tenant: header("x-tenant"),
            idempotency_key: header("idempotency-key"),
        }
    }
}

async fn note(State(log): State<Log>, request: Request, next: Next) -> Response {
    log.lock().unwrap().push(Asked::of(&request));
    next.run(request).await
}

#[derive(serde::Deserialize)]
struct Paging {
    parent: Option<String>,
    #[serde(rename = "pageToken")]
    page: String,
}

async fn config() -> Json<Value> {
    Json(json!({
        "defaults": { "header.X-Ignored": "yes", "s3.region": "eu-central-1" },
        "overrides": { "prefix": "tenants/one", "namespace-separator": "%2F" },
        "idempotency-key-lifetime": "PT30M",
    }))
}

/// Top-level namespaces on two pages; one of them has a child.
async fn namespaces(Query(paging): Query<Paging>) -> Json<Value> {
    Json(match (paging.parent.as_deref(), paging.page.as_str()) {
        (None, "") => json!({ "namespaces": [["a"]], "next-page-token": "2/x" }),
        (None, "2/x") => json!({ "namespaces": [["b"]], "next-page-token": null }),
        (Some("a"), "") => json!({ "namespaces": [["a", "deep"]] }),
        _ => json!({ "namespaces": [] }),
    })
}

async fn tables(Query(paging): Query<Paging>) -> Json<Value> {
    let table = |name: &str| json!({ "namespace": ["a", "deep"], "name": name });
    Json(match paging.page.as_str() {
        "" => json!({ "identifiers": [table("t3"), table("t1")], "next-page-token": "more" }),
        _ => json!({ "identifiers": [table("t2")] }),
    })
}

async fn table() -> Json<Value> {
    Json(json!({
        "metadata-location": "s3://nowhere/t/metadata/00000-x.metadata.json",
        "metadata": {
            "format-version": 2, "table-uuid": "6b9c7a52-8d4c-4f57-9d2b-0a2b6f1f3c11", "location": "s3://nowhere/t",
            "last-sequence-number": 0, "last-updated-ms": 1_795_000_000_000_u64, "last-column-id": 1,
            "current-schema-id": 0,
            "schemas": [{ "type": "struct", "schema-id": 0, "fields": [
                { "id": 1, "name": "id", "required": false, "type": "long" }] }],
            "default-spec-id": 0, "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
            "default-sort-order-id": 0, "sort-orders": [{ "order-id": 0, "fields": [] }],
        },
    }))
}

async fn start() -> (String, Log) {
    let log = Log::default();
    let under = "/catalog/v1/tenants/one/namespaces";
    let router = Router::new()
        .route("/catalog/v1/config", get(config))
        .route(under, get(namespaces))
        // axum matches the encoded path's segments; the separator must not have become one.
        .route(&format!("{under}/{{namespace}}/tables"), get(tables))
        .route(&format!("{under}/{{namespace}}/tables/{{table}}"), get(table))
        .route(&format!("{under}/{{namespace}}/tables/{{table}}"), post(|| async { StatusCode::BAD_GATEWAY }))
        .layer(middleware::from_fn_with_state(log.clone(), note));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/catalog/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, log)
}

#[tokio::test]
async fn servers_configure_their_clients() {
    let (address, log) = start().await;
    let properties = [
        ("uri", address.as_str()),
        ("warehouse", "s3://lake/w h"),
        ("prefix", "ours"),
        ("token", "bearer-secret"),
        ("header.X-Tenant", "one"),
    ];
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &properties)).await.unwrap();
    let (a, deep, b) = (namespace(&["a"]), namespace(&["a", "deep"]), namespace(&["b"]));
    assert_eq!(catalog.namespaces().await.unwrap(), [a, deep.clone(), b]);
    let names: Vec<_> = catalog.tables(&deep).await.unwrap().into_iter().map(|ident| ident.name).collect();
    assert_eq!(names, ["t1", "t2", "t3"]);
    let log = log.lock().unwrap().clone();
    let lines: Vec<_> = log.iter().map(|asked| asked.line.replace("/catalog/v1/tenants/one", "")).collect();
    assert_eq!(
        lines,
        [
            "GET /catalog/v1/config?warehouse=s3%3A%2F%2Flake%2Fw%20h",
            "GET /namespaces?pageToken=",
            "GET /namespaces?pageToken=2%2Fx",
            "GET /namespaces?parent=a&pageToken=",
            "GET /namespaces?parent=b&pageToken=",
            "GET /namespaces?parent=a%2Fdeep&pageToken=",
            "GET /namespaces/a%2Fdeep/tables?pageToken=",
            "GET /namespaces/a%2Fdeep/tables?pageToken=more",
        ]
    );
    for asked in &log {
        assert_eq!(asked.authorization.as_deref(), Some("Bearer bearer-secret"));
        assert_eq!(asked.tenant.as_deref(), Some("one"));
    }
}

#[tokio::test]
async fn a_commit_sent_again_is_the_same_commit() {
    let (address, log) = start().await;
    let catalog = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &address)])).await.unwrap();
    let ident = iceberg::TableIdent::new(namespace(&["a"]), "t".to_owned());
    let base = catalog.load(&ident).await.unwrap();
    for id in ["one", "one", "two"] {
        let (requirements, updates) = append_manifests(&base, id, "s3://nowhere/manifests.avro".to_owned());
        let error = catalog.commit(&base, requirements, updates).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    }
    let asked = log.lock().unwrap().clone();
    let keys: Vec<_> = asked.iter().filter_map(|asked| asked.idempotency_key.clone()).collect();
    assert_eq!(keys.len(), 3, "{asked:?}");
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert!(uuid::Uuid::parse_str(&keys[0]).is_ok());
}
