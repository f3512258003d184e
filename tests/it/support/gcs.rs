//! Google's XML API for uploads, in front of fake-gcs-server, which takes uploads by the JSON API only: what is uploaded
//! is handed to it, and everything else (reads, lists, deletions, preconditions) it answers itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use tokio::task::JoinHandle;

/// Ends when dropped.
pub struct Uploads {
    pub address: String,
    serving: JoinHandle<()>,
    front: Arc<Front>,
}

struct Front {
    upstream: String,
    http: reqwest::Client,
    /// Number → bytes of each upload that has begun.
    uploads: Mutex<HashMap<String, BTreeMap<u32, Bytes>>>,
}

impl Uploads {
    pub async fn start(upstream: &str) -> Uploads {
        let front = Front { upstream: upstream.to_owned(), http: reqwest::Client::new(), uploads: Mutex::default() };
        let front = Arc::new(front);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer).with_state(front.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Uploads { address, serving, front }
    }

    /// Uploads that are neither complete nor aborted.
    pub fn unfinished(&self) -> usize {
        self.front.uploads.lock().unwrap().len()
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let id = query.get("uploadId").cloned().unwrap_or_default();
    let path = head.uri.path();
    match head.method {
        Method::POST if query.contains_key("uploads") => {
            let id = uuid::Uuid::new_v4().to_string();
            front.uploads.lock().unwrap().insert(id.clone(), BTreeMap::new());
            xml(&format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        Method::PUT if query.contains_key("partNumber") => {
            let number = query["partNumber"].parse().unwrap();
            match front.uploads.lock().unwrap().get_mut(&id) {
                Some(parts) => parts.insert(number, body),
                None => return status(StatusCode::NOT_FOUND),
            };
            let answer =
                Response::builder().header("etag", format!("\"part-{number}\"")).header("x-goog-generation", "1");
            answer.body(Body::empty()).unwrap()
        }
        Method::POST if !id.is_empty() => {
            let Some(parts) = front.uploads.lock().unwrap().remove(&id) else { return status(StatusCode::NOT_FOUND) };
            let whole: Vec<u8> = parts.values().flatten().copied().collect();
            let put = front.put(path, &HeaderMap::new(), whole.into()).await;
            let etag = put.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned()).unwrap_or_default();
            let answer = format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>");
            Response::builder().status(put.status()).header("x-goog-generation", "1").body(Body::from(answer)).unwrap()
        }
        Method::DELETE if !id.is_empty() => {
            front.uploads.lock().unwrap().remove(&id);
            status(StatusCode::NO_CONTENT)
        }
        Method::PUT => front.put(path, &head.headers, body).await,
        method => {
            let url = format!("{}{}", front.upstream, head.uri.path_and_query().unwrap());
            let mut sent = front.http.request(method, url);
            if let Some(range) = head.headers.get("range") {
                sent = sent.header("range", range);
            }
            passed_on(sent).await
        }
    }
}

impl Front {
    async fn put(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Response<Body> {
        let (bucket, name) = path.trim_start_matches('/').split_once('/').unwrap();
        let mut url = format!("{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", self.upstream);
        if let Some(generation) = headers.get("x-goog-if-generation-match") {
            url = format!("{url}&ifGenerationMatch={}", generation.to_str().unwrap());
        }
        let sent =
            self.http.post(url).header("content-type", "application/octet-stream").body(body).send().await.unwrap();
        let code = sent.status();
        let object: serde_json::Value = serde_json::from_slice(&sent.bytes().await.unwrap()).unwrap_or_default();
        if !code.is_success() {
            return status(code);
        }
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let answer = Response::builder().header("etag", text("etag")).header("x-goog-generation", text("generation"));
        answer.body(Body::empty()).unwrap()
    }
}

async fn passed_on(sent: reqwest::RequestBuilder) -> Response<Body> {
    let answer = sent.send().await.unwrap();
    let mut passed = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        passed = passed.header(name, value);
    }
    passed.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

fn xml(text: &str) -> Response<Body> {
    Response::builder().header("content-type", "application/xml").body(Body::from(text.to_owned())).unwrap()
}

fn status(code: StatusCode) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}
