//! Files as tables need them: durable when a write has returned, whole or not there at all, on every store.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use calve::catalog::aws::{Credentials, Signer};
use calve::catalog::storage::{Entry, Storage};
use calve::catalog::{self};
use calve::config::CatalogKind;
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use crate::support::gcs::Uploads;
use crate::support::parts::Part;
use crate::support::proxy::{Fault, Proxy};
use crate::support::tables::configured;

/// The keys that `tests/parts/s3.sh` and `minio.sh` know.
const KEYS: [(&str, &str); 3] = [
    ("s3.access-key-id", "calve-access-key"),
    ("s3.secret-access-key", "calve-secret-key"),
    ("s3.region", "us-east-1"),
];

/// Of the S3 at this endpoint.
pub fn s3(endpoint: &str) -> BTreeMap<String, String> {
    let endpoint = [("s3.endpoint", endpoint), ("s3.path-style-access", "true")];
    KEYS.iter().chain(&endpoint).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Bytes that no two offsets share, so that a wrong range shows.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

async fn listed(storage: &Storage, prefix: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = storage.list(prefix).unwrap().try_collect().await.unwrap();
    entries.sort_by(|one, other| one.location.cmp(&other.location));
    entries
}

/// The same for every store; `root` is a location below which nothing is yet.
pub async fn holds_files(storage: Storage, root: &str) {
    let files = storage.file_io();
    let at = |name: &str| format!("{root}/{name}");

    // Whole files, names as partition values make them.
    let small = at("data/region=a%2Fb c/é+&=1.parquet");
    assert!(!files.exists(&small).await.unwrap());
    files.new_output(&small).unwrap().write(Bytes::from_static(b"first")).await.unwrap();
    files.new_output(&small).unwrap().write(Bytes::from_static(b"second")).await.unwrap();
    assert!(files.exists(&small).await.unwrap());
    let input = files.new_input(&small).unwrap();
    assert_eq!(input.read().await.unwrap(), "second");
    assert_eq!(input.metadata().await.unwrap().size, 6);

    // Metadata files are never replaced; written again alike, an object is the same object.
    let metadata = at("metadata/00000-x.metadata.json");
    files.new_output(&metadata).unwrap().write(Bytes::from_static(b"{}")).await.unwrap();
    assert!(files.new_output(&metadata).unwrap().write(Bytes::from_static(b"{1}")).await.is_err());
    assert_eq!(files.new_input(&metadata).unwrap().read().await.unwrap(), "{}");

    // Streams of several parts, read back in ranges.
    let bytes = pattern((20 << 20) + 12_345);
    let big = at("data/big.parquet");
    let mut writer = files.new_output(&big).unwrap().writer().await.unwrap();
    for chunk in 0..bytes.len().div_ceil(3_000_000) {
        let start = chunk * 3_000_000;
        writer.write(bytes.slice(start..bytes.len().min(start + 3_000_000))).await.unwrap();
        assert!(!files.exists(&big).await.unwrap(), "half a file shows");
    }
    writer.close().await.unwrap();
    assert!(writer.close().await.is_err());
    assert!(writer.write(Bytes::from_static(b"late")).await.is_err());
    let reader = files.new_input(&big).unwrap().reader().await.unwrap();
    for range in [0..4, 8_388_600..8_388_620, bytes.len() as u64 - 8..bytes.len() as u64] {
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert_eq!(reader.read(range).await.unwrap(), expected);
    }
    assert!(reader.read(bytes.len() as u64 + 5..bytes.len() as u64 + 9).await.is_err());
    assert_eq!(files.new_input(&big).unwrap().read().await.unwrap(), bytes);

    // An empty file is a file.
    files.new_output(at("data/empty")).unwrap().writer().await.unwrap().close().await.unwrap();

    let entries = listed(&storage, root).await;
    let sizes: Vec<_> = entries.iter().map(|entry| (entry.location.clone(), entry.size_bytes)).collect();
    let expected = [(big.clone(), bytes.len() as u64), (at("data/empty"), 0), (small.clone(), 6), (metadata, 2)];
    assert_eq!(sizes, expected);
    let now = chrono::Utc::now();
    assert!(entries.iter().all(|entry| (now - entry.modified).num_seconds().abs() < 300));
    assert_eq!(listed(&storage, &at("nothing")).await, []);

    // A writer that is dropped leaves nothing.
    let gone = at("data/gone.parquet");
    let mut writer = files.new_output(&gone).unwrap().writer().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    drop(writer);
    assert!(!files.exists(&gone).await.unwrap());

    // Deleting is idempotent.
    files.delete(&small).await.unwrap();
    files.delete(&small).await.unwrap();
    assert!(!files.exists(&small).await.unwrap());
    files.delete_stream(futures::stream::iter([at("data/empty"), small.clone()])).await.unwrap();
    files.delete_prefix(at("data")).await.unwrap();
    assert_eq!(listed(&storage, root).await.len(), 1);
    let missing = files.new_input(&big).unwrap().read().await.unwrap_err();
    assert!(!missing.retryable() && missing.to_string().contains("big.parquet"), "{missing}");
}

/// What lies in a folder of the local disk, hidden files included.
fn on_disk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(on_disk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[tokio::test]
async fn local_folders_hold_files() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::new(BTreeMap::new());
    let bare = folder.path().join("bare").display().to_string();
    holds_files(storage.clone(), &bare).await;
    holds_files(storage.clone(), &format!("file://{}/uri", folder.path().display())).await;
    let left = on_disk(folder.path());
    assert_eq!(left.len(), 2, "{left:?}");
    // Other users' engines read these files.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&left[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o044, 0o044, "{mode:o}");
}

#[tokio::test]
async fn a_local_file_that_cannot_be_written_says_where() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), b"a file, not a folder").unwrap();
    let files = Storage::new(BTreeMap::new()).file_io();
    let location = format!("{}/taken/x.parquet", folder.path().display());
    let error = files.new_output(&location).unwrap().write(Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains(&location), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_holds_files() {
    let part = Part::start("s3", &[]);
    let storage = Storage::new(s3(&part.address));
    holds_files(storage.clone(), "s3://lake/plain").await;
    holds_files(storage.clone(), "s3a://lake/hadoop's").await;

    // Uploads of dropped writers are aborted: their parts would be paid for, unseen, for ever.
    for waited in 0.. {
        let parts: Vec<_> = on_disk(part.folder())
            .into_iter()
            .filter(|path| path.contains("/buckets/lake/.sgwtmp/multipart"))
            .collect();
        if parts.is_empty() {
            break;
        }
        assert!(waited < 100, "{parts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Wrong keys and a missing bucket are no reason to try again.
    let mut wrong = s3(&part.address);
    wrong.insert("s3.secret-access-key".to_owned(), "planted-secret".to_owned());
    let error = Storage::new(wrong).file_io().new_input("s3://lake/x").unwrap().read().await.unwrap_err();
    assert!(!error.retryable() && !error.to_string().contains("planted-secret"), "{error}");
    let nowhere = storage.file_io().new_output("s3://no-such-bucket/x").unwrap();
    let error = nowhere.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(!error.retryable(), "{error}");
}

/// What AWS's services check, asked of a store that checks it.
#[tokio::test]
async fn a_signed_request_is_who_it_says() {
    let part = Part::start("s3", &[]);
    let url = url::Url::parse(&format!("{}/lake?list-type=2&prefix=a%2Fb%20c", part.address)).unwrap();
    for (secret, status) in [("calve-secret-key", 200), ("another", 403)] {
        let keys = [("s3.access-key-id", "calve-access-key"), ("s3.secret-access-key", secret)];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let signer = Signer::new(Credentials::new("s3", &keys), "s3", "us-east-1");
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/xml"))]);
        let added = signer.sign(&Method::GET, &url, &headers, b"").await.unwrap();
        headers.extend(added);
        let answer = reqwest::Client::new().get(url.clone()).headers(headers).send().await.unwrap();
        assert_eq!(answer.status(), status, "{:?}", answer.text().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_is_asked_to_encrypt() {
    let part = Part::start("s3", &[]);
    let proxy = Proxy::start(&part.address).await;
    for (kind, key, wanted) in [("s3", "", "x-amz-server-side-encryption: AES256"), ("kms", "key-7", "key-id: key-7")] {
        let mut properties = s3(&proxy.url(&part.address));
        properties.extend(
            [("s3.sse.type", kind), ("s3.sse.key", key)].map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let files = Storage::new(properties).file_io();
        // Only a request with this header is met.
        proxy.arm(wanted, Fault::Refuse(503), 1);
        let location = format!("s3://lake/{kind}");
        files.new_output(&location).unwrap().write(Bytes::from_static(b"x")).await.unwrap();
        assert!(proxy.spent(), "{kind}");
    }
    for (kind, key, words) in [("aes", "", "not known"), ("custom", "", "must hold the key")] {
        let mut properties = s3(&part.address);
        properties.extend(
            [("s3.sse.type", kind), ("s3.sse.key", key)].map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let error = Storage::new(properties).file_io().new_input("s3://lake/x").unwrap().read().await.unwrap_err();
        assert!(!error.retryable() && error.to_string().contains(words), "{error}");
    }
}

fn azure(endpoint: &str) -> BTreeMap<String, String> {
    let properties = [
        ("adls.account-name", "devstoreaccount1"),
        (
            "adls.account-key",
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        ),
        ("adls.endpoint", endpoint),
    ];
    properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_holds_files_and_tables() {
    let part = Part::start("azurite", &[]);
    let properties = azure(&part.address);
    let storage = Storage::new(properties.clone());
    holds_files(storage.clone(), "abfss://lake@devstoreaccount1.dfs.core.windows.net/plain").await;
    holds_files(storage.clone(), "wasb://lake/hadoop's").await;

    let mut wrong = properties.clone();
    wrong.insert("adls.account-key".to_owned(), "cGxhbnRlZC1zZWNyZXQ=".to_owned());
    let error = Storage::new(wrong).file_io().new_input("abfss://lake/x").unwrap().read().await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("check the keys"), "{error}");
    let nowhere = storage.file_io().new_output("abfss://nowhere/x").unwrap();
    let error = nowhere.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("there is no such bucket"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let uri = format!("sqlite:///{}/catalog.db", folder.path().display());
    let mut all = vec![("uri", uri.as_str()), ("warehouse", "abfss://lake@devstoreaccount1.dfs.core.windows.net/wh")];
    all.extend(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let sql = catalog::open(&configured("sql", CatalogKind::Sql, &all)).await.unwrap();
    crate::catalogs::behaves(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_holds_files_and_tables() {
    let part = Part::start("gcs", &[]);
    let uploads = Uploads::start(&part.address).await;
    let properties = [("gcs.service.host", uploads.address.as_str()), ("gcs.oauth2.token", "planted-secret")];
    let storage = Storage::new(properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    holds_files(storage.clone(), "gs://lake/plain").await;
    // Uploads of dropped writers are aborted.
    for waited in 0.. {
        if uploads.unfinished() == 0 {
            break;
        }
        assert!(waited < 100, "{} uploads are left", uploads.unfinished());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("sqlite:///{}/catalog.db", folder.path().display());
    let mut all = vec![("uri", uri.as_str()), ("warehouse", "gs://lake/wh")];
    all.extend(properties);
    let sql = catalog::open(&configured("sql", CatalogKind::Sql, &all)).await.unwrap();
    crate::catalogs::behaves(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_behind_a_bad_network() {
    let part = Part::start("s3", &[]);
    let proxy = Proxy::start(&part.address).await;
    let storage = Storage::new(s3(&proxy.url(&part.address)));
    let files = storage.file_io();
    // Puts are the same when they come twice, so all of this is got over.
    for (index, fault) in
        [Fault::Refuse(503), Fault::Refuse(429), Fault::Garble(500), Fault::Reset, Fault::LoseAnswer].iter().enumerate()
    {
        for name in [format!("{index}.avro"), format!("{index}.metadata.json")] {
            let location = format!("s3://lake/{name}");
            proxy.arm(&format!("PUT /lake/{name}"), *fault, 2);
            files.new_output(&location).unwrap().write(Bytes::from(name.clone())).await.unwrap();
            assert!(proxy.spent(), "{fault:?}");
            proxy.arm(&format!("GET /lake/{name}"), *fault, 2);
            assert_eq!(files.new_input(&location).unwrap().read().await.unwrap(), name);
        }
    }
    // Streams, too: a part, the beginning, the end of an upload.
    let bytes = pattern(18 << 20);
    let stream = async |name: &str| {
        let mut writer = files.new_output(name).unwrap().writer().await.unwrap();
        for start in (0..bytes.len()).step_by(1 << 20) {
            writer.write(bytes.slice(start..start + (1 << 20))).await?;
        }
        writer.close().await
    };
    for (index, (request, fault)) in [
        ("partNumber=2", Fault::Refuse(503)),
        ("partNumber=3", Fault::LoseAnswer),
        ("?uploads", Fault::Refuse(503)),
        ("POST /lake/parts-3?uploadId=", Fault::Refuse(503)),
        // What completes an upload is sent again, and then there is no such upload.
        ("POST /lake/parts-4?uploadId=", Fault::LoseAnswer),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("s3://lake/parts-{index}");
        proxy.arm(request, fault, 1);
        stream(&name).await.unwrap_or_else(|error| panic!("{request} {fault:?}: {error}"));
        assert!(proxy.spent(), "{request} {fault:?}");
        assert_eq!(files.new_input(&name).unwrap().read().await.unwrap(), bytes);
    }
    // One that fails at its end leaves nothing behind that would be paid for.
    let denied = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    for request in ["partNumber=3", "POST /lake/denied?uploadId="] {
        proxy.arm(request, Fault::Say(403, denied), 1);
        let error = stream("s3://lake/denied").await.unwrap_err();
        assert!(!error.retryable() && error.to_string().contains("may not do this"), "{error}");
        let parts = on_disk(part.folder()).into_iter().filter(|path| path.contains("/buckets/lake/.sgwtmp/multipart"));
        assert_eq!(parts.collect::<Vec<_>>(), [""; 0], "{request}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_lie_in_s3() {
    let part = Part::start("s3", &[]);
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("sqlite:///{}/catalog.db", folder.path().display());
    let endpoint = part.address.as_str();
    let mut properties = vec![("uri", uri.as_str()), ("warehouse", "s3://lake/wh"), ("s3.endpoint", endpoint)];
    properties.extend(KEYS);
    let sql = catalog::open(&configured("sql", CatalogKind::Sql, &properties)).await.unwrap();
    crate::catalogs::behaves(sql).await;
    let objects: Vec<_> = Storage::new(s3(endpoint)).list("s3://lake/wh").unwrap().collect().await;
    assert!(!objects.is_empty());

    // A REST server that writes there too, and tells its clients with which keys.
    let rest = Part::start(
        "rest",
        &[
            "warehouse=s3://lake/rest",
            "io-impl=org.apache.iceberg.aws.s3.S3FileIO",
            &format!("s3.endpoint={endpoint}"),
            "s3.path-style-access=true",
            "s3.access-key-id=calve-access-key",
            "s3.secret-access-key=calve-secret-key",
            "client.region=us-east-1",
            "include-credentials=true",
        ],
    );
    // Our own keys are wrong: what the server vends for the table wins.
    let properties = [
        ("uri", rest.address.as_str()),
        ("s3.endpoint", endpoint),
        ("s3.access-key-id", "wrong"),
        ("s3.secret-access-key", "wrong"),
    ];
    let rest = catalog::open(&configured("rest", CatalogKind::Rest, &properties)).await.unwrap();
    crate::catalogs::behaves(rest).await;
}
