//! S3 and what speaks its protocol: a store per bucket, built from Iceberg's `s3.*` properties.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider, S3ConditionalPut};
use object_store::{CredentialProvider, ObjectStore};

use super::failure::{store_error, usage_error};
use super::{object, said};
use crate::catalog::aws::Credentials;
use crate::catalog::error::one_line;

/// The store of one bucket. `vended` credentials win over those of the properties and of AWS's chain.
pub(super) fn open(
    bucket: &str,
    properties: &BTreeMap<String, String>,
    vended: Option<AwsCredentialProvider>,
) -> iceberg::Result<Arc<dyn ObjectStore>> {
    let get = |key: &str| said(properties, key);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(object::client())
        .with_retry(object::retry())
        .with_unsigned_payload(false)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if get("s3.anonymous") == Some("true") {
        builder = builder.with_skip_signature(true);
    } else {
        let own = || Arc::new(Chain { credentials: Credentials::new("s3", properties) }) as AwsCredentialProvider;
        builder = builder.with_credentials(vended.unwrap_or_else(own));
    }
    if let Some(region) = get("s3.region").or_else(|| get("client.region")) {
        builder = builder.with_region(region);
    }
    builder = encrypted(builder, get)?;
    let endpoint = get("s3.endpoint");
    // As PyIceberg: path style is what compatible stores speak, the other what AWS prefers.
    let path_style = match get("s3.path-style-access") {
        Some(value) => value.eq_ignore_ascii_case("true"),
        None => endpoint.is_some(),
    };
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = endpoint {
        let mut url = url::Url::parse(endpoint)
            .map_err(|error| usage_error(format!("s3.endpoint {endpoint:?} is not a URL: {error}")))?;
        if !path_style {
            let host = url.host_str().unwrap_or_default();
            let host = format!("{bucket}.{host}");
            url.set_host(Some(&host))
                .map_err(|error| usage_error(format!("s3.endpoint {endpoint:?} takes no bucket name: {error}")))?;
        }
        builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
    }
    let store = builder.build().map_err(|error| store_error(&format!("s3://{bucket}"), error))?;
    Ok(Arc::new(store))
}

/// What the store encrypts objects with, in Java's words: `s3.sse.type`, `s3.sse.key`.
fn encrypted<'a>(builder: AmazonS3Builder, get: impl Fn(&str) -> Option<&'a str>) -> iceberg::Result<AmazonS3Builder> {
    let key = || get("s3.sse.key").unwrap_or_default();
    let name: AmazonS3ConfigKey =
        "aws_server_side_encryption".parse().map_err(|error| store_error("s3.sse.type", error))?;
    let kind = |builder: AmazonS3Builder, kind: &str| builder.with_config(name, kind);
    let builder = match get("s3.sse.type") {
        None | Some("none") => return Ok(builder),
        Some("s3") => return Ok(kind(builder, "AES256")),
        Some("custom") if !key().is_empty() => return Ok(builder.with_ssec_encryption(key())),
        Some("custom") => {
            return Err(usage_error("s3.sse.type is custom: s3.sse.key must hold the key, in base64".into()));
        }
        // Without a key, AWS's own for S3.
        Some("kms") if key().is_empty() => kind(builder, "aws:kms"),
        Some("kms") => builder.with_sse_kms_encryption(key()),
        Some("dsse-kms") if key().is_empty() => return Ok(kind(builder, "aws:kms:dsse")),
        Some("dsse-kms") => return Ok(builder.with_dsse_kms_encryption(key())),
        Some(other) => {
            return Err(usage_error(format!(
                "s3.sse.type {other:?} is not known; use none, s3, kms, dsse-kms or custom"
            )));
        }
    };
    Ok(match get("s3.sse.bucket-key-enabled") {
        Some(enabled) => builder.with_bucket_key(enabled == "true"),
        None => builder,
    })
}

/// Keys of the properties, or of AWS's chain.
#[derive(Debug)]
struct Chain {
    credentials: Credentials,
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let keys = self.credentials.keys().await.map_err(|error| {
            let source = one_line(&error).into();
            match error {
                crate::catalog::Error::Refused(_) => {
                    object_store::Error::Unauthenticated { path: "credentials".to_owned(), source }
                }
                _ => object_store::Error::Generic { store: "S3", source },
            }
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: keys.access_key_id().to_owned(),
            secret_key: keys.secret_access_key().to_owned(),
            token: keys.session_token().map(str::to_owned),
        }))
    }
}
