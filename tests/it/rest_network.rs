//! What lies between calve and a REST catalog in an organisation: certificates of its own authority, and proxies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use calve::catalog::{self, Error};
use calve::config::CatalogKind;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::broker::Broker;
use crate::support::http::{Fake, json as answer};
use crate::support::project::Project;
use crate::support::tables::configured;

async fn server() -> Fake {
    Fake::start(|asked| match asked.line.contains("/v1/config") {
        true => answer(200, json!({ "defaults": {}, "overrides": {} })),
        false => answer(200, json!({ "namespaces": [] })),
    })
    .await
}

/// The server behind TLS, as `localhost`, and the PEM of the authority that says so.
async fn behind_tls(upstream: SocketAddr) -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der())),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us hangs up.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, authority.pem())
}

/// A forward proxy that knows one host, whatever it is called; it notes the first line of what it is asked.
async fn proxy(plain: SocketAddr, tls: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, noted) = (listener.local_addr().unwrap(), log.clone());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut some = [0; 4096];
                    match client.read(&mut some).await {
                        Ok(read @ 1..) => head.extend_from_slice(&some[..read]),
                        _ => return,
                    }
                }
                let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                noted.lock().unwrap().push(first.clone());
                let mut server = if first.starts_with("CONNECT") {
                    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                    TcpStream::connect(tls).await.unwrap()
                } else {
                    let mut server = TcpStream::connect(plain).await.unwrap();
                    server.write_all(&head).await.unwrap();
                    server
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, log)
}

#[tokio::test]
async fn an_authority_of_ones_own() {
    let server = server().await;
    let (address, authority) = behind_tls(server.address).await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    let uri = format!("https://localhost:{}", address.port());
    let open = |bundle: Option<String>| {
        let uri = uri.clone();
        async move {
            let mut properties = vec![("uri", uri.as_str())];
            properties.extend(bundle.as_deref().map(|bundle| ("ssl.cabundle", bundle)));
            catalog::open(&configured("lake", CatalogKind::Rest, &properties)).await
        }
    };
    let error = open(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("certificate") && error.to_string().contains("ssl.cabundle"), "{error}");
    let path = Some(bundle.display().to_string());
    let error = open(path.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("cannot be read"), "{error:?}");
    std::fs::write(&bundle, "no certificate").unwrap();
    let error = open(path.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("no PEM certificate"), "{error:?}");
    assert_eq!(server.lines(), [""; 0]);
    std::fs::write(&bundle, authority).unwrap();
    open(path).await.unwrap().namespaces().await.unwrap();
    assert_eq!(server.lines(), ["GET /v1/config", "GET /v1/namespaces"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_of_the_environment() {
    let server = server().await;
    let (tls, authority) = behind_tls(server.address).await;
    let (proxy, log) = proxy(server.address, tls).await;
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    let project = Project::new(&broker, "");
    project.write("ca.pem", &authority);
    let proxy = format!("http://{proxy}");
    let validate = |uri: &str, environment: &[(&str, &str)]| {
        let file = format!("type = \"rest\"\nuri = \"{uri}\"\n\"ssl.cabundle\" = \"ca.pem\"\n");
        project.write("catalogs/local.toml", &file);
        project.calve_with(&["validate", "--connect"], environment)
    };
    // Hosts that no name server knows: it is the proxy that does.
    let environment = [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1")];
    let (code, out, errors) = validate("http://catalog.invalid:8181", &environment);
    assert_eq!(code, 0, "{out}\n{errors}");
    assert_eq!(log.lock().unwrap()[0], "GET http://catalog.invalid:8181/v1/config HTTP/1.1");
    log.lock().unwrap().clear();
    let (code, out, errors) = validate("https://localhost:8443", &environment);
    assert_eq!(code, 0, "{out}\n{errors}");
    assert_eq!(log.lock().unwrap()[0], "CONNECT localhost:8443 HTTP/1.1");
    log.lock().unwrap().clear();
    let (code, out, errors) = validate(&server.url(), &environment);
    assert_eq!(code, 0, "{out}\n{errors}");
    assert_eq!(*log.lock().unwrap(), [""; 0]);
    let (code, _, errors) = validate("http://catalog.invalid:8181", &[]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("catalogs/local.toml:2: ") && errors.contains("catalog local"), "{errors}");
}
