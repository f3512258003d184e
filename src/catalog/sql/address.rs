//! Where a SQL catalog's database is, in the spellings of PyIceberg (SQLAlchemy), Java (JDBC) and ours.

use std::path::Path;

use crate::catalog::{Error, Result, storage};

/// The path of a SQLite URI in SQLAlchemy's spelling (`sqlite:////absolute`) or ours (`sqlite:///absolute`).
fn sqlite_path(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("jdbc:").unwrap_or(uri).strip_prefix("sqlite:")?;
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    Some(format!("/{}", rest.trim_start_matches('/')))
}

/// What sqlx connects to.
pub(super) fn database_url(uri: &str) -> std::result::Result<String, String> {
    if let Some(path) = sqlite_path(uri) {
        if path == "/" || uri.contains(":memory:") {
            return Err("a SQLite catalog needs a file, as in sqlite:///warehouse/catalog.db".to_owned());
        }
        // sqlx decodes percent signs in the path.
        let mut url = url::Url::parse("sqlite:///").map_err(|error| error.to_string())?;
        url.set_path(&path.replace('%', "%25"));
        return Ok(format!("{url}?mode=rwc"));
    }
    let url = uri.strip_prefix("jdbc:").unwrap_or(uri);
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    // SQLAlchemy puts the driver into the scheme: postgresql+psycopg2.
    match scheme.split_once('+').map_or(scheme, |(scheme, _)| scheme) {
        "postgres" | "postgresql" if !rest.is_empty() => Ok(format!("postgres://{rest}")),
        // Never the URI itself: it may hold a password.
        _ => Err("uri is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE".to_owned()),
    }
}

/// What sqlx connects to, with Java's `jdbc.user` and `jdbc.password`. As there, what the address itself says wins, and
/// SQLite has no use for either.
pub(super) fn signed_in(url: &str, user: Option<&str>, password: Option<&str>) -> std::result::Result<String, String> {
    if url.starts_with("sqlite:") || user.or(password).is_none() {
        return Ok(url.to_owned());
    }
    let mut url = url::Url::parse(url).map_err(|error| error.to_string())?;
    let says = |key: &str| url.query_pairs().any(|(name, _)| name == key);
    let user = user.filter(|_| url.username().is_empty() && !says("user"));
    let password = password.filter(|_| url.password().is_none() && !says("password"));
    // As parameters: in front of the host they could not stand where there is none.
    for (key, value) in [("user", user), ("password", password)] {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(key, value);
        }
    }
    Ok(url.into())
}

/// Makes the folder that a SQLite file will lie in.
pub(super) async fn make_folder(catalog: &str, uri: &str) -> Result<()> {
    let Some(path) = sqlite_path(uri) else { return Ok(()) };
    let made = tokio::task::spawn_blocking(move || match Path::new(&path).parent() {
        Some(folder) => storage::create_folder(folder).map_err(|error| format!("{}: {error}", folder.display())),
        None => Ok(()),
    })
    .await;
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::Refused(format!("catalog {catalog}: cannot make the folder {error}"))),
        Err(error) => Err(Error::Unavailable(format!("catalog {catalog}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_every_spelling() {
        for (uri, url) in [
            ("sqlite:///srv/c.db", "sqlite:///srv/c.db?mode=rwc"),
            ("sqlite:////srv/c.db", "sqlite:///srv/c.db?mode=rwc"),
            ("jdbc:sqlite:/srv/c.db", "sqlite:///srv/c.db?mode=rwc"),
            ("sqlite:///srv/a b#1%20.db", "sqlite:///srv/a%20b%231%2520.db?mode=rwc"),
            ("postgresql://u:p@h:1/d", "postgres://u:p@h:1/d"),
            ("postgresql+psycopg2://u:p@h:1/d", "postgres://u:p@h:1/d"),
            ("jdbc:postgresql://h/d", "postgres://h/d"),
        ] {
            assert_eq!(database_url(uri).as_deref(), Ok(url), "{uri}");
        }
        for refused in ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "postgresql:"] {
            let error = database_url(refused).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_user_and_the_password_of_jdbc_are_added_where_there_are_none() {
        for (url, signed) in [
            ("postgres://h:1/d", "postgres://h:1/d?user=me&password=p%26%25%2Fw"),
            ("postgres:///d?host=/run", "postgres:///d?host=/run&user=me&password=p%26%25%2Fw"),
            ("postgres://u@h/d", "postgres://u@h/d?password=p%26%25%2Fw"),
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("postgres://h/d?user=u&password=p", "postgres://h/d?user=u&password=p"),
            ("sqlite:///srv/c.db?mode=rwc", "sqlite:///srv/c.db?mode=rwc"),
        ] {
            assert_eq!(signed_in(url, Some("me"), Some("p&%/w")).as_deref(), Ok(signed), "{url}");
            assert_eq!(signed_in(url, None, None).as_deref(), Ok(url));
        }
        let error = signed_in("postgres://h:port/d", Some("me"), Some("secret")).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
