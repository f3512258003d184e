//! S3 and what speaks its protocol, through object_store: a store per bucket, built from Iceberg's `s3.*` properties.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::io::{FileRead, FileWrite};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use tokio::io::AsyncWriteExt;

use super::{store_error, usage_error};

/// Size of an upload's parts. S3 takes at most 10,000 of them, so files up to 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file that are under way at the same time; with the one being filled, this bounds its memory.
const PARTS_IN_FLIGHT: usize = 2;

/// A failed request is repeated after about this long, then after twice as long, …
const RETRY_WAIT: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// … and given up when this much time has passed since the first.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The store of one bucket. Without keys in the properties, AWS's environment and metadata services are asked.
pub(super) fn open(bucket: &str, properties: &BTreeMap<String, String>) -> iceberg::Result<Arc<dyn ObjectStore>> {
    let get = |key: &str| properties.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let retry = RetryConfig {
        // Jitter is part of object_store's back-off.
        backoff: BackoffConfig { init_backoff: RETRY_WAIT, max_backoff: RETRY_WAIT_MAX, base: 2.0 },
        max_retries: 10,
        retry_timeout: RETRY_TIMEOUT,
    };
    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(60));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let (Some(id), Some(secret)) = (get("s3.access-key-id"), get("s3.secret-access-key")) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    if let Some(token) = get("s3.session-token") {
        builder = builder.with_token(token);
    }
    if let Some(region) = get("s3.region").or_else(|| get("client.region")) {
        builder = builder.with_region(region);
    }
    let endpoint = get("s3.endpoint");
    // As PyIceberg: path style is what compatible stores speak, the other what AWS prefers.
    let path_style = match get("s3.path-style-access") {
        Some(value) => value.eq_ignore_ascii_case("true"),
        None => endpoint.is_some(),
    };
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = endpoint {
        let mut url = url::Url::parse(endpoint)
            .map_err(|error| usage_error(format!("s3.endpoint {endpoint:?} is not a URL: {error}")))?;
        if !path_style {
            let host = url.host_str().unwrap_or_default();
            let host = format!("{bucket}.{host}");
            url.set_host(Some(&host))
                .map_err(|error| usage_error(format!("s3.endpoint {endpoint:?} takes no bucket name: {error}")))?;
        }
        builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
    }
    let store = builder.build().map_err(|error| store_error(&format!("s3://{bucket}"), error))?;
    Ok(Arc::new(store))
}

/// Puts a whole object; with `create`, only if there is none of that name.
pub(super) async fn put(
    store: &dyn ObjectStore,
    location: &str,
    key: &Path,
    bytes: Bytes,
    create: bool,
) -> iceberg::Result<()> {
    let started = Instant::now();
    let mut wait = RETRY_WAIT;
    loop {
        if !create {
            break;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match store.put_opts(key, bytes.clone().into(), options).await {
            Ok(_) => return Ok(()),
            Err(error @ object_store::Error::AlreadyExists { .. }) => {
                // A repeated put finds its own first attempt, whose answer was lost.
                let there = store.get(key).await.map_err(|error| store_error(location, error))?;
                let there = there.bytes().await.map_err(|error| store_error(location, error))?;
                return if there == bytes { Ok(()) } else { Err(store_error(location, error)) };
            }
            // Compatible stores without conditional puts; the names of metadata files are unique anyway.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => break,
            // object_store does not repeat what it cannot know to be idempotent; the comparison above makes it so.
            Err(object_store::Error::Generic { .. }) if started.elapsed() + wait < RETRY_TIMEOUT => {
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                wait = (wait * 2).min(RETRY_WAIT_MAX);
            }
            Err(error) => return Err(store_error(location, error)),
        }
    }
    store.put(key, bytes.into()).await.map(|_| ()).map_err(|error| store_error(location, error))
}

/// Ranged reads of one object.
pub(super) struct Reader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) key: Path,
    pub(super) location: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        self.store.get_range(&self.key, range).await.map_err(|error| store_error(&self.location, error))
    }
}

/// A streamed object: one put when it is small, else a multipart upload, which is aborted when a part fails or the
/// writer is dropped before `close`.
pub(super) struct Writer {
    upload: Option<BufWriter>,
    location: String,
}

impl Writer {
    pub(super) fn new(store: Arc<dyn ObjectStore>, key: Path, location: &str) -> Writer {
        let upload = BufWriter::with_capacity(store, key, PART_BYTES).with_max_concurrency(PARTS_IN_FLIGHT);
        Writer { upload: Some(upload), location: location.to_owned() }
    }

    fn closed(&self) -> iceberg::Error {
        usage_error(format!("{}: the file was already closed or failed", self.location))
    }

    async fn abandon(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(location = %self.location, %error, "an unfinished upload could not be aborted; its parts stay until the bucket's lifecycle rule removes them");
        }
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        let upload = match self.upload.as_mut() {
            Some(upload) => upload,
            None => return Err(self.closed()),
        };
        if let Err(error) = upload.put(bytes).await {
            self.abandon().await;
            return Err(store_error(&self.location, error));
        }
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        // `finish` aborts by itself when a part or the completion fails.
        let mut upload = self.upload.take().ok_or_else(|| self.closed())?;
        upload.shutdown().await.map_err(|error| super::io_error(&self.location, error))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Best effort: the process may be going down, and the bucket's lifecycle rule is the backstop.
                let _ = upload.abort().await;
            });
        }
    }
}
