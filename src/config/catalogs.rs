//! `catalogs/NAME.toml`: one Iceberg catalog each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::{Located, Section};
use super::{Catalog, CatalogKind, nearest};

/// Keys of every catalog: the store that its tables lie in, and calve's own.
const EVERYWHERE: &[&str] = &[
    "type",
    "warehouse",
    "s3.endpoint",
    "s3.region",
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "s3.path-style-access",
    "calve.trust-mirror",
];

/// Keys that the contract names and a later version brings.
const LATER: &[(&str, &str)] = &[
    ("credential", "OAuth2"),
    ("scope", "OAuth2"),
    ("oauth2-server-uri", "OAuth2"),
    ("rest.sigv4-enabled", "SigV4"),
    ("rest.signing-name", "SigV4"),
    ("rest.signing-region", "SigV4"),
    ("glue.region", "the Glue catalog"),
    ("glue.endpoint", "the Glue catalog"),
    ("glue.id", "the Glue catalog"),
];

const FLAGS: &[&str] = &["s3.path-style-access", "calve.trust-mirror"];

/// Reads a catalog from its file's only table. What is wrong goes to the file's faults.
pub fn catalog(name: &str, root: &Path, section: Section<'_>) -> Option<Catalog> {
    let file = section.file;
    let kind =
        section.choice("type", &[("sql", CatalogKind::Sql), ("rest", CatalogKind::Rest), ("glue", CatalogKind::Glue)]);
    if !section.has("type") {
        file.fault(None, format!("type is missing: say which kind of catalog `{name}` is: \"sql\" or \"rest\""));
    }
    let kind = kind?.value;
    if kind == CatalogKind::Glue {
        section.fault(
            "type",
            "= \"glue\" is not supported yet: the Glue catalog comes with a later version; use sql or rest",
        );
        return None;
    }
    let own: &[&str] = match kind {
        CatalogKind::Sql => &["uri"],
        CatalogKind::Rest => &["uri", "prefix", "token", "rest.client.socket-timeout-ms"],
        CatalogKind::Glue => &[],
    };
    let known = || own.iter().chain(EVERYWHERE).copied();

    let mut properties = BTreeMap::new();
    for (key, Located { value, line }) in section.flat() {
        let later = LATER.iter().find(|(name, _)| *name == key).map(|(_, what)| *what);
        if key == "type" {
            continue;
        } else if known().any(|name| name == key) || (kind == CatalogKind::Rest && is_header(&key)) {
            match checked(&key, &value, kind, root) {
                Ok(value) => {
                    properties.insert(key, value);
                }
                Err(reason) => file.fault(line, format!("{key} {reason}")),
            }
        } else if let Some(what) = later {
            file.fault(line, format!("{key} is not supported yet: {what} comes with a later version; remove the key"));
        } else if key.starts_with("gcs.") || key.starts_with("adls.") {
            file.fault(
                line,
                format!("{key} is not supported yet: this store comes with a later version; remove the key"),
            );
        } else {
            file.fault(line, format!("unknown key {key}; {}", nearest::suggest(&key, known())));
        }
    }
    let required: &[(&str, &str)] = match kind {
        CatalogKind::Sql => &[
            ("uri", "say where the catalog's database is, like \"sqlite:///warehouse/catalog.db\""),
            ("warehouse", "say where tables are made, like \"warehouse\" or \"s3://bucket/prefix\""),
        ],
        CatalogKind::Rest => &[("uri", "write the catalog's address, like \"http://127.0.0.1:8181\"")],
        CatalogKind::Glue => &[],
    };
    for (key, remedy) in required.iter().filter(|(key, _)| !section.has(key)) {
        file.fault(None, format!("{key} is missing: {remedy}"));
    }
    Some(Catalog { name: name.to_string(), kind, properties })
}

fn is_header(key: &str) -> bool {
    key.strip_prefix("header.").is_some_and(|name| !name.is_empty())
}

/// The value as the catalog takes it: paths made absolute. Reasons never quote it, it may hold a password.
fn checked(key: &str, value: &str, kind: CatalogKind, root: &Path) -> Result<String, String> {
    match key {
        _ if FLAGS.contains(&key) => match value {
            "true" | "false" => Ok(value.to_string()),
            _ => Err("must be \"true\" or \"false\"".to_string()),
        },
        "uri" if kind == CatalogKind::Sql => sql_uri(value, root),
        "uri" => match url::Url::parse(value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Ok(value.trim_end_matches('/').to_string())
            }
            _ => Err("must be an address that begins with http:// or https://".to_string()),
        },
        "warehouse" => warehouse(value, kind, root),
        "token" if value.is_empty() => Err("is empty; give it a value, or remove the key".to_string()),
        _ => Ok(value.to_string()),
    }
}

/// SQLAlchemy's rule, as PyIceberg has it: after `sqlite:///` the path begins, and it is relative unless it begins with
/// a slash of its own. Given on as `sqlite:////absolute/path`.
fn sql_uri(value: &str, root: &Path) -> Result<String, String> {
    const FORMS: &str = "`sqlite:///PATH` (relative to the project), `sqlite:////PATH` (absolute) or `postgresql://USER:PASSWORD@HOST/DATABASE`";
    if let Some(path) = value.strip_prefix("sqlite:///") {
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(format!("names no file, and a catalog in memory would be gone after a restart; write {FORMS}"));
        }
        return Ok(format!("sqlite:///{}", root.join(path).display()));
    }
    // PyIceberg's spelling names SQLAlchemy's driver as well.
    let (scheme, rest) =
        value.split_once("://").ok_or_else(|| format!("is no address of a database; write {FORMS}"))?;
    match scheme.split('+').next().unwrap_or(scheme) {
        "postgresql" | "postgres" if !rest.is_empty() => Ok(format!("postgresql://{rest}")),
        "sqlite" => Err(format!("needs three slashes and a path; write {FORMS}")),
        other => Err(format!("has the scheme `{other}`, which is not supported; write {FORMS}")),
    }
}

fn warehouse(value: &str, kind: CatalogKind, root: &Path) -> Result<String, String> {
    if value.is_empty() {
        return Err("is empty; write a path, file:///PATH or s3://BUCKET/PREFIX".to_string());
    }
    match value.split_once("://") {
        Some(("s3" | "s3a" | "file", rest)) if !rest.is_empty() => Ok(value.trim_end_matches('/').to_string()),
        Some(("gs" | "abfs" | "abfss" | "wasb" | "wasbs", _)) => {
            Err("is in a store that is not supported yet: Google's and Azure's come with a later version; use a path or s3://".to_string())
        }
        // A REST catalog may call its warehouses by names that only it understands.
        _ if kind == CatalogKind::Rest => Ok(value.to_string()),
        Some((scheme, _)) => Err(format!("has the scheme `{scheme}`, which is not supported; write a path, file:///PATH or s3://BUCKET/PREFIX")),
        None => Ok(root.join(value).components().collect::<PathBuf>().to_string_lossy().trim_end_matches('/').to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_databases() {
        let root = Path::new("/project");
        for (uri, wanted) in [
            ("sqlite:///warehouse/catalog.db", Ok("sqlite:////project/warehouse/catalog.db")),
            ("sqlite:////data/catalog.db", Ok("sqlite:////data/catalog.db")),
            ("postgresql://u:p@h:5432/d", Ok("postgresql://u:p@h:5432/d")),
            ("postgresql+psycopg2://u:p@h/d", Ok("postgresql://u:p@h/d")),
            ("sqlite://catalog.db", Err("three slashes")),
            ("sqlite:///:memory:", Err("in memory")),
            ("mysql://u:secret@h/d", Err("scheme `mysql`")),
            ("catalog.db", Err("no address")),
        ] {
            match (sql_uri(uri, root), wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted),
                (Err(got), Err(wanted)) => assert!(got.contains(wanted) && !got.contains("secret"), "{uri}: {got}"),
                (got, wanted) => panic!("{uri}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn warehouses() {
        let root = Path::new("/project");
        for (value, wanted) in [
            ("warehouse", Ok("/project/warehouse")),
            ("./warehouse/", Ok("/project/warehouse")),
            ("/data/lake/", Ok("/data/lake")),
            ("file:///data/lake", Ok("file:///data/lake")),
            ("s3://lake/warehouse/", Ok("s3://lake/warehouse")),
            ("gs://lake", Err("later version")),
            ("ftp://lake", Err("scheme `ftp`")),
            ("", Err("empty")),
        ] {
            match (warehouse(value, CatalogKind::Sql, root), wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted),
                (Err(got), Err(wanted)) => assert!(got.contains(wanted), "{value}: {got}"),
                (got, wanted) => panic!("{value}: {got:?}, not {wanted:?}"),
            }
        }
        assert_eq!(warehouse("prod", CatalogKind::Rest, root), Ok("prod".to_string()));
    }
}
