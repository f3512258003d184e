//! An object store whose requests are counted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::telemetry::metrics::Requests;

#[derive(Debug)]
pub(super) struct Counted {
    store: Arc<dyn ObjectStore>,
    requests: Requests,
}

impl Counted {
    pub(super) fn new(store: Arc<dyn ObjectStore>, requests: Requests) -> Counted {
        Counted { store, requests }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.requests.store("put");
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.requests.store("begin");
        let upload = self.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { upload, requests: self.requests.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.requests.store(if options.head { "head" } else { "get" });
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // By object: how many of them go into a request is the store's affair.
        let requests = self.requests.clone();
        self.store.delete_stream(locations.inspect(move |_| requests.store("delete")).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.store("list");
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.requests.store("list");
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.requests.store("copy");
        self.store.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    requests: Requests,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.requests.store("part");
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.requests.store("complete");
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.requests.store("abort");
        self.upload.abort().await
    }
}
