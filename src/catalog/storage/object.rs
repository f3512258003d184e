//! What every object store has in common: retries, whole puts, ranged reads.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::io::FileRead;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};

use super::failure::store_error;

/// A failed request is repeated after about this long, then after twice as long, …
const RETRY_WAIT: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// … and given up when this much time has passed since the first.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        // Jitter is part of object_store's back-off.
        backoff: BackoffConfig { init_backoff: RETRY_WAIT, max_backoff: RETRY_WAIT_MAX, base: 2.0 },
        max_retries: 10,
        retry_timeout: RETRY_TIMEOUT,
    }
}

pub(super) fn client() -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(60))
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
