//! The daemon's HTTP server: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! `/livez` and `/readyz` are open, as orchestrators' probes carry no credentials; everything else wants the token
//! when one is configured.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Board, Metrics, TopicState};
use crate::config::{Secret, check_http};

/// A server that holds its address, and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Secret>,
}

struct Shared {
    metrics: Metrics,
    board: Board,
    token: Option<Secret>,
}

impl Server {
    /// Takes the address; port 0 is any free one, [`Server::address`] tells which. Refuses an address that other
    /// machines reach when there is no token.
    pub async fn bind(address: &str, token: Option<Secret>) -> anyhow::Result<Server> {
        check_http(address, token.is_some()).map_err(|reason| anyhow!("the HTTP address {address} {reason}"))?;
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => anyhow!(
                "the HTTP address {address} is in use, perhaps by another calve; stop it, or choose another with --http or `http` in [daemon] (port 0 = any free one)"
            ),
            _ => anyhow!("cannot serve HTTP on {address}: {}", crate::config::plain(&error)),
        })?;
        let address = listener.local_addr().context("the HTTP server's address cannot be told")?;
        Ok(Server { listener, address, token })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel`, then finishes the requests under way.
    pub async fn serve(self, metrics: Metrics, board: Board, cancel: CancellationToken) -> anyhow::Result<()> {
        let router = router(Arc::new(Shared { metrics, board, token: self.token }));
        let served = axum::serve(self.listener, router).with_graceful_shutdown(cancel.cancelled_owned());
        served.await.context("the HTTP server failed")
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorize));
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .with_state(shared)
}

async fn authorize(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match (&shared.token, given) {
        (None, _) => next.run(request).await,
        (Some(token), Some((_, given))) if same(token.0.as_bytes(), given.trim().as_bytes()) => next.run(request).await,
        _ => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response()
        }
    }
}

/// Equality whose time does not tell how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.board.status();
    match (status.stopping, status.ready) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        // Which topics cannot go on is said here too; why is for /status, which may want a token.
        (false, true) => {
            let in_state = |state: TopicState| {
                let topics = status.topics.iter().filter(move |(_, topic)| topic.state == state);
                topics.map(move |(name, _)| format!("{}: {name}\n", state.as_str()))
            };
            let stuck = in_state(TopicState::Halted).chain(in_state(TopicState::Retrying));
            ("ready\n".to_owned() + &stuck.collect::<String>()).into_response()
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered\n").into_response(),
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.board.status()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = reqwest::Client::new().get(format!("http://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("answered");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn started(
        token: Option<&str>,
    ) -> (SocketAddr, Board, CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
        // reqwest without a process-wide provider refuses to start; a second installation is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let metrics = Metrics::new();
        let board = Board::new(metrics.clone());
        let token = token.map(|token| Secret(token.to_string()));
        let server = Server::bind("127.0.0.1:0", token).await.expect("bound");
        let (address, cancel) = (server.address(), CancellationToken::new());
        let task = tokio::spawn(server.serve(metrics, board.clone(), cancel.clone()));
        (address, board, cancel, task)
    }

    #[tokio::test]
    async fn readiness_follows_the_topics() {
        let (address, board, cancel, task) = started(None).await;
        assert_eq!(get(address, "/livez", None).await.0, 200);
        board.add("orders", "bronze.orders");
        board.add("clicks", "bronze.clicks");
        assert_eq!(get(address, "/readyz", None).await, (503, "starting\n".to_string()));
        board.set("orders", TopicState::Running, None);
        assert_eq!(get(address, "/readyz", None).await.0, 503);
        board.set("clicks", TopicState::Halted, Some("recreated".to_string()));
        assert_eq!(get(address, "/readyz", None).await, (200, "ready\nhalted: clicks\n".to_string()));
        let (code, status) = get(address, "/status", None).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!((code, &status["topics"]["clicks"]["state"]), (200, &serde_json::json!("halted")));
        assert_eq!(status["topics"]["clicks"]["reason"], "recreated");
        let (_, metrics) = get(address, "/metrics", None).await;
        assert!(metrics.contains("calve_topic_state{topic=\"clicks\",state=\"halted\"} 1"), "{metrics}");
        assert!(metrics.contains("calve_topic_state{topic=\"clicks\",state=\"starting\"} 0"), "{metrics}");
        board.stopping();
        assert_eq!(get(address, "/readyz", None).await.0, 503);
        cancel.cancel();
        task.await.expect("joined").expect("served");
    }

    #[tokio::test]
    async fn a_token_guards_everything_but_the_probes() {
        let (address, _, cancel, task) = started(Some("t0ken")).await;
        assert_eq!(get(address, "/livez", None).await.0, 200);
        for path in ["/metrics", "/status"] {
            assert_eq!(get(address, path, None).await.0, 401);
            assert_eq!(get(address, path, Some("t0keN")).await.0, 401);
            assert_eq!(get(address, path, Some("t0ken")).await.0, 200);
        }
        cancel.cancel();
        task.await.expect("joined").expect("served");
    }

    #[tokio::test]
    async fn an_address_in_use_is_said_to_be() {
        let first = Server::bind("127.0.0.1:0", None).await.expect("bound");
        let address = first.address().to_string();
        let error = Server::bind(&address, None).await.expect_err("taken").to_string();
        assert!(error.contains(&address) && error.contains("is in use"), "{error}");
        let error = Server::bind("0.0.0.0:0", None).await.expect_err("open to all").to_string();
        assert!(error.contains("needs a token"), "{error}");
    }
}
