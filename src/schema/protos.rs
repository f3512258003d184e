//! A folder of `.proto` files compiled to a FileDescriptorSet, comments included.
//!
//! protox compiles proto2 and proto3 without anything installed. It knows no editions: a folder that uses them goes
//! through `protoc` or `buf` from the PATH.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use super::lenient::{Lenient, Renamed};
use super::protoc;

/// The import path of calve's own options, and their source: bundled, so that a user's folder need not hold them.
pub const OPTIONS_PATH: &str = "calve/v1/options.proto";
pub const OPTIONS: &str = include_str!("../../proto/calve/v1/options.proto");

/// Folders deeper than this are taken for a loop of links.
const FOLDER_DEPTH_MAX: usize = 64;

/// Compiles every `.proto` below the folder, the folder being the import path. `google/protobuf/*` and
/// `calve/v1/options.proto` can be imported without being there.
pub fn compile(folder: &Path) -> Result<Vec<u8>> {
    let files = find(folder)?;
    if files.is_empty() {
        bail!("{}: no .proto file in this folder or below it", folder.display());
    }
    for file in &files {
        let source =
            fs::read(folder.join(file)).with_context(|| format!("{}: cannot read", folder.join(file).display()))?;
        if uses_editions(&source) {
            return protoc::compile(folder, &files, file);
        }
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_path_buf()));
    resolver.add(Bundled);
    resolver.add(GoogleFileResolver::new());
    let renamed = Renamed::default();
    let mut compiler = Compiler::with_file_resolver(Lenient { inner: resolver, renamed: renamed.clone() });
    compiler.include_imports(true).include_source_info(true);
    for file in &files {
        compiler.open_file(folder.join(file)).map_err(|e| located(folder, &e))?;
    }
    renamed.restore(compiler.encode_file_descriptor_set())
}

/// protox writes `file:line:column: message` with Debug, and the message alone with Display.
fn located(folder: &Path, error: &protox::Error) -> anyhow::Error {
    let text = format!("{error:?}");
    let text = text.lines().next().unwrap_or_default();
    match error.file() {
        Some(file) if text.starts_with(file) => anyhow::anyhow!("{}", folder.join(text).display()),
        Some(file) => anyhow::anyhow!("{}: {text}", folder.join(file).display()),
        None => anyhow::anyhow!("{}: {text}", folder.display()),
    }
}

struct Bundled;

impl FileResolver for Bundled {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            OPTIONS_PATH => File::from_source(name, OPTIONS),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// All `.proto` files, relative to the folder, in a fixed order. Hidden entries are left out (a mounted ConfigMap keeps
/// its versions in `..data`), links are followed.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, Path::new(""), 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, below: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let here = folder.join(below);
    if depth > FOLDER_DEPTH_MAX {
        bail!("{}: folders nested deeper than {FOLDER_DEPTH_MAX}; is there a loop of links?", here.display());
    }
    let entries = fs::read_dir(&here).with_context(|| format!("{}: cannot read the schema folder", here.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{}: cannot read the schema folder", here.display()))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = below.join(&name);
        let kind = fs::metadata(folder.join(&path))
            .with_context(|| format!("{}: cannot read", folder.join(&path).display()))?;
        if kind.is_dir() {
            walk(folder, &path, depth + 1, found)?;
        } else if path.extension() == Some(OsStr::new("proto")) {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether the first statement of a `.proto` file is `edition = …`; everything before it can only be comments.
fn uses_editions(source: &[u8]) -> bool {
    let mut rest = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    loop {
        rest = rest.trim_ascii_start();
        if let Some(comment) = rest.strip_prefix(b"//") {
            let end = comment.iter().position(|&byte| byte == b'\n').unwrap_or(comment.len());
            rest = &comment[end..];
        } else if let Some(comment) = rest.strip_prefix(b"/*") {
            let Some(end) = comment.windows(2).position(|pair| pair == b"*/") else { return false };
            rest = &comment[end + 2..];
        } else {
            let Some(rest) = rest.strip_prefix(b"edition") else { return false };
            return rest.trim_ascii_start().starts_with(b"=");
        }
    }
}
