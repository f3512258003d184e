//! `.proto` files with editions, compiled by `protoc` or `buf` where one of them is installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::protos::{OPTIONS, OPTIONS_PATH};

/// Compiles `files` (relative to `folder`); `cause` is the file that uses editions.
pub fn compile(folder: &Path, files: &[PathBuf], cause: &Path) -> Result<Vec<u8>> {
    let path = env::var_os("PATH").unwrap_or_default();
    compile_with(folder, files, cause, &env::split_paths(&path).collect::<Vec<_>>())
}

/// [`compile`] with the folders to look for a compiler in.
pub fn compile_with(folder: &Path, files: &[PathBuf], cause: &Path, search: &[PathBuf]) -> Result<Vec<u8>> {
    let find = |name: &str| search.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    // The compilers see a copy: our options are found beside the user's files, and no buf.yaml gets a say.
    let copy = tempfile::tempdir().context("cannot make a temporary folder for the compiler")?;
    let output = copy.path().join("schema.binpb");
    let sources = copy.path().join("proto");
    for file in files {
        put(
            &sources.join(file),
            &fs::read(folder.join(file)).with_context(|| folder.join(file).display().to_string())?,
        )?;
    }
    if !files.iter().any(|file| file == Path::new(OPTIONS_PATH)) {
        put(&sources.join(OPTIONS_PATH), OPTIONS.as_bytes())?;
    }
    let mut command = if let Some(protoc) = find("protoc") {
        let mut command = Command::new(protoc);
        command.args(["-I.", "--include_imports", "--include_source_info"]);
        command.arg(format!("--descriptor_set_out={}", output.display())).args(files);
        command
    } else if let Some(buf) = find("buf") {
        let mut command = Command::new(buf);
        command.args(["build", ".", "--as-file-descriptor-set", "-o"]).arg(&output);
        command
    } else {
        bail!(
            "{}: uses editions, which calve cannot compile by itself, and neither protoc nor buf is on the PATH; make a descriptor set (`buf build -o schema.binpb`, or `protoc -I {} --include_imports --include_source_info --descriptor_set_out=schema.binpb …`) and name it as the topic's schema",
            folder.join(cause).display(),
            folder.display()
        );
    };
    let name = command.get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default();
    let done = command.current_dir(&sources).output().with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        // Both compilers begin their messages with the file, relative to where they run.
        if files.iter().any(|file| first.starts_with(&format!("{}:", file.display()))) {
            bail!("{} ({name})", folder.join(first).display());
        }
        bail!("{}: {name} failed ({}): {first}", folder.join(cause).display(), done.status);
    }
    fs::read(&output).with_context(|| format!("{name} wrote no descriptor set"))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{}: cannot make the folder", parent.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("{}: cannot write", path.display()))
}
