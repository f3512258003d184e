//! SigV4: what a request carries beside its own headers, so that a service of AWS knows who sent it.

use std::time::SystemTime;

use aws_credential_types::Credentials as Keys;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::Credentials;
use crate::catalog::error::one_line;
use crate::catalog::{Error, Result};

/// Signs requests to one service in one region.
#[derive(Clone, Debug)]
pub struct Signer {
    credentials: Credentials,
    /// As in a signature's scope: `glue`, `s3tables`, `execute-api`.
    service: String,
    region: String,
}

impl Signer {
    pub fn new(credentials: Credentials, service: &str, region: &str) -> Signer {
        Signer { credentials, service: service.to_owned(), region: region.to_owned() }
    }

    /// The headers to add to this request (`authorization`, `x-amz-date`, `x-amz-content-sha256` and, for keys that
    /// expire, `x-amz-security-token`). The URL's path and query must be percent-encoded as they are sent, the body
    /// whole, and all of `headers` sent as they are; `host` is taken from the URL.
    pub async fn sign(&self, method: &Method, url: &Url, headers: &HeaderMap, body: &[u8]) -> Result<HeaderMap> {
        let keys = self.credentials.keys().await?;
        self.sign_with(keys, SystemTime::now(), method, url, headers, body)
            .map_err(|reason| Error::Refused(format!("a request to {} cannot be signed: {reason}", self.service)))
    }

    /// See [`Credentials::renew`].
    pub async fn renew(&self) -> bool {
        self.credentials.renew().await
    }

    fn sign_with(
        &self,
        keys: Keys,
        time: SystemTime,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: &[u8],
    ) -> std::result::Result<HeaderMap, String> {
        let mut settings = SigningSettings::default();
        // Not every service asks for the header, none minds it.
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = keys.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(time)
            .settings(settings)
            .build()
            .map_err(|error| one_line(&error))?;
        let mut texts = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            texts.push((name.as_str(), value.to_str().map_err(|_| format!("header {name} is not text"))?));
        }
        let request = SignableRequest::new(method.as_str(), url.as_str(), texts.into_iter(), SignableBody::Bytes(body));
        let signed = sign(request.map_err(|error| one_line(&error))?, &params.into());
        let (instructions, _) = signed.map_err(|error| one_line(&error))?.into_parts();
        let mut added = HeaderMap::new();
        for header in instructions.into_parts().0 {
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| "keys that no header can hold")?;
            value.set_sensitive(header.sensitive() || header.name() == "authorization");
            added.insert(HeaderName::from_static(header.name()), value);
        }
        Ok(added)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// That the signature itself is right is a store's to say, which checks it: `tests/it/storage.rs`.
    #[test]
    fn a_request_gets_the_headers_of_a_signature() {
        let keys = Keys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        let signer = Signer::new(Credentials::new("none", &Default::default()), "service", "us-east-1");
        // 2015-08-30T12:36:00Z
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let url = Url::parse("https://example.amazonaws.com/?Param2=value2&Param1=value1").unwrap();
        let added = signer.sign_with(keys.clone(), time, &Method::GET, &url, &HeaderMap::new(), b"").unwrap();
        assert_eq!(added["x-amz-date"], "20150830T123600Z");
        let authorization = added["authorization"].to_str().unwrap();
        assert!(
            authorization.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="
            ),
            "{authorization}"
        );
        assert!(added["authorization"].is_sensitive());
        // Keys that expire bring their token, which is signed too.
        let keys = Keys::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test");
        let added = signer.sign_with(keys, time, &Method::POST, &url, &HeaderMap::new(), b"{}").unwrap();
        assert_eq!(added["x-amz-security-token"], "token");
        assert!(added["authorization"].to_str().unwrap().contains("x-amz-security-token"));
    }
}
