//! Objects that are written bit by bit.

use std::mem;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::ErrorKind;
use iceberg::io::FileWrite;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, Result};
use tokio::task::JoinSet;

use super::failure::{store_error, usage_error};

/// Size of an upload's parts, but for its last. S3 takes at most 10,000 of them, so files up to 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file that are under way at the same time; with the one being filled, this bounds its memory.
const PARTS_IN_FLIGHT: usize = 2;

/// One put when the object is small, else a multipart upload, which is aborted when anything fails or the writer is
/// dropped before `close`.
pub(super) struct Writer {
    store: Arc<dyn ObjectStore>,
    key: Path,
    location: String,
    /// The part that is being filled.
    part: Vec<Bytes>,
    part_bytes: usize,
    bytes: u64,
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: JoinSet<Result<()>>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(store: Arc<dyn ObjectStore>, key: Path, location: &str) -> Writer {
        Writer {
            store,
            key,
            location: location.to_owned(),
            part: Vec::new(),
            part_bytes: 0,
            bytes: 0,
            upload: None,
            under_way: JoinSet::new(),
            ended: false,
        }
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        while self.part_bytes + bytes.len() >= PART_BYTES {
            let rest = bytes.split_off(PART_BYTES - self.part_bytes);
            self.part.push(mem::replace(&mut bytes, rest));
            self.send_part().await?;
        }
        self.part_bytes += bytes.len();
        self.part.push(bytes);
        Ok(())
    }

    /// Sends the part that is being filled, once there are few enough under way.
    async fn send_part(&mut self) -> Result<()> {
        self.part_bytes = 0;
        let payload: PutPayload = mem::take(&mut self.part).into_iter().collect();
        while self.under_way.len() >= PARTS_IN_FLIGHT {
            self.part_arrived().await?;
        }
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.key).await?),
        };
        self.under_way.spawn(upload.put_part(payload));
        Ok(())
    }

    async fn part_arrived(&mut self) -> Result<()> {
        match self.under_way.join_next().await {
            Some(Ok(sent)) => sent,
            Some(Err(error)) => Err(Error::JoinError { source: error }),
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        if self.upload.is_none() {
            let payload: PutPayload = mem::take(&mut self.part).into_iter().collect();
            return self.store.put(&self.key, payload).await.map(drop);
        }
        if self.part_bytes > 0 {
            self.send_part().await?;
        }
        while !self.under_way.is_empty() {
            self.part_arrived().await?;
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.complete().await {
            Ok(_) => Ok(()),
            // A repeated completion finds no upload if it is the answer of the first one that was lost. No other object has
            // this name.
            Err(error) => match self.store.head(&self.key).await {
                Ok(there) if there.size == self.bytes => Ok(()),
                _ => Err(error),
            },
        }
    }

    async fn abandon(&mut self) {
        self.under_way.shutdown().await;
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(location = %self.location, %error, "an unfinished upload could not be aborted; its parts stay until the bucket's lifecycle rule removes them");
        }
    }

    async fn failed(&mut self, error: Error) -> iceberg::Error {
        let started = self.upload.is_some();
        self.ended = true;
        self.abandon().await;
        match error {
            // Not the bucket: the upload, which somebody has aborted, or the store has forgotten.
            Error::NotFound { source, .. } if started && !source.to_string().contains("NoSuchBucket") => {
                let message = format!("{}: the store does not know the upload any more: {source}", self.location);
                iceberg::Error::new(ErrorKind::Unexpected, message).with_retryable(true)
            }
            error => store_error(&self.location, error),
        }
    }

    fn check_open(&self) -> iceberg::Result<()> {
        match self.ended {
            true => Err(usage_error(format!("{}: the file was already closed or failed", self.location))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        self.check_open()?;
        match self.append(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        self.check_open()?;
        match self.finish().await {
            Ok(()) => {
                self.ended = true;
                self.upload = None;
                Ok(())
            }
            Err(error) => Err(self.failed(error).await),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let mut under_way = mem::take(&mut self.under_way);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                under_way.shutdown().await;
                // Best effort: the process may be going down, and the bucket's lifecycle rule is the backstop.
                let _ = upload.abort().await;
            });
        }
    }
}
