//! Real parts, each started by its script in `tests/parts/`. A part that cannot be had fails the test that wants it,
//! with the script's own words.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A running part; it stops when this is dropped, or when the test process ends in whatever way.
pub struct Part {
    /// What the script printed: the part's address.
    pub address: String,
    folder: tempfile::TempDir,
    script: PathBuf,
}

impl Part {
    /// Runs `tests/parts/NAME.sh start FOLDER ARGUMENTS…`.
    pub fn start(name: &str, arguments: &[&str]) -> Part {
        let script = script(name);
        let folder = tempfile::Builder::new().prefix(&format!("calve-{name}-")).tempdir().expect("a temp folder");
        let output = Command::new("bash")
            .arg(&script)
            .arg("start")
            .arg(folder.path())
            .args(arguments)
            .env("CALVE_PARTS_OWNER", std::process::id().to_string())
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{name} cannot be had: {}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8(output.stdout).expect("an address").trim().to_owned();
        Part { address, folder, script }
    }

    /// The part's data, log and pid file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = Command::new("bash").arg(&self.script).arg("stop").arg(self.folder.path()).output();
    }
}

/// The path of `tests/parts/NAME.sh`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts").join(format!("{name}.sh"))
}

/// A Python with PyIceberg and DuckDB in it.
pub fn python() -> PathBuf {
    let output = Command::new("bash").arg(script("engines")).output().expect("bash runs");
    assert!(output.status.success(), "no engines: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// The folder of the descriptor sets that `tests/parts/schemas.sh` makes.
pub fn schema_sets() -> PathBuf {
    let output = Command::new("bash").arg(script("schemas")).output().expect("bash runs");
    assert!(output.status.success(), "no schemas: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}
