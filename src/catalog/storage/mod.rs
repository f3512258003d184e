//! Where tables lie: one object_store-backed storage under iceberg's FileIO, for metadata, manifests, our Parquet and
//! the readers alike.
//!
//! A write that has returned is durable: local files are written aside, synced, renamed, and their folder synced; an
//! object is there when its put or the completion of its upload was answered. Metadata files are never replaced.

mod azure;
mod counted;
mod failure;
mod gcs;
mod local;
mod location;
mod object;
mod s3;
mod upload;
mod vended;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, StorageConfig, StorageFactory,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use self::counted::Counted;
use self::failure::{store_error, usage_error};
use self::vended::{Keys, Sas, Token, best};
use crate::telemetry::metrics::Requests;

pub use azure::Container;
pub use location::{Bucket, Location, join};
pub use vended::{Grant, Vending};

const DELETES_IN_FLIGHT: usize = 16;

/// A file as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Spelled as the prefix that was listed, so that it compares with the locations in table metadata.
    pub location: String,
    pub size_bytes: u64,
    pub modified: DateTime<Utc>,
}

/// Local files and object stores under one roof; cheap to clone. Stores are made on first use, one per bucket, and
/// keep their connections.
///
/// iceberg wants storages to be serializable; what is written is empty, for the properties hold secrets.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Storage {
    #[serde(skip)]
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// `s3.*`, `gcs.*`, `adls.*` and whatever else the catalog's file holds.
    properties: BTreeMap<String, String>,
    requests: Requests,
    /// Who vends keys for parts of them, which win over the properties'.
    vending: Option<Arc<dyn Vending>>,
    /// By bucket, and by the prefix that keys were vended for.
    buckets: Mutex<HashMap<(Bucket, Option<String>), Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage")
    }
}

impl Storage {
    pub fn new(properties: BTreeMap<String, String>) -> Storage {
        Storage::counted(properties, Requests::default())
    }

    /// Stores whose requests are counted.
    pub fn counted(properties: BTreeMap<String, String>, requests: Requests) -> Storage {
        Storage { inner: Arc::new(Inner { properties, requests, vending: None, buckets: Mutex::default() }) }
    }

    /// The same stores, with keys that are vended.
    pub fn vended(&self, vending: Arc<dyn Vending>) -> Storage {
        let (properties, requests) = (self.inner.properties.clone(), self.inner.requests.clone());
        Storage { inner: Arc::new(Inner { properties, requests, vending: Some(vending), buckets: Mutex::default() }) }
    }

    /// The same stores with some properties replaced: what a catalog vends for one table. Connections are shared only
    /// if nothing changes.
    pub fn with(&self, overrides: &HashMap<String, String>) -> Storage {
        if overrides.iter().all(|(key, value)| self.inner.properties.get(key) == Some(value)) {
            return self.clone();
        }
        let mut properties = self.inner.properties.clone();
        properties.extend(overrides.iter().map(|(key, value)| (key.clone(), value.clone())));
        Storage::counted(properties, self.inner.requests.clone())
    }

    /// The FileIO that a [`iceberg::table::Table`] carries.
    pub fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(self.clone())).build()
    }

    /// All files under a location, in no particular order, with bounded memory.
    pub fn list(&self, prefix: &str) -> iceberg::Result<BoxStream<'static, iceberg::Result<Entry>>> {
        match locate(prefix)? {
            Location::Local(path) => Ok(local::list(path, prefix.trim_end_matches('/').to_owned())),
            Location::Object { bucket, key } => {
                let store = self.bucket(prefix, &bucket)?;
                let root = prefix.trim_end_matches('/').strip_suffix(key.trim_end_matches('/')).unwrap_or(prefix);
                let (root, prefix) = (root.trim_end_matches('/').to_owned(), prefix.to_owned());
                let entries = store.list(Some(&object_path(&prefix, &key)?));
                Ok(Box::pin(entries.map(move |entry| match entry {
                    Ok(meta) => Ok(Entry {
                        location: join(&root, meta.location.as_ref()),
                        size_bytes: meta.size,
                        modified: meta.last_modified,
                    }),
                    Err(error) => Err(store_error(&prefix, error)),
                })))
            }
        }
    }

    fn bucket(&self, location: &str, bucket: &Bucket) -> iceberg::Result<Arc<dyn ObjectStore>> {
        let vending = self.inner.vending.as_ref();
        let granted = vending.and_then(|vending| Some((vending, best(&vending.last(), location)?.clone())));
        let name = (bucket.clone(), granted.as_ref().map(|(_, grant)| grant.prefix.clone()));
        let mut buckets = self.inner.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(store) = buckets.get(&name) {
            return Ok(store.clone());
        }
        let mut properties = self.inner.properties.clone();
        let keys = granted.and_then(|(vending, grant)| {
            properties.extend(grant.properties.clone());
            Keys::new(vending.clone(), &grant, bucket, location)
        });
        let store: Arc<dyn ObjectStore> = match bucket {
            Bucket::S3(name) => s3::open(name, &properties, keys.map(|keys| Arc::new(keys) as _))?,
            Bucket::Gcs(name) => gcs::open(name, &properties, keys.map(|keys| Arc::new(Token(keys)) as _))?,
            Bucket::Azure(container) => azure::open(container, &properties, keys.map(|keys| Arc::new(Sas(keys)) as _))?,
        };
        let store: Arc<dyn ObjectStore> = Arc::new(Counted::new(store, self.inner.requests.clone()));
        buckets.insert(name, store.clone());
        Ok(store)
    }

    fn object(&self, location: &str, bucket: &Bucket, key: &str) -> iceberg::Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.bucket(location, bucket)?, object_path(location, key)?))
    }
}

/// A property that is there and not empty.
fn said<'a>(properties: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    properties.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn locate(location: &str) -> iceberg::Result<Location> {
    Location::parse(location).map_err(usage_error)
}

fn object_path(location: &str, key: &str) -> iceberg::Result<Path> {
    Path::parse(key).map_err(|error| usage_error(format!("{location}: {error}")))
}

/// Nobody may change a metadata file that a catalog may point to.
fn create_only(location: &str) -> bool {
    location.ends_with(".metadata.json")
}

#[async_trait]
#[typetag::serde(name = "calve")]
impl iceberg::io::Storage for Storage {
    async fn exists(&self, location: &str) -> iceberg::Result<bool> {
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("head");
                local::blocking(location, move || path.try_exists()).await
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                match store.head(&key).await {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::NotFound { .. }) => Ok(false),
                    Err(error) => Err(store_error(location, error)),
                }
            }
        }
    }

    async fn metadata(&self, location: &str) -> iceberg::Result<FileMetadata> {
        let size = match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("head");
                local::blocking(location, move || Ok(path.metadata()?.len())).await?
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                store.head(&key).await.map_err(|error| store_error(location, error))?.size
            }
        };
        Ok(FileMetadata { size })
    }

    async fn read(&self, location: &str) -> iceberg::Result<Bytes> {
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("get");
                local::blocking(location, move || std::fs::read(path)).await.map(Bytes::from)
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                let object = store.get(&key).await.map_err(|error| store_error(location, error))?;
                object.bytes().await.map_err(|error| store_error(location, error))
            }
        }
    }

    async fn reader(&self, location: &str) -> iceberg::Result<Box<dyn FileRead>> {
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("get");
                Ok(Box::new(local::Reader::open(location, path).await?))
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                Ok(Box::new(object::Reader { store, key, location: location.to_owned() }))
            }
        }
    }

    async fn write(&self, location: &str, bytes: Bytes) -> iceberg::Result<()> {
        let create = create_only(location);
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("put");
                let mode = if create { local::Mode::Create } else { local::Mode::Replace };
                local::blocking(location, move || local::write(path, &bytes, mode)).await
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                object::put(store.as_ref(), location, &key, bytes, create).await
            }
        }
    }

    async fn writer(&self, location: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("put");
                let mode = if create_only(location) { local::Mode::Create } else { local::Mode::Replace };
                Ok(Box::new(local::Writer::create(location, path, mode).await?))
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                Ok(Box::new(upload::Writer::new(store, key, location)))
            }
        }
    }

    async fn delete(&self, location: &str) -> iceberg::Result<()> {
        match locate(location)? {
            Location::Local(path) => {
                self.inner.requests.store("delete");
                local::blocking(location, move || local::delete(&path)).await
            }
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                match store.delete(&key).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(store_error(location, error)),
                }
            }
        }
    }

    async fn delete_prefix(&self, location: &str) -> iceberg::Result<()> {
        match locate(location)? {
            Location::Local(path) => local::blocking(location, move || local::delete_folder(&path)).await,
            Location::Object { bucket, key } => {
                let (store, key) = self.object(location, &bucket, &key)?;
                let keys = store.list(Some(&key)).map(|entry| entry.map(|meta| meta.location)).boxed();
                let mut deleted = store.delete_stream(keys);
                while let Some(result) = deleted.next().await {
                    match result {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(store_error(location, error)),
                    }
                }
                Ok(())
            }
        }
    }

    async fn delete_stream(&self, locations: BoxStream<'static, String>) -> iceberg::Result<()> {
        let storage = self.clone();
        let mut deletions = locations
            .map(move |location| {
                let storage = storage.clone();
                async move { storage.delete(&location).await }
            })
            .buffer_unordered(DELETES_IN_FLIGHT);
        while let Some(deleted) = deletions.next().await {
            deleted?;
        }
        Ok(())
    }

    fn new_input(&self, location: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), location.to_owned()))
    }

    fn new_output(&self, location: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), location.to_owned()))
    }
}

#[typetag::serde(name = "calve")]
impl StorageFactory for Storage {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn iceberg::io::Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

/// Creates a local folder durably, with what is missing above it.
pub fn create_folder(folder: &FilePath) -> io::Result<()> {
    local::create_folder(folder)
}
