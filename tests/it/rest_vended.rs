//! Keys that a REST catalog vends with a table: which of them is for a file, and their renewal while files are written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use calve::catalog::{self, Catalog};
use calve::config::CatalogKind;
use iceberg::TableIdent;
use iceberg::table::Table;
use serde_json::{Value, json};

use crate::support::http::{Asked, Fake, empty, json as answer};
use crate::support::tables::configured;

const CREDENTIALS: &str = "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials";
const BIG: usize = 9 << 20;

/// A catalog and a store in one: every time it is asked it vends other keys, which live so long.
struct Vendor {
    fake: Fake,
    /// 0: vends. Else what it answers instead.
    refuses: Arc<AtomicU32>,
}

fn keys(number: u32, what: &str, life: Duration) -> Value {
    let end = chrono::Utc::now().timestamp_millis() + i64::try_from(life.as_millis()).unwrap();
    json!({
        "s3.access-key-id": format!("{what}-{number}"),
        "s3.secret-access-key": "planted-vended-secret",
        "s3.session-token": format!("planted-session-{number}"),
        "s3.session-token-expires-at-ms": end.to_string(),
    })
}

fn credentials(number: u32, life: Duration) -> Value {
    json!([
        { "prefix": "s3://lake/t/", "config": keys(number, "all", life) },
        { "prefix": "s3://lake/t/metadata/", "config": keys(number, "meta", life) },
    ])
}

impl Vendor {
    async fn start(endpoints: &'static [&'static str], life: Duration) -> Vendor {
        let (vended, refuses) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let refusing = refuses.clone();
        let fake = Fake::start(move |asked| {
            let (method, path) = asked.line.split_once(' ').unwrap();
            if path.starts_with("/lake/") {
                return store(asked, method, path);
            }
            if path.starts_with("/v1/config") {
                let mut config = json!({ "defaults": {}, "overrides": {} });
                if !endpoints.is_empty() {
                    config["endpoints"] = json!(endpoints);
                }
                return answer(200, config);
            }
            match refusing.load(Ordering::SeqCst) {
                0 => {}
                status => return answer(status as u16, json!({ "error": { "message": "not now", "type": "No" } })),
            }
            let number = vended.fetch_add(1, Ordering::SeqCst) + 1;
            if path.ends_with("/credentials") {
                return answer(200, json!({ "storage-credentials": credentials(number, life) }));
            }
            let mut loaded = crate::rest_protocol::table("s3://lake/t");
            loaded["storage-credentials"] = credentials(number, life);
            answer(200, loaded)
        })
        .await;
        Vendor { fake, refuses }
    }

    async fn open(&self) -> Arc<dyn Catalog> {
        let url = self.fake.url();
        let properties = [
            ("uri", url.as_str()),
            ("s3.endpoint", url.as_str()),
            ("s3.region", "us-east-1"),
            ("s3.session-token", "not this"),
        ];
        catalog::open(&configured("lake", CatalogKind::Rest, &properties)).await.unwrap()
    }

    /// With which keys the store was asked so, one after the other.
    fn shown(&self, start: &str) -> Vec<String> {
        let asked = self.fake.asked().into_iter().filter(|asked| asked.line.starts_with(start));
        asked
            .map(|asked| {
                let signed = asked.header("authorization").unwrap().to_owned();
                let key = signed.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_owned();
                let (_, number) = key.split_once('-').unwrap();
                assert_eq!(asked.header("x-amz-security-token"), Some(&*format!("planted-session-{number}")));
                key
            })
            .collect()
    }
}

/// As little of S3 as an upload needs.
fn store(asked: &Asked, method: &str, path: &str) -> Response {
    let xml = |body: &str| {
        let mut response = empty(200);
        *response.body_mut() = axum::body::Body::from(body.to_owned());
        response
    };
    match method {
        "POST" if path.contains("?uploads") => {
            xml("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        "POST" => xml("<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"),
        "PUT" if asked.body.is_empty() => empty(400),
        _ => {
            let mut response = empty(200);
            response.headers_mut().insert("etag", "\"e\"".parse().unwrap());
            response
        }
    }
}

async fn put(table: &Table, name: &str) {
    put_at(table, &format!("s3://lake/t/{name}")).await;
}

async fn put_at(table: &Table, location: &str) {
    let output = table.file_io().new_output(location).unwrap();
    output.write(Bytes::from_static(b"x")).await.unwrap();
}

fn ident() -> TableIdent {
    TableIdent::from_strs(["a", "t"]).unwrap()
}

/// One long upload, begun with keys that expire before it ends.
async fn keys_expire_in_the_middle(endpoints: &'static [&'static str], renewal: &str) {
    let vendor = Vendor::start(endpoints, Duration::from_secs(3)).await;
    let catalog = vendor.open().await;
    let table = catalog.load(&ident()).await.unwrap();
    let mut upload = table.file_io().new_output("s3://lake/t/data/big").unwrap().writer().await.unwrap();
    upload.write(Bytes::from(vec![1; BIG])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    upload.write(Bytes::from(vec![2; BIG])).await.unwrap();
    upload.close().await.unwrap();
    assert_eq!(vendor.shown("POST /lake/t/data/big?uploads"), ["all-1"]);
    assert_eq!(vendor.shown("POST /lake/t/data/big?uploadId"), ["all-2"]);
    let parts = vendor.shown("PUT /lake/t/data/big?");
    assert_eq!((parts.first().map(String::as_str), parts.last().map(String::as_str)), (Some("all-1"), Some("all-2")));
    assert_eq!(vendor.fake.count(renewal), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_renewed_in_the_middle_of_an_upload() {
    const ALL: &[&str] = &["GET /v1/{prefix}/namespaces/{namespace}/tables/{table}", CREDENTIALS];
    keys_expire_in_the_middle(ALL, "GET /v1/namespaces/a/tables/t/credentials").await;
    // A server without that endpoint: the table is loaded again.
    keys_expire_in_the_middle(&[], "GET /v1/namespaces/a/tables/t?snapshots=refs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_prefix_and_the_newest_keys() {
    let vendor = Vendor::start(&[], Duration::from_secs(3600)).await;
    let catalog = vendor.open().await;
    let first = catalog.load(&ident()).await.unwrap();
    put(&first, "data/1").await;
    put(&first, "metadata/1").await;
    // What the next load brings is for the files of the first as well.
    let second = catalog.load(&ident()).await.unwrap();
    put(&first, "data/2").await;
    put(&second, "metadata/2").await;
    assert_eq!(vendor.shown("PUT /lake/t/data/"), ["all-1", "all-2"]);
    assert_eq!(vendor.shown("PUT /lake/t/metadata/"), ["meta-1", "meta-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_renewed() {
    let vendor = Vendor::start(&[], Duration::from_secs(3)).await;
    let catalog = vendor.open().await;
    let table = catalog.load(&ident()).await.unwrap();
    vendor.refuses.store(503, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    // Their end is near, and they are good.
    put(&table, "data/1").await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let late = table.file_io().new_output("s3://lake/t/data/2").unwrap();
    let error = late.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    let said = error.to_string();
    assert!(said.contains("no keys for the store of table a.t") && said.contains("503"), "{said}");
    assert!(!said.contains("planted"), "{said}");
    vendor.refuses.store(0, Ordering::SeqCst);
    // Many at once: asked for once.
    let before = vendor.fake.count("GET /v1/namespaces");
    let puts = (0..8).map(|at| {
        let table = table.clone();
        async move { put(&table, &format!("data/many-{at}")).await }
    });
    futures::future::join_all(puts).await;
    assert_eq!(vendor.fake.count("GET /v1/namespaces"), before + 1);
    let by_key = vendor.shown("PUT /lake/t/data/many").into_iter().fold(BTreeMap::new(), |mut counts, key| {
        *counts.entry(key).or_insert(0) += 1;
        counts
    });
    assert_eq!(by_key, BTreeMap::from([("all-2".to_owned(), 8)]));
}

/// Of a table's answer, the field that holds what is vended, and what it holds: by number and end.
type Granting = fn(u32, String) -> (&'static str, Value);

/// How long what [`vendor_of`] vends is good.
const LIFE: Duration = Duration::from_secs(6);

/// A catalog of one table and its store in one, for clouds whose keys are one token.
async fn vendor_of(location: &'static str, granting: Granting) -> Fake {
    let vended = AtomicU32::new(0);
    Fake::start(move |asked| {
        let (method, path) = asked.line.split_once(' ').unwrap();
        if path.starts_with("/lake/") {
            return store(asked, method, path);
        }
        if path.starts_with("/v1/config") {
            return answer(200, json!({ "defaults": {}, "overrides": {} }));
        }
        let end = chrono::Utc::now().timestamp_millis() + i64::try_from(LIFE.as_millis()).unwrap();
        let number = vended.fetch_add(1, Ordering::SeqCst) + 1;
        let (field, granted) = granting(number, end.to_string());
        let mut loaded = crate::rest_protocol::table(location);
        loaded[field] = granted;
        answer(200, loaded)
    })
    .await
}

/// Two files written with what was vended first and one after its end, as the store was asked for them.
async fn written_before_and_after_the_end(fake: &Fake, endpoint: &str, location: &str) -> Vec<Asked> {
    let url = fake.url();
    let properties = [("uri", url.as_str()), (endpoint, url.as_str())];
    let catalog = catalog::open(&configured("lake", CatalogKind::Rest, &properties)).await.unwrap();
    let table = catalog.load(&ident()).await.unwrap();
    put_at(&table, &format!("{location}/data/1")).await;
    put_at(&table, &format!("{location}/data/2")).await;
    assert_eq!(fake.count("GET /v1/namespaces/a/tables/t"), 1);
    tokio::time::sleep(LIFE + Duration::from_millis(100)).await;
    put_at(&table, &format!("{location}/data/3")).await;
    assert_eq!(fake.count("GET /v1/namespaces/a/tables/t"), 2);
    fake.asked().into_iter().filter(|asked| asked.line.starts_with("PUT /lake/")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_google_are_renewed() {
    // Beside the list of credentials, as servers write them that are older than the list.
    let fake = vendor_of("gs://lake/t", |number, end| {
        let token = format!("planted-token-{number}");
        ("config", json!({ "gcs.oauth2.token": token, "gcs.oauth2.token-expires-at": end }))
    })
    .await;
    let written = written_before_and_after_the_end(&fake, "gcs.service.host", "gs://lake/t").await;
    let shown: Vec<_> = written.iter().map(|asked| asked.header("authorization").unwrap()).collect();
    assert_eq!(shown, ["Bearer planted-token-1", "Bearer planted-token-1", "Bearer planted-token-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_of_azure_are_renewed() {
    const LOCATION: &str = "abfss://lake@acc.dfs.core.windows.net/t";
    let fake = vendor_of(LOCATION, |number, end| {
        let config = json!({
            "adls.sas-token.acc.dfs.core.windows.net": format!("sv=2024-11-04&sig=planted%2Fsig-{number}"),
            "adls.sas-token-expires-at-ms.acc.dfs.core.windows.net": end,
            // Another account's is not for this one.
            "adls.sas-token.other.dfs.core.windows.net": "sv=2024-11-04&sig=other",
        });
        ("storage-credentials", json!([{ "prefix": LOCATION, "config": config }]))
    })
    .await;
    let written = written_before_and_after_the_end(&fake, "adls.endpoint", LOCATION).await;
    let shown: Vec<_> = written.iter().map(|asked| query_value(&asked.line, "sig")).collect();
    let wanted = ["planted/sig-1", "planted/sig-1", "planted/sig-2"].map(|signature| Some(signature.to_owned()));
    assert_eq!(shown, wanted);
    assert!(written.iter().all(|asked| asked.header("authorization").is_none()));
}

/// A parameter of a request's line, decoded.
fn query_value(line: &str, name: &str) -> Option<String> {
    let (_, query) = line.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
