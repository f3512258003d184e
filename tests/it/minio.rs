//! MinIO, an S3 of one's own: files and tables on it, with its owner's keys, and with temporary ones that may do less.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use calve::catalog;
use calve::catalog::aws::{Credentials, Signer};
use calve::catalog::storage::Storage;
use calve::config::CatalogKind;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;

use crate::storage::{holds_files, s3};
use crate::support::parts::Part;
use crate::support::tables::configured;

/// What it answers its owner, who asks one of its services with a form.
async fn answered(minio: &Part, service: &str, method: Method, path: &str, form: &str) -> String {
    let url = url::Url::parse(&format!("{}{path}", minio.address)).unwrap();
    let signer = Signer::new(Credentials::new("s3", &s3(&minio.address)), service, "us-east-1");
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
    let added = signer.sign(&method, &url, &headers, form.as_bytes()).await.unwrap();
    headers.extend(added);
    let request = reqwest::Client::new().request(method, url).headers(headers).body(form.to_owned());
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    text
}

/// The properties with keys that its STS gives for one folder of the bucket.
async fn temporary(minio: &Part, folder: &str) -> BTreeMap<String, String> {
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": ["s3:*"], "Resource": [format!("arn:aws:s3:::lake/{folder}/*")] },
            { "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::lake"] },
        ],
    });
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRole")
        .append_pair("Version", "2011-06-15")
        .append_pair("Policy", &policy.to_string())
        .finish();
    let answer = answered(minio, "sts", Method::POST, "/", &form).await;
    let mut properties = s3(&minio.address);
    for (key, name) in [
        ("s3.access-key-id", "AccessKeyId"),
        ("s3.secret-access-key", "SecretAccessKey"),
        ("s3.session-token", "SessionToken"),
    ] {
        let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {answer}"));
        properties.insert(key.to_owned(), rest.split('<').next().unwrap().to_owned());
    }
    properties
}

/// With these properties nothing is written there: it says so in these words, and not to try again.
async fn assert_refused(properties: &BTreeMap<String, String>, location: &str, words: &str) {
    let output = Storage::new(properties.clone()).file_io().new_output(location).unwrap();
    let error = output.write(Bytes::from_static(b"x")).await.unwrap_err();
    let said = error.to_string();
    assert!(!error.retryable() && said.contains(words) && !said.contains("planted"), "{location}: {said}");
}

fn with(properties: &BTreeMap<String, String>, key: &str, value: &str) -> BTreeMap<String, String> {
    let mut properties = properties.clone();
    properties.insert(key.to_owned(), value.to_owned());
    properties
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_holds_files_and_tables() {
    let minio = Part::start("minio", &[]);
    let properties = s3(&minio.address);
    let storage = Storage::new(properties.clone());
    holds_files(storage.clone(), "s3://lake/plain").await;
    holds_files(storage, "s3a://lake/hadoop's").await;
    // Uploads of dropped writers are aborted. It lists those of an object that is named whole, and no others.
    for waited in 0.. {
        let path = "/lake?prefix=plain%2Fdata%2Fgone.parquet&uploads=";
        let uploads = answered(&minio, "s3", Method::GET, path, "").await;
        assert!(uploads.contains("<Prefix>plain/data/gone.parquet</Prefix>"), "{uploads}");
        if !uploads.contains("<UploadId>") {
            break;
        }
        assert!(waited < 100, "{uploads}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert_refused(&with(&properties, "s3.access-key-id", "somebody"), "s3://lake/x", "check the keys").await;
    let wrong = with(&properties, "s3.secret-access-key", "planted-secret");
    assert_refused(&wrong, "s3://lake/x", "check the keys").await;
    assert_refused(&properties, "s3://no-such-bucket/x", "there is no such bucket").await;

    let folder = tempfile::tempdir().unwrap();
    let uri = format!("sqlite:///{}/catalog.db", folder.path().display());
    let mut all = vec![("uri", uri.as_str()), ("warehouse", "s3://lake/warehouse")];
    all.extend(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let sql = catalog::open(&configured("sql", CatalogKind::Sql, &all)).await.unwrap();
    crate::catalogs::behaves(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_keys_of_minio_hold_files_where_they_may() {
    let minio = Part::start("minio", &[]);
    let properties = temporary(&minio, "narrow").await;
    holds_files(Storage::new(properties.clone()), "s3://lake/narrow").await;
    assert_refused(&properties, "s3://lake/wide/x", "may not do this").await;
    // Of use with their token only.
    let other = with(&properties, "s3.session-token", "planted-token");
    assert_refused(&other, "s3://lake/narrow/x", "check the keys").await;
    let none = with(&properties, "s3.session-token", "");
    assert_refused(&none, "s3://lake/narrow/x", "check the keys").await;
}
