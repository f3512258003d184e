//! Google Cloud Storage: a store per bucket, built from Iceberg's `gcs.*` properties.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{ObjectStore, StaticCredentialProvider};

use super::failure::store_error;
use super::{object, said};

/// The store of one bucket. `vended` credentials win; without any in the properties, Google's own search is done:
/// `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's file, the instance.
pub(super) fn open(
    bucket: &str,
    properties: &BTreeMap<String, String>,
    vended: Option<GcpCredentialProvider>,
) -> iceberg::Result<Arc<dyn ObjectStore>> {
    let get = |key: &str| said(properties, key);
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(object::client())
        .with_retry(object::retry());
    if let Some(host) = get("gcs.service.host") {
        builder = builder.with_base_url(host.trim_end_matches('/'));
    }
    if let Some(vended) = vended {
        builder = builder.with_credentials(vended);
    } else if get("gcs.no-auth") == Some("true") {
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(nobody));
    } else if let Some(token) = get("gcs.oauth2.token") {
        let token = StaticCredentialProvider::new(GcpCredential { bearer: token.to_owned() });
        builder = builder.with_credentials(Arc::new(token));
    } else if let Some(json) = get("gcs.credentials-json") {
        builder = builder.with_service_account_key(json);
    }
    let store = builder.build().map_err(|error| store_error(&format!("gs://{bucket}"), error))?;
    Ok(Arc::new(store))
}
