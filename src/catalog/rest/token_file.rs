//! A bearer token in a file that something else rotates: a projected service account, an agent's sink.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;

use super::answer::Failure;
use super::oauth2::bearer;
use super::secrets::Secrets;

/// How long what was read is taken for what the file holds.
const FRESH: Duration = Duration::from_secs(1);

pub(super) struct TokenFile {
    catalog: String,
    path: PathBuf,
    last: Mutex<Option<Read>>,
    secrets: Arc<Secrets>,
}

#[derive(Clone)]
struct Read {
    at: Instant,
    token: String,
    header: HeaderValue,
}

impl TokenFile {
    pub(super) fn new(catalog: &str, path: &str, secrets: Arc<Secrets>) -> TokenFile {
        TokenFile { catalog: catalog.to_owned(), path: path.into(), last: Mutex::new(None), secrets }
    }

    pub(super) async fn header(&self) -> Result<HeaderValue, Failure> {
        let last = self.last();
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return Ok(last.header.clone());
        }
        match (self.read().await, last) {
            (Ok(header), _) => Ok(header),
            // Between two tokens there may be no file for a moment.
            (Err(_), Some(last)) => Ok(last.header),
            (Err(why), None) => Err(Failure::refused(why)),
        }
    }

    /// Reads the file again, since `refused` was not taken; whether it holds another token now.
    pub(super) async fn changed(&self, refused: &HeaderValue) -> bool {
        self.read().await.is_ok_and(|header| header != *refused)
    }

    async fn read(&self) -> Result<HeaderValue, String> {
        let wrong = |why: String| {
            format!(
                "catalog {0}: token-file {1} {why}; mend it, or token-file in catalogs/{0}.toml",
                self.catalog,
                self.path.display()
            )
        };
        let content = tokio::fs::read_to_string(&self.path).await;
        let content = content.map_err(|error| wrong(format!("cannot be read: {}", crate::config::plain(&error))))?;
        let token = content.trim();
        if token.is_empty() {
            return Err(wrong("is empty".to_owned()));
        }
        if let Some(last) = self.last().filter(|last| last.token == token) {
            self.keep(Read { at: Instant::now(), ..last.clone() });
            return Ok(last.header);
        }
        self.secrets.learn(token);
        let header = bearer(token).ok_or_else(|| wrong("holds characters that a header cannot".to_owned()))?;
        self.keep(Read { at: Instant::now(), token: token.to_owned(), header: header.clone() });
        Ok(header)
    }

    fn last(&self) -> Option<Read> {
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn keep(&self, read: Read) {
        *self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_not_taken_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tokens = TokenFile::new("lake", file.path().to_str().unwrap(), Arc::default());
        let refused = tokens.header().await.unwrap_err();
        assert!(refused.line.contains("is empty") && refused.line.contains("catalogs/lake.toml"), "{}", refused.line);
        std::fs::write(file.path(), "first\n").unwrap();
        let first = tokens.header().await.unwrap();
        assert_eq!(first, "Bearer first");
        assert!(!tokens.changed(&first).await);
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(tokens.header().await.unwrap(), "Bearer first", "fresh enough");
        assert!(tokens.changed(&first).await);
        assert_eq!(tokens.header().await.unwrap(), "Bearer second");
        // Gone for a moment.
        std::fs::remove_file(file.path()).unwrap();
        assert!(!tokens.changed(&first).await);
        tokio::time::sleep(FRESH).await;
        assert_eq!(tokens.header().await.unwrap(), "Bearer second");
    }
}
