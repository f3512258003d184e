//! A catalog in memory for this module's tests: it injects conflicts and lost answers, before and after the change was
//! applied, delivers a request late, counts what the store is asked for, and plays the foreign writer.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, MemoryStorage, OutputFile, Storage,
    StorageConfig, StorageFactory,
};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, MAIN_BRANCH, NestedField, Operation,
    PrimitiveType, Schema, SortOrder, Struct, TableMetadata, TableMetadataBuilder, Type, UnboundPartitionSpec,
};
use iceberg::table::Table;
use iceberg::{MetadataLocation, NamespaceIdent, Runtime, TableIdent, TableRequirement, TableUpdate};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::expire::Refs;
use super::manifests::{Manifests, load_entries, load_list};
use super::snapshot::{Delta, produce};
use crate::catalog::{Catalog, Creation, Error, Result, TableChange};

/// What happens to the next commit request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not applied, the answer is lost.
    LostBefore,
    /// Applied, the answer is lost.
    LostAfter,
    /// Not applied yet, the answer is lost; it is tried when [`FakeCatalog::deliver`] is called.
    Late,
    Unavailable,
    /// A foreign writer is faster.
    Overtaken,
    /// Of changes that were to be one, only the first is applied; the answer is lost.
    Torn,
    /// Of changes that were to be one, the first is dropped; all is said to be well.
    Dropped,
}

#[derive(Debug)]
pub struct FakeCatalog {
    io: FileIO,
    pub counts: Arc<Counts>,
    tables: Mutex<HashMap<TableIdent, (Arc<TableMetadata>, String)>>,
    faults: Mutex<VecDeque<Fault>>,
    late: Mutex<Vec<Vec<Requested>>>,
    pub trust_mirror: bool,
}

/// A change of one table, as it is asked for.
type Requested = (TableIdent, Vec<TableRequirement>, Vec<TableUpdate>);

/// Requests to the store and the catalog, and bytes written.
#[derive(Debug, Default)]
pub struct Counts {
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub commits: AtomicU64,
    pub loads: AtomicU64,
    pub metadata_bytes: AtomicU64,
}

impl Counts {
    pub fn get(&self) -> [u64; 6] {
        [&self.reads, &self.writes, &self.written_bytes, &self.commits, &self.loads, &self.metadata_bytes]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

pub fn ident() -> TableIdent {
    TableIdent::from_strs(["bronze", "orders"]).unwrap()
}

impl FakeCatalog {
    pub fn new() -> FakeCatalog {
        let counts = Arc::new(Counts::default());
        let key = Uuid::new_v4().to_string();
        STORES.lock().unwrap().insert(key.clone(), (MemoryStorage::new(), counts.clone()));
        let io = FileIOBuilder::new(Arc::new(CountingFactory)).with_prop("store", key).build();
        FakeCatalog {
            io,
            counts,
            tables: Mutex::default(),
            faults: Mutex::default(),
            late: Mutex::default(),
            trust_mirror: false,
        }
    }

    /// A catalog with the table `bronze.orders` of one column.
    pub async fn with_table(properties: &[(&str, &str)]) -> Arc<FakeCatalog> {
        let catalog = FakeCatalog::new();
        catalog.create(&ident(), creation(properties)).await.unwrap();
        Arc::new(catalog)
    }

    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Requests that were thought lost arrive now.
    pub async fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for request in late {
            // Their sender has long given up on the answer.
            let _ = self.apply_all(request).await;
        }
    }

    pub fn metadata(&self) -> Arc<TableMetadata> {
        self.tables.lock().unwrap()[&ident()].0.clone()
    }

    pub fn table(&self) -> Table {
        let (metadata, location) = self.tables.lock().unwrap()[&ident()].clone();
        self.build(&ident(), metadata, location)
    }

    pub fn io(&self) -> &FileIO {
        &self.io
    }

    fn build(&self, ident: &TableIdent, metadata: Arc<TableMetadata>, location: String) -> Table {
        Table::builder()
            .file_io(self.io.clone())
            .metadata(metadata)
            .metadata_location(location)
            .identifier(ident.clone())
            .runtime(Runtime::current())
            .disable_cache()
            .build()
            .unwrap()
    }

    /// A request for one or several tables, with what happens to it.
    async fn request(&self, mut changes: Vec<Requested>) -> Result<Vec<Table>> {
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::LostBefore) => return Err(Error::Unknown("lost before".to_owned())),
            Some(Fault::Unavailable) => return Err(Error::Unavailable("overloaded".to_owned())),
            Some(Fault::Late) => {
                self.late.lock().unwrap().push(changes);
                return Err(Error::Unknown("late".to_owned()));
            }
            Some(Fault::Overtaken) => drop(self.foreign_append(1).await),
            Some(Fault::Torn) => changes.truncate(1),
            Some(Fault::LostAfter | Fault::Dropped) | None => {}
        }
        if fault == Some(Fault::Dropped) {
            let (ident, _, _) = changes.remove(0);
            let mut tables = vec![self.load(&ident).await?];
            tables.extend(self.apply_all(changes).await?);
            return Ok(tables);
        }
        let answer = self.apply_all(changes).await;
        match fault {
            Some(Fault::LostAfter | Fault::Torn) => Err(Error::Unknown("lost after".to_owned())),
            _ => answer,
        }
    }

    /// All of them, or none if a requirement of one does not hold.
    async fn apply_all(&self, changes: Vec<Requested>) -> Result<Vec<Table>> {
        for (ident, requirements, _) in &changes {
            let current = self.tables.lock().unwrap().get(ident).map(|(metadata, _)| metadata.clone());
            let current = current.ok_or_else(|| Error::NotFound(ident.to_string()))?;
            for requirement in requirements {
                requirement.check(Some(&current)).map_err(|error| Error::Conflict(error.to_string()))?;
            }
        }
        let mut tables = Vec::new();
        for (ident, requirements, updates) in changes {
            tables.push(self.apply(&ident, requirements, updates).await?);
        }
        Ok(tables)
    }

    async fn apply(
        &self,
        ident: &TableIdent,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let (current, location) =
            self.tables.lock().unwrap().get(ident).cloned().ok_or_else(|| Error::NotFound(ident.to_string()))?;
        for requirement in requirements {
            requirement.check(Some(&current)).map_err(|error| Error::Conflict(error.to_string()))?;
        }
        let mut builder = TableMetadataBuilder::new_from_metadata(current.as_ref().clone(), Some(location.clone()));
        for update in updates {
            builder = update.apply(builder).map_err(|error| Error::Refused(error.to_string()))?;
        }
        let built = builder.build().map_err(|error| Error::Refused(error.to_string()))?;
        let next = location.parse::<MetadataLocation>().unwrap().with_next_version().with_new_metadata(&built.metadata);
        let before = self.counts.written_bytes.load(Ordering::Relaxed);
        built.metadata.write_to(&self.io, &next).await.unwrap();
        let bytes = self.counts.written_bytes.load(Ordering::Relaxed) - before;
        self.counts.metadata_bytes.store(bytes, Ordering::Relaxed);
        let metadata = Arc::new(built.metadata);
        {
            let mut tables = self.tables.lock().unwrap();
            let entry = tables.get_mut(ident).unwrap();
            if entry.1 != location {
                return Err(Error::Conflict("somebody was faster".to_owned()));
            }
            *entry = (metadata.clone(), next.to_string());
        }
        if metadata.properties().get("write.metadata.delete-after-commit.enabled").is_some_and(|value| value == "true")
        {
            for old in built.expired_metadata_logs {
                self.io.delete(&old.metadata_file).await.unwrap();
            }
        }
        Ok(self.build(ident, metadata, next.to_string()))
    }

    /// A change by somebody else, without any fence of ours.
    pub async fn foreign(&self, updates: Vec<TableUpdate>) {
        self.apply(&ident(), Vec::new(), updates).await.unwrap();
    }

    /// Somebody else appends `rows` rows.
    pub async fn foreign_append(&self, rows: u64) -> i64 {
        self.foreign_snapshot(Operation::Append, &[data_file("foreign", rows)], &[]).await
    }

    /// Somebody else commits a snapshot with these summary keys.
    pub async fn foreign_snapshot(&self, operation: Operation, files: &[DataFile], keys: &[(&str, &str)]) -> i64 {
        let table = self.table();
        let summary = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let delta = Delta { operation, added: files, spec_id: 0, commit_id: Uuid::nil(), summary: &summary };
        let now = chrono::Utc::now().timestamp_millis();
        let schema = table.metadata().current_schema().clone();
        let produced = produce(&table, schema, &mut Manifests::default(), &delta, now).await.unwrap();
        let id = produced.snapshot.snapshot_id();
        let refs = Refs::of(table.metadata()).unwrap();
        self.foreign(vec![
            TableUpdate::AddSnapshot { snapshot: produced.snapshot },
            TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: refs.main_at(id) },
        ])
        .await;
        id
    }

    pub async fn foreign_rollback(&self, snapshot: i64) {
        let refs = Refs::of(&self.metadata()).unwrap();
        let update =
            TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: refs.main_at(snapshot) };
        self.foreign(vec![update]).await;
    }

    pub async fn foreign_expire(&self, snapshots: Vec<i64>) {
        self.foreign(vec![TableUpdate::RemoveSnapshots { snapshot_ids: snapshots }]).await;
    }

    /// The head's snapshot loses its totals, as some writers leave them out.
    pub async fn forget_totals(&self) {
        let (metadata, location) = self.tables.lock().unwrap()[&ident()].clone();
        let mut json = serde_json::to_value(metadata.as_ref()).unwrap();
        for snapshot in json["snapshots"].as_array_mut().unwrap() {
            snapshot["summary"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("total-"));
        }
        let metadata: TableMetadata = serde_json::from_value(json).unwrap();
        let next = location.parse::<MetadataLocation>().unwrap().with_next_version();
        self.tables.lock().unwrap().insert(ident(), (Arc::new(metadata), next.to_string()));
    }

    pub fn forget_faults(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// The files that a reader of the head sees, through manifest list and manifests.
    pub async fn live_files(&self) -> Vec<DataFile> {
        self.live_files_of(&ident()).await
    }

    pub async fn live_files_of(&self, ident: &TableIdent) -> Vec<DataFile> {
        let (metadata, location) = self.tables.lock().unwrap()[ident].clone();
        let table = self.build(ident, metadata, location);
        let mut files = Vec::new();
        for manifest in load_list(&table, table.metadata().current_snapshot_id()).await.unwrap() {
            files.extend(load_entries(&table, &manifest).await.unwrap().into_iter().map(|entry| entry.file));
        }
        files
    }
}

pub fn creation(properties: &[(&str, &str)]) -> Creation {
    let field = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    Creation {
        schema: Schema::builder().with_fields(vec![field.into()]).build().unwrap(),
        partition_spec: UnboundPartitionSpec::default(),
        sort_order: SortOrder::unsorted_order(),
        properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

/// A data file that is only a name: what it holds is in the name.
pub fn data_file(name: &str, rows: u64) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(format!("memory:/orders/data/{name}.parquet"))
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .record_count(rows)
        .file_size_in_bytes(100 * rows)
        .partition_spec_id(0)
        .build()
        .unwrap()
}

#[async_trait]
impl Catalog for FakeCatalog {
    fn name(&self) -> &str {
        "fake"
    }

    fn trust_mirror(&self) -> bool {
        self.trust_mirror
    }

    async fn create_namespace(&self, _: &NamespaceIdent) -> Result<()> {
        Ok(())
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        Ok(vec![NamespaceIdent::new("bronze".to_owned())])
    }

    async fn tables(&self, _: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        Ok(self.tables.lock().unwrap().keys().cloned().collect())
    }

    async fn load(&self, table: &TableIdent) -> Result<Table> {
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        let (metadata, location) =
            self.tables.lock().unwrap().get(table).cloned().ok_or_else(|| Error::NotFound(table.to_string()))?;
        Ok(self.build(table, metadata, location))
    }

    async fn create(&self, table: &TableIdent, creation: Creation) -> Result<Table> {
        if self.tables.lock().unwrap().contains_key(table) {
            return Err(Error::AlreadyExists(table.to_string()));
        }
        let version = match creation.properties.get("test.v3") {
            Some(_) => FormatVersion::V3,
            None => FormatVersion::V2,
        };
        let metadata = TableMetadataBuilder::new(
            creation.schema,
            creation.partition_spec,
            creation.sort_order,
            format!("memory:/{}", table.name()),
            version,
            creation.properties,
        )
        .and_then(TableMetadataBuilder::build)
        .map_err(|error| Error::Refused(error.to_string()))?
        .metadata;
        let location = MetadataLocation::new_with_metadata(metadata.location(), &metadata);
        metadata.write_to(&self.io, &location).await.unwrap();
        let metadata = Arc::new(metadata);
        self.tables.lock().unwrap().insert(table.clone(), (metadata.clone(), location.to_string()));
        Ok(self.build(table, metadata, location.to_string()))
    }

    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let mut tables = self.request(vec![(base.identifier().clone(), requirements, updates)]).await?;
        Ok(tables.pop().expect("a table that was changed"))
    }

    fn commits_together(&self) -> bool {
        true
    }

    fn is_atomic(&self) -> bool {
        false
    }

    async fn commit_together(&self, changes: Vec<TableChange<'_>>) -> Result<Vec<Table>> {
        let changes = changes.into_iter();
        let changes = changes.map(|change| (change.base.identifier().clone(), change.requirements, change.updates));
        self.request(changes.collect()).await
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.tables.lock().unwrap().remove(table).map(drop).ok_or_else(|| Error::NotFound(table.to_string()))
    }
}

/// Iceberg's storage is made from configuration only, so a test's store is found by a key in it.
static STORES: LazyLock<Mutex<HashMap<String, (MemoryStorage, Arc<Counts>)>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CountingFactory;

#[typetag::serde(name = "calve-counting")]
impl StorageFactory for CountingFactory {
    fn build(&self, config: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        let key = config.get("store").expect("the fake catalog sets it");
        let (store, counts) = STORES.lock().unwrap()[key].clone();
        Ok(Arc::new(CountingStorage { store, counts }))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CountingStorage {
    store: MemoryStorage,
    #[serde(skip)]
    counts: Arc<Counts>,
}

#[async_trait]
#[typetag::serde(name = "calve-counting")]
impl Storage for CountingStorage {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        self.store.exists(path).await
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        self.store.metadata(path).await
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read(path).await
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.store.read(path).await?;
        Ok(Box::new(Ranges(bytes)))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> iceberg::Result<()> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.counts.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.store.write(path, bytes).await
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.store.writer(path).await
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.store.delete(path).await
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        self.store.delete_prefix(path).await
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[derive(Debug)]
struct Ranges(Bytes);

#[async_trait]
impl FileRead for Ranges {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}
