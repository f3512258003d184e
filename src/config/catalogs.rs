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
    "s3.profile-name",
    "s3.role-arn",
    "s3.role-session-name",
    "s3.anonymous",
    "s3.path-style-access",
    "s3.sse.type",
    "s3.sse.key",
    "s3.sse.bucket-key-enabled",
    // For every service of AWS that has no such key of its own.
    "client.region",
    "client.access-key-id",
    "client.secret-access-key",
    "client.session-token",
    "client.profile-name",
    "client.role-arn",
    "client.role-session-name",
    "gcs.project-id",
    "gcs.service.host",
    "gcs.oauth2.token",
    "gcs.oauth2.token-expires-at",
    "gcs.credentials-json",
    "gcs.no-auth",
    "adls.account-name",
    "adls.account-host",
    "adls.account-key",
    "adls.sas-token",
    "adls.connection-string",
    "adls.tenant-id",
    "adls.client-id",
    "adls.client-secret",
    "adls.token",
    "adls.endpoint",
    "adls.blob-storage-authority",
    "adls.blob-storage-scheme",
    "calve.trust-mirror",
    "calve.commit-together",
];

/// Keys of a SQL catalog. `jdbc.*` is Java's, whose addresses of Postgres hold neither a user nor a password.
const SQL: &[&str] = &["uri", "jdbc.user", "jdbc.password"];

/// Keys of a Glue catalog.
const GLUE: &[&str] = &[
    "glue.region",
    "glue.endpoint",
    "glue.id",
    "glue.access-key-id",
    "glue.secret-access-key",
    "glue.session-token",
    "glue.profile-name",
    "glue.role-arn",
    "glue.role-session-name",
    "glue.skip-archive",
    "glue.skip-name-validation",
];

/// Keys of a REST catalog.
const REST: &[&str] = &[
    "uri",
    "prefix",
    "token",
    "token-file",
    "credential",
    "scope",
    "audience",
    "resource",
    "oauth2-server-uri",
    "rest.sigv4-enabled",
    "rest.signing-name",
    "rest.signing-region",
    "rest.access-key-id",
    "rest.secret-access-key",
    "rest.session-token",
    "rest.client.connection-timeout-ms",
    "rest.client.socket-timeout-ms",
    "rest-page-size",
    "namespace-separator",
    "ssl.cabundle",
];

/// Keys of a REST catalog that only make sense beside another.
const BESIDE: &[(&str, &str)] = &[
    ("scope", "credential"),
    ("audience", "credential"),
    ("resource", "credential"),
    ("oauth2-server-uri", "credential"),
    ("rest.signing-name", "rest.sigv4-enabled"),
    ("rest.signing-region", "rest.sigv4-enabled"),
    ("rest.access-key-id", "rest.sigv4-enabled"),
    ("rest.secret-access-key", "rest.access-key-id"),
    ("rest.access-key-id", "rest.secret-access-key"),
    ("rest.session-token", "rest.secret-access-key"),
];

/// Keys of a REST catalog of which it takes only one.
const EITHER: &[(&str, &str)] = &[("token", "token-file"), ("credential", "token-file")];

const FLAGS: &[&str] = &[
    "s3.path-style-access",
    "s3.anonymous",
    "s3.sse.bucket-key-enabled",
    "gcs.no-auth",
    "glue.skip-archive",
    "glue.skip-name-validation",
    "calve.trust-mirror",
    "calve.commit-together",
    "rest.sigv4-enabled",
];

/// Ways of encrypting, in Java's words.
const SSE_TYPES: &[&str] = &["none", "s3", "kms", "dsse-kms", "custom"];

/// Reads a catalog from its file's only table. What is wrong goes to the file's faults.
pub fn catalog(name: &str, root: &Path, section: Section<'_>) -> Option<Catalog> {
    let file = section.file;
    let kind =
        section.choice("type", &[("sql", CatalogKind::Sql), ("rest", CatalogKind::Rest), ("glue", CatalogKind::Glue)]);
    if !section.has("type") {
        file.fault(
            None,
            format!("type is missing: say which kind of catalog `{name}` is: \"sql\", \"rest\" or \"glue\""),
        );
    }
    let kind = kind?.value;
    let own: &[&str] = match kind {
        CatalogKind::Sql => SQL,
        CatalogKind::Rest => REST,
        CatalogKind::Glue => GLUE,
    };
    let known = || own.iter().chain(EVERYWHERE).copied();

    let mut properties = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for (key, Located { value, line }) in section.flat() {
        lines.insert(key.clone(), line);
        if key == "type" {
            continue;
        } else if known().any(|name| name == key) || (kind == CatalogKind::Rest && is_header(&key)) || is_sas(&key) {
            match checked(&key, &value, kind, root) {
                Ok(value) => {
                    properties.insert(key, value);
                }
                Err(reason) => file.fault(line, format!("{key} {reason}")),
            }
        } else if GLUE.contains(&key.as_str()) {
            file.fault(line, format!("{key} is a key of catalogs of type \"glue\"; remove it"));
        } else if REST.contains(&key.as_str()) {
            file.fault(line, format!("{key} is a key of catalogs of type \"rest\"; remove it"));
        } else if SQL.contains(&key.as_str()) {
            file.fault(line, format!("{key} is a key of catalogs of type \"sql\"; remove it"));
        } else {
            file.fault(line, format!("unknown key {key}; {}", nearest::suggest(&key, known())));
        }
    }
    if kind == CatalogKind::Rest {
        for (key, why) in together(&lines.keys().map(String::as_str).collect::<Vec<_>>()) {
            file.fault(lines.get(key).copied().flatten(), why);
        }
    }
    for service in ["s3", "client", "glue"] {
        let (id, secret) = (format!("{service}.access-key-id"), format!("{service}.secret-access-key"));
        let (one, other) = if properties.contains_key(&id) { (&id, &secret) } else { (&secret, &id) };
        if properties.contains_key(one) && !properties.contains_key(other) {
            file.fault(None, format!("{one} is of no use without {other}; add it, or remove {one}"));
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

/// What is wrong with these keys of a REST catalog beside one another, and at which of them.
fn together(keys: &[&str]) -> Vec<(&'static str, String)> {
    let has = |key: &str| keys.contains(&key);
    let alone = BESIDE.iter().filter(|(key, other)| has(key) && !has(other));
    let alone =
        alone.map(|(key, other)| (*key, format!("{key} is of no use without {other}; add it, or remove {key}")));
    let both = EITHER.iter().filter(|(key, other)| has(key) && has(other));
    let both = both.map(|(key, other)| (*other, format!("{key} and {other} exclude each other; remove one")));
    alone.chain(both).collect()
}

fn is_header(key: &str) -> bool {
    key.strip_prefix("header.").is_some_and(|name| !name.is_empty())
}

/// A token for one of several accounts, as Java writes it: `adls.sas-token.ACCOUNT.dfs.core.windows.net`.
fn is_sas(key: &str) -> bool {
    key.strip_prefix("adls.sas-token.").is_some_and(|account| !account.is_empty())
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
        "glue.endpoint" | "s3.endpoint" | "gcs.service.host" | "adls.endpoint" if !value.is_empty() => {
            match url::Url::parse(value) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(value.to_string()),
                _ => Err("must be an address that begins with http:// or https://".to_string()),
            }
        }
        "s3.sse.type" if !SSE_TYPES.contains(&value) => Err(format!("must be one of {}", SSE_TYPES.join(", "))),
        "token" | "token-file" | "credential" | "ssl.cabundle" | "jdbc.user" if value.is_empty() => {
            Err("is empty; give it a value, or remove the key".to_string())
        }
        "credential" if value.split_once(':').is_some_and(|(_, secret)| secret.is_empty()) => {
            Err("ends behind its colon; write CLIENT-ID:CLIENT-SECRET".to_string())
        }
        "token-file" | "ssl.cabundle" => Ok(root.join(value).to_string_lossy().into_owned()),
        "oauth2-server-uri" if value.contains("://") => match url::Url::parse(value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(value.to_string()),
            _ => Err("must be an address that begins with http:// or https://, or a path of the catalog's".to_string()),
        },
        "rest-page-size" | "rest.client.socket-timeout-ms" | "rest.client.connection-timeout-ms" => {
            match value.parse::<u32>() {
                Ok(number) if number > 0 => Ok(value.to_string()),
                _ => Err("must be a whole number above 0, in quotes".to_string()),
            }
        }
        _ => Ok(value.to_string()),
    }
}

/// SQLAlchemy's rule, as PyIceberg has it: after `sqlite:///` the path begins, and it is relative unless it begins with
/// a slash of its own. In JDBC's spelling, as Java has it, it begins after `jdbc:sqlite:`. Given on as
/// `sqlite:////absolute/path`.
fn sql_uri(value: &str, root: &Path) -> Result<String, String> {
    const FORMS: &str = "`sqlite:///PATH` (relative to the project), `sqlite:////PATH` (absolute) or `postgresql://USER:PASSWORD@HOST/DATABASE`";
    if let Some(path) = value.strip_prefix("sqlite:///").or_else(|| value.strip_prefix("jdbc:sqlite:")) {
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(format!("names no file, and a catalog in memory would be gone after a restart; write {FORMS}"));
        }
        if path.starts_with("file:") {
            return Err(format!("names its file by a URI of its own, which is not supported; write {FORMS}"));
        }
        return Ok(format!("sqlite:///{}", root.join(path).display()));
    }
    // PyIceberg's spelling names SQLAlchemy's driver as well.
    let (scheme, rest) = value
        .strip_prefix("jdbc:")
        .unwrap_or(value)
        .split_once("://")
        .ok_or_else(|| format!("is no address of a database; write {FORMS}"))?;
    match scheme.split('+').next().unwrap_or(scheme) {
        "postgresql" | "postgres" if !rest.is_empty() => Ok(format!("postgresql://{rest}")),
        "sqlite" => Err(format!("needs three slashes and a path; write {FORMS}")),
        other => Err(format!("has the scheme `{other}`, which is not supported; write {FORMS}")),
    }
}

/// What a warehouse may be.
const PLACES: &str = "a path, file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX";

fn warehouse(value: &str, kind: CatalogKind, root: &Path) -> Result<String, String> {
    if value.is_empty() {
        return Err(format!("is empty; write {PLACES}"));
    }
    match value.split_once("://") {
        Some(("s3" | "s3a" | "s3n" | "gs" | "gcs" | "abfs" | "abfss" | "wasb" | "wasbs" | "file", rest))
            if !rest.is_empty() =>
        {
            Ok(value.trim_end_matches('/').to_string())
        }
        // A REST catalog may call its warehouses by names that only it understands.
        _ if kind == CatalogKind::Rest => Ok(value.to_string()),
        Some((scheme, _)) => Err(format!("has the scheme `{scheme}`, which is not supported; write {PLACES}")),
        None => {
            Ok(root.join(value).components().collect::<PathBuf>().to_string_lossy().trim_end_matches('/').to_string())
        }
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
            ("jdbc:sqlite:warehouse/catalog.db", Ok("sqlite:////project/warehouse/catalog.db")),
            ("jdbc:sqlite:/data/catalog.db", Ok("sqlite:////data/catalog.db")),
            ("jdbc:postgresql://h:5432/d?user=u", Ok("postgresql://h:5432/d?user=u")),
            ("sqlite://catalog.db", Err("three slashes")),
            ("sqlite:///:memory:", Err("in memory")),
            ("jdbc:sqlite:", Err("names no file")),
            ("jdbc:sqlite::memory:", Err("in memory")),
            ("jdbc:sqlite:file:catalog.db?mode=memory", Err("a URI of its own")),
            ("mysql://u:secret@h/d", Err("scheme `mysql`")),
            ("jdbc:mysql://h/d?password=secret", Err("scheme `mysql`")),
            ("jdbc:postgresql:d", Err("no address")),
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
    fn keys_beside_one_another() {
        let faults = |keys: &[&str]| together(keys).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(faults(&["uri", "token", "credential", "scope"]), [""; 0]);
        assert_eq!(faults(&["uri", "scope", "token"]), ["scope"]);
        assert_eq!(faults(&["token", "token-file"]), ["token-file"]);
        assert_eq!(faults(&["credential", "token-file"]), ["token-file"]);
        assert_eq!(
            faults(&["rest.signing-name", "rest.access-key-id"]),
            ["rest.signing-name", "rest.access-key-id", "rest.access-key-id"]
        );
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
            ("gs://lake/w/", Ok("gs://lake/w")),
            ("abfss://c@a.dfs.core.windows.net/w", Ok("abfss://c@a.dfs.core.windows.net/w")),
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
