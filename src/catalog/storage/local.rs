//! The local file system, durably: a file appears under its name only when its bytes are on disk, and its name is on
//! disk before anyone is told. All of it runs on tokio's blocking threads.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use iceberg::io::{FileRead, FileWrite};
use tempfile::NamedTempFile;

use super::Entry;
use super::failure::io_error;

/// Runs blocking file system work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> iceberg::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| io_error(path, error)),
        Err(ended) => Err(io_error(path, io::Error::other(ended))),
    }
}

/// Whether an existing file of the name may be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Replace,
    /// Fails with `AlreadyExists`; for metadata files, which nobody may ever change.
    Create,
}

/// A file in the making: its bytes go to a hidden neighbour that is deleted unless [`Staged::publish`] succeeds.
struct Staged {
    file: NamedTempFile,
    target: PathBuf,
}

impl Staged {
    fn create(target: PathBuf) -> io::Result<Staged> {
        let folder = parent(&target)?;
        create_folder(folder)?;
        // Readers are often other users: the usual permissions (the umask applies) instead of tempfile's private ones.
        let permissions = fs::Permissions::from_mode(0o666);
        let file =
            tempfile::Builder::new().prefix(".calve-").suffix(".tmp").permissions(permissions).tempfile_in(folder)?;
        Ok(Staged { file, target })
    }

    fn publish(self, mode: Mode) -> io::Result<()> {
        let Staged { file, target } = self;
        file.as_file().sync_all()?;
        match mode {
            Mode::Replace => file.persist(&target).map_err(|failed| failed.error)?,
            Mode::Create => file.persist_noclobber(&target).map_err(|failed| failed.error)?,
        };
        sync_folder(parent(&target)?)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates the folder and what is missing above it; each new name is on disk when this returns.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    match folder.parent() {
        Some(above) => sync_folder(above),
        None => Ok(()),
    }
}

pub(super) fn write(target: PathBuf, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let mut staged = Staged::create(target)?;
    staged.file.write_all(bytes)?;
    staged.publish(mode)
}

/// Deletes a file; one that is not there is deleted already.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(super) fn delete_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// All files under `folder`, which is written `prefix` in the locations that come back; bounded memory.
pub(super) fn list(folder: PathBuf, prefix: String) -> BoxStream<'static, iceberg::Result<Entry>> {
    let (send, receive) = tokio::sync::mpsc::channel(256);
    tokio::task::spawn_blocking(move || {
        let mut folders = vec![(folder, prefix)];
        while let Some((folder, prefix)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let _ = send.blocking_send(Err(io_error(&prefix, error)));
                    return;
                }
            };
            for entry in entries {
                match entry.and_then(|entry| visit(&entry, &prefix)) {
                    Ok(Visited::Folder(path, location)) => folders.push((path, location)),
                    Ok(Visited::File(entry)) => {
                        // Nobody listens any more: stop walking.
                        if send.blocking_send(Ok(entry)).is_err() {
                            return;
                        }
                    }
                    // Deleted between listing and looking.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let _ = send.blocking_send(Err(io_error(&prefix, error)));
                        return;
                    }
                }
            }
        }
    });
    Box::pin(futures::stream::unfold(receive, |mut receive| async move {
        let entry = receive.recv().await?;
        Some((entry, receive))
    }))
}

enum Visited {
    Folder(PathBuf, String),
    File(Entry),
}

fn visit(entry: &fs::DirEntry, prefix: &str) -> io::Result<Visited> {
    let name = entry.file_name();
    let name = name.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a file name is not UTF-8"))?;
    let location = super::location::join(prefix, name);
    let metadata = entry.metadata()?;
    if metadata.is_dir() {
        return Ok(Visited::Folder(entry.path(), location));
    }
    let modified: DateTime<Utc> = metadata.modified()?.into();
    Ok(Visited::File(Entry { location, size_bytes: metadata.len(), modified }))
}

/// Ranged reads of one open file.
pub(super) struct Reader {
    file: Arc<File>,
    location: String,
}

impl Reader {
    pub(super) async fn open(location: &str, path: PathBuf) -> iceberg::Result<Reader> {
        let file = blocking(location, move || File::open(path)).await?;
        Ok(Reader { file: Arc::new(file), location: location.to_owned() })
    }
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        let file = self.file.clone();
        blocking(&self.location, move || {
            let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
            // A range of a corrupt footer must not allocate what the file does not have.
            if range.end > file.metadata()?.len() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a read past the end of the file"));
            }
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }
}

/// A streamed file: published by `close`, deleted when dropped before that or when a write fails.
pub(super) struct Writer {
    staged: Option<Staged>,
    mode: Mode,
    location: String,
}

impl Writer {
    pub(super) async fn create(location: &str, path: PathBuf, mode: Mode) -> iceberg::Result<Writer> {
        let staged = blocking(location, move || Staged::create(path)).await?;
        Ok(Writer { staged: Some(staged), mode, location: location.to_owned() })
    }

    fn take(&mut self) -> iceberg::Result<Staged> {
        self.staged
            .take()
            .ok_or_else(|| io_error(&self.location, io::Error::other("the file was already closed or failed")))
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        let mut staged = self.take()?;
        let staged = blocking(&self.location, move || {
            staged.file.write_all(&bytes)?;
            Ok(staged)
        })
        .await?;
        self.staged = Some(staged);
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        let staged = self.take()?;
        let mode = self.mode;
        blocking(&self.location, move || staged.publish(mode)).await
    }
}
