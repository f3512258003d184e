//! `calve init`: a project that runs as it is against a local broker. Its files are the ones of the example in calve's
//! own repository.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::{Exit, Global, Usage};

/// Make a commented project
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  calve init shop && cd shop && calve validate && calve run")]
pub struct Args {
    /// Where; made when it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Paths in the project, and what is written there.
pub const FILES: &[(&str, &str)] = &[
    ("calve.toml", include_str!("../../calve.toml")),
    ("catalogs/local.toml", include_str!("../../catalogs/local.toml")),
    ("catalogs/rest.toml.example", include_str!("../../catalogs/rest.toml.example")),
    ("proto/shop/v1/money.proto", include_str!("../../proto/shop/v1/money.proto")),
    ("proto/shop/v1/order.proto", include_str!("../../proto/shop/v1/order.proto")),
    ("sql/silver/order_lines.sql", include_str!("../../sql/silver/order_lines.sql")),
];

/// Written where there is none yet: the tables of the example are not for the repository that the project is in.
const IGNORE: (&str, &str) = (".gitignore", "/warehouse/\n");

#[derive(Serialize)]
struct Made {
    dir: PathBuf,
    files: Vec<&'static str>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    write(&args.dir)?;
    let made = Made { files: FILES.iter().map(|(path, _)| *path).collect(), dir: args.dir };
    global.output.print(&made, || {
        let mut text = format!("made a project in {}:\n", made.dir.display());
        made.files.iter().for_each(|file| text += &format!("  {file}\n"));
        if made.dir != Path::new(".") {
            text += &format!("next: cd {}\n", made.dir.display());
        }
        text + "then: calve validate; calve run   (a broker on 127.0.0.1:9092, or KAFKA_BOOTSTRAP=HOST:PORT)\n"
    })?;
    Ok(Exit::Done)
}

/// Writes the project; nothing when any of its files is there already.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let there: Vec<&str> = FILES.iter().map(|(path, _)| *path).filter(|path| dir.join(path).exists()).collect();
    if !there.is_empty() {
        let message = format!("{} has {} already; choose an empty folder", dir.display(), there.join(", "));
        return Err(Usage(message).into());
    }
    let ignore = Some(&IGNORE).filter(|(path, _)| !dir.join(path).exists());
    for (path, text) in FILES.iter().chain(ignore) {
        let path = dir.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_good_as_it_is_and_never_overwrites() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("shop");
        write(&dir).expect("written");
        let project =
            crate::config::load_with(&dir.join("calve.toml"), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(project.topics["orders"].table.to_string(), "bronze.orders");
        std::fs::write(dir.join("calve.toml"), "mine").expect("written");
        let error = write(&dir).expect_err("files are there");
        assert!(error.is::<Usage>() && error.to_string().contains("has calve.toml, catalogs/local.toml"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.join("calve.toml")).expect("read"), "mine");
    }
}
