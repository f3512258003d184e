//! Who we are to the server.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::answer::Failure;
use super::oauth2::{OAuth2, bearer};
use super::secrets::Secrets;
use super::token_file::TokenFile;

pub(super) enum Auth {
    Nobody,
    Token(HeaderValue),
    File(TokenFile),
    OAuth2(Box<OAuth2>),
}

/// With what a request went out.
pub(super) enum Shown {
    Nothing,
    Header(HeaderValue),
    Number(u64),
}

impl Auth {
    pub(super) fn new<'a>(
        catalog: &str,
        http: &reqwest::Client,
        uri: &str,
        headers: &HeaderMap,
        get: impl Fn(&str) -> Option<&'a String>,
        secrets: &Arc<Secrets>,
    ) -> Result<Auth, String> {
        match (get("token"), get("token-file"), get("credential")) {
            (_, _, Some(_)) => {
                let oauth2 = OAuth2::new(catalog, http.clone(), uri, headers, get, secrets.clone())?;
                Ok(Auth::OAuth2(Box::new(oauth2)))
            }
            (_, Some(path), None) => Ok(Auth::File(TokenFile::new(catalog, path, secrets.clone()))),
            (Some(token), None, None) => {
                Ok(Auth::Token(bearer(token).ok_or("token holds characters that a header cannot")?))
            }
            (None, None, None) => Ok(Auth::Nobody),
        }
    }

    /// Puts what proves us into the headers.
    pub(super) async fn authorize(&self, headers: &mut HeaderMap) -> Result<Shown, Failure> {
        let (header, shown) = match self {
            Auth::Nobody => return Ok(Shown::Nothing),
            Auth::Token(header) => (header.clone(), Shown::Nothing),
            Auth::File(file) => {
                let header = file.header().await?;
                (header.clone(), Shown::Header(header))
            }
            Auth::OAuth2(oauth2) => {
                let (number, header) = oauth2.header().await?;
                (header, Shown::Number(number))
            }
        };
        headers.insert(AUTHORIZATION, header);
        Ok(shown)
    }

    /// The server did not take what it was shown (401); whether there is something else to show.
    pub(super) async fn renew(&self, shown: &Shown) -> bool {
        match (self, shown) {
            (Auth::OAuth2(oauth2), Shown::Number(number)) => {
                oauth2.expire(*number);
                true
            }
            (Auth::File(file), Shown::Header(header)) => file.changed(header).await,
            _ => false,
        }
    }

    /// Whether a refusal may pass without anybody's doing.
    pub(super) fn renews(&self) -> bool {
        matches!(self, Auth::File(_) | Auth::OAuth2(_))
    }

    /// What a person can do about a 401.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Auth::Nobody => "give it credential, token, token-file or rest.sigv4-enabled",
            Auth::Token(_) => "its token is wrong or has expired",
            Auth::File(_) => "its token-file holds a token that is wrong or has expired",
            Auth::OAuth2(_) => "the token that its credential gives is not taken; mend scope, audience or credential",
        }
    }
}
