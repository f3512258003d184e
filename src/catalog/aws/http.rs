//! The HTTP client that AWS's chain of credentials asks with: the one that everything else here uses.

use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

/// For requests that say nothing else.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Http;

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or(TIMEOUT);
        let whole = connect + settings.read_timeout().unwrap_or(TIMEOUT);
        let client = |direct: bool| {
            let builder = reqwest::Client::builder().connect_timeout(connect).timeout(whole);
            if direct { builder.no_proxy() } else { builder }.build().map_err(|error| error.to_string())
        };
        SharedHttpConnector::new(Connector { direct: client(true), proxied: client(false) })
    }
}

struct Connector {
    /// For the metadata services of containers and instances, which no proxy can reach.
    direct: Result<reqwest::Client, String>,
    proxied: Result<reqwest::Client, String>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = if is_near(request.uri()) { &self.direct } else { &self.proxied };
        let client = client.clone();
        HttpConnectorFuture::new(async move {
            let client = client.map_err(|error| ConnectorError::user(error.into()))?;
            send(client, request).await
        })
    }
}

async fn send(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let method = reqwest::Method::from_bytes(request.method().as_bytes());
    let method = method.map_err(|error| ConnectorError::user(error.into()))?;
    let mut sent = client.request(method, request.uri());
    for (name, value) in request.headers().iter() {
        sent = sent.header(name, value);
    }
    let body = request.body().bytes().map(<[u8]>::to_vec);
    let body = body.ok_or_else(|| ConnectorError::user("a streamed body, where none was expected".into()))?;
    let answer = sent.body(body).send().await.map_err(failed)?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.map_err(failed)?;
    let status = StatusCode::try_from(status);
    let status = status.map_err(|_| ConnectorError::other("a status that is none".into(), None))?;
    let mut response = HttpResponse::new(status, SdkBody::from(body.to_vec()));
    for (name, value) in &headers {
        if let Ok(value) = value.to_str() {
            response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(response)
}

fn failed(error: reqwest::Error) -> ConnectorError {
    let timeout = error.is_timeout();
    let error = error.without_url();
    if timeout { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
}

/// Link-local addresses, this host, and the IPv6 address of the metadata services.
fn is_near(uri: &str) -> bool {
    let Ok(url) = url::Url::parse(uri) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_link_local() || ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[0] == 0xfd00,
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_near;

    #[test]
    fn metadata_services_are_near() {
        for near in [
            "http://169.254.169.254/latest",
            "http://169.254.170.2/x",
            "http://[fd00:ec2::23]/v1",
            "http://localhost:8080/",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["https://sts.eu-west-1.amazonaws.com/", "http://10.0.0.1/", "nonsense"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
