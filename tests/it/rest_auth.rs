//! Who calve is to a REST catalog: OAuth2's client credentials and tokens in files that rotate, with what goes wrong
//! with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::response::Response;
use calve::catalog::{self, Catalog, Error};
use calve::config::CatalogKind;
use iceberg::TableIdent;
use serde_json::json;

use crate::support::http::{Asked, Fake, empty, json as answer};
use crate::support::parts::Part;
use crate::support::tables::{append_manifests, configured, creation, namespace};

const SECRET: &str = "planted/client+secret";

async fn open(properties: &[(&str, &str)]) -> Result<Arc<dyn Catalog>, Error> {
    catalog::open(&configured("lake", CatalogKind::Rest, properties)).await
}

/// A catalog of one table that takes the newest token only, and its token endpoint.
struct Guarded {
    fake: Fake,
    granted: Arc<AtomicU32>,
    /// The token endpoint answers 503.
    down: Arc<AtomicBool>,
    /// The catalog takes no token at all.
    deaf: Arc<AtomicBool>,
}

impl Guarded {
    async fn start(life_seconds: f64) -> Guarded {
        let granted = Arc::new(AtomicU32::new(0));
        let (down, deaf) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (count, is_down, is_deaf) = (granted.clone(), down.clone(), deaf.clone());
        let fake = Fake::start(move |asked| {
            if asked.line.starts_with("POST /v1/oauth/tokens") || asked.line.starts_with("POST /token") {
                if is_down.load(Ordering::SeqCst) {
                    return empty(503);
                }
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                return answer(
                    200,
                    json!({ "access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": life_seconds }),
                );
            }
            let newest = format!("Bearer token-{}", count.load(Ordering::SeqCst));
            let taken = asked.header("authorization") == Some(newest.as_str()) && !is_deaf.load(Ordering::SeqCst);
            match (taken, asked.line.as_str()) {
                (false, _) => answer(401, json!({ "error": { "message": "unknown", "type": "NotAuthorizedException" } })),
                (_, "GET /v1/config") => answer(200, json!({ "defaults": {}, "overrides": {} })),
                _ => answer(200, crate::rest_protocol::table("s3://nowhere/t")),
            }
        })
        .await;
        Guarded { fake, granted, down, deaf }
    }

    async fn open(&self) -> Arc<dyn Catalog> {
        open(&[("uri", &self.fake.url()), ("credential", &format!("me:{SECRET}"))]).await.unwrap()
    }

    fn granted(&self) -> u32 {
        self.granted.load(Ordering::SeqCst)
    }
}

fn ident() -> TableIdent {
    TableIdent::from_strs(["a", "t"]).unwrap()
}

#[tokio::test]
async fn a_token_is_asked_for_as_the_protocol_says() {
    let guarded = Guarded::start(3600.0).await;
    let url = guarded.fake.url();
    let token_server = Guarded::start(3600.0).await;
    let elsewhere = format!("{}/token", token_server.fake.url());
    let properties = [
        ("uri", url.as_str()),
        ("credential", "planted/client+secret"),
        ("scope", "PRINCIPAL_ROLE:ALL"),
        ("audience", "lake"),
        ("resource", "https://lake/"),
        ("header.X-Tenant", "one"),
    ];
    let catalog = open(&properties).await.unwrap();
    catalog.load(&ident()).await.unwrap();
    let asked = guarded.fake.asked();
    assert_eq!(asked[0].line, "POST /v1/oauth/tokens");
    assert_eq!(
        asked[0].body(),
        "grant_type=client_credentials&client_secret=planted%2Fclient%2Bsecret&scope=PRINCIPAL_ROLE%3AALL\
         &audience=lake&resource=https%3A%2F%2Flake%2F"
    );
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!((asked[0].header("x-tenant"), asked[0].header("authorization")), (Some("one"), None));
    assert_eq!((guarded.granted(), asked.len()), (1, 3));

    // A token server of another host gets none of the catalog's headers. It grants what the catalog takes: both count.
    let mut properties = properties.to_vec();
    properties.push(("oauth2-server-uri", &elsewhere));
    properties[1].1 = "me:planted:with:colons";
    open(&properties).await.unwrap();
    let asked = token_server.fake.asked();
    assert_eq!((asked[0].line.as_str(), asked[0].header("x-tenant")), ("POST /token", None));
    assert!(asked[0].body().contains("client_id=me&client_secret=planted%3Awith%3Acolons&"), "{}", asked[0].body());
    // A path is one of the catalog's.
    properties.pop();
    properties.push(("oauth2-server-uri", "token"));
    open(&properties).await.unwrap();
    assert_eq!(guarded.fake.count("POST /token"), 1);
}

/// The protocol's `LoadTableResult.config.token`.
#[tokio::test]
async fn a_table_may_have_a_token_of_its_own() {
    let taken = Arc::new(AtomicBool::new(true));
    let is_taken = taken.clone();
    let fake = Fake::start(move |asked| match asked.line.split_once(' ').unwrap() {
        ("GET", "/v1/config") => answer(200, json!({ "defaults": {}, "overrides": {} })),
        ("GET", path) => {
            let mut loaded = crate::rest_protocol::table("s3://nowhere/t");
            if path.ends_with("/t") {
                loaded["config"] = json!({ "token": "planted-table-token" });
            }
            answer(200, loaded)
        }
        _ if asked.header("authorization") == Some("Bearer planted-table-token")
            && !is_taken.load(Ordering::SeqCst) =>
        {
            answer(401, json!({ "error": { "message": "planted-table-token is unknown", "type": "No" } }))
        }
        _ => answer(409, json!({ "error": { "message": "not planted-table-token", "type": "CommitFailedException" } })),
    })
    .await;
    let catalog = open(&[("uri", &fake.url()), ("token", "of-the-catalog")]).await.unwrap();
    let commits = async |name: &str| {
        let base = catalog.load(&TableIdent::from_strs(["a", name]).unwrap()).await.unwrap();
        let (requirements, updates) = append_manifests(&base, "one", "s3://nowhere/manifests.avro".to_owned());
        let error = catalog.commit(&base, requirements, updates).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)) && !error.to_string().contains("planted"), "{error:?}");
        let commits = fake.asked().into_iter().filter(|asked| asked.line.starts_with("POST")).collect::<Vec<_>>();
        commits.iter().map(|asked| asked.header("authorization").unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (own, catalogs) = ("Bearer planted-table-token", "Bearer of-the-catalog");
    assert_eq!(commits("t").await, [own]);
    assert_eq!(commits("other").await, [own, catalogs]);
    // Not taken any more: the catalog's is.
    taken.store(false, Ordering::SeqCst);
    assert_eq!(commits("t").await, [own, catalogs, own, catalogs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_once_however_many_need_it() {
    let guarded = Guarded::start(3.0).await;
    let catalog = guarded.open().await;
    let all_load = |times: usize| {
        let loads = (0..times).map(|_| {
            let catalog = catalog.clone();
            async move { catalog.load(&ident()).await.map(drop) }
        });
        futures::future::try_join_all(loads)
    };
    all_load(8).await.unwrap();
    assert_eq!(guarded.granted(), 1);
    // Two thirds of its life: it is renewed, though still good.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    all_load(8).await.unwrap();
    assert_eq!(guarded.granted(), 2);
    assert_eq!(guarded.fake.asked().iter().filter(|asked| asked.line.contains("oauth")).count(), 2);
    // Revoked: the server says so, and the request is sent again with a new one.
    guarded.granted.fetch_add(1, Ordering::SeqCst);
    let base = catalog.load(&ident()).await.unwrap();
    assert_eq!(guarded.granted(), 4);
    guarded.granted.fetch_add(1, Ordering::SeqCst);
    let (requirements, updates) = append_manifests(&base, "one", "s3://nowhere/manifests.avro".to_owned());
    catalog.commit(&base, requirements, updates).await.unwrap();
    let commits: Vec<Asked> =
        guarded.fake.asked().into_iter().filter(|asked| asked.line.starts_with("POST /v1/namespaces")).collect();
    assert_eq!(commits.len(), 2);
    assert_eq!(commits[0].body, commits[1].body);

    // The token endpoint is away: the old token serves while it lasts, then nothing is sent.
    guarded.down.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    catalog.load(&ident()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let (requirements, updates) = append_manifests(&base, "two", "s3://nowhere/manifests.avro".to_owned());
    let before = guarded.fake.count("POST /v1/namespaces");
    let error = catalog.commit(&base, requirements, updates).await.unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_)) && error.to_string().contains("/v1/oauth/tokens answered 503"),
        "{error:?}"
    );
    assert_eq!(guarded.fake.count("POST /v1/namespaces"), before, "a commit went out without a token");
    guarded.down.store(false, Ordering::SeqCst);
    catalog.load(&ident()).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_not_taken_may_be_later() {
    // Granted, and yet refused: at first that is a mistake, after it worked it may pass.
    let guarded = Guarded::start(3600.0).await;
    let catalog = guarded.open().await;
    let refusing = Fake::start(|asked| match asked.line.as_str() {
        "POST /v1/oauth/tokens" => answer(200, json!({ "access_token": "token-x", "expires_in": 3600 })),
        // It echoes what it was given.
        _ => answer(
            401,
            json!({ "error": { "message": format!("what is {:?}", asked.headers), "type": "NotAuthorizedException" } }),
        ),
    })
    .await;
    let error = open(&[("uri", &refusing.url()), ("credential", "me:planted-secret")]).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("401 NotAuthorizedException") && said.contains("catalogs/lake.toml"), "{said}");
    assert!(!said.contains("token-x") && !said.contains("planted-secret"), "{said}");
    assert_eq!(refusing.count("GET /v1/config"), 2);

    catalog.load(&ident()).await.unwrap();
    let before = guarded.fake.lines().len();
    guarded.deaf.store(true, Ordering::SeqCst);
    let error = catalog.load(&ident()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    // Sent, refused, a new token asked for, sent again.
    assert_eq!(guarded.fake.lines().len(), before + 3);
    guarded.deaf.store(false, Ordering::SeqCst);
    catalog.load(&ident()).await.unwrap();
}

#[tokio::test]
async fn what_a_token_server_says_is_told_with_the_key_to_mend() {
    let denial = |status: u16, body: serde_json::Value| move |_: &Asked| -> Response { answer(status, body.clone()) };
    for (status, body, wanted) in [
        (
            401,
            json!({ "error": "invalid_client", "error_description": "no such client" }),
            "answered 401 invalid_client: no such client; mend credential (CLIENT-ID:CLIENT-SECRET) in catalogs/lake.toml",
        ),
        (400, json!({ "error": "invalid_scope" }), "answered 400 invalid_scope; mend scope in catalogs/lake.toml"),
        (400, json!({ "error": "invalid_target" }), "invalid_target; mend audience or resource in catalogs/lake.toml"),
        (400, json!({ "error": "unauthorized_client" }), "must be allowed the grant client_credentials"),
        (404, json!({ "nothing": "here" }), "mend oauth2-server-uri or credential in catalogs/lake.toml"),
        (
            400,
            json!({ "error": "invalid_client", "error_description": format!("what is {SECRET}? or {}?", "planted%2Fclient%2Bsecret") }),
            "what is ***? or ***?",
        ),
        (200, json!({ "token": "of another kind" }), "an answer that makes no sense"),
        (200, json!({ "access_token": "x", "token_type": "mac" }), "its token is no bearer token"),
    ] {
        let fake = Fake::start(denial(status, body)).await;
        let error = open(&[("uri", &fake.url()), ("credential", &format!("me:{SECRET}"))]).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(wanted), "{error:?}");
        assert!(
            error.to_string().contains(&format!("catalog lake: the token server {}/v1/oauth/tokens", fake.url())),
            "{error}"
        );
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
    let fake = Fake::start(denial(503, json!({}))).await;
    let error = open(&[("uri", &fake.url()), ("credential", "me:x")]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let nobody = [("uri", "http://127.0.0.1:1"), ("credential", "me:x")];
    let error = open(&nobody).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("token server"), "{error:?}");
}

#[tokio::test]
async fn a_token_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let (good, taken) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    let (wanted, count) = (good.clone(), taken.clone());
    let fake = Fake::start(move |asked| {
        let wanted = format!("Bearer planted-{}", wanted.load(Ordering::SeqCst));
        match (asked.header("authorization") == Some(wanted.as_str()), asked.line.as_str()) {
            (false, _) => answer(401, json!({ "error": { "message": "unknown", "type": "NotAuthorizedException" } })),
            (_, "GET /v1/config") => {
                answer(200, json!({ "defaults": {}, "overrides": { "token-file": "/etc/hostname" } }))
            }
            _ => {
                count.fetch_add(1, Ordering::SeqCst);
                answer(200, crate::rest_protocol::table("s3://nowhere/t"))
            }
        }
    })
    .await;
    let url = fake.url();
    let properties = [("uri", url.as_str()), ("token-file", path.to_str().unwrap())];
    let error = open(&properties).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(&format!("token-file {} cannot be read", path.display())), "{error}");
    assert_eq!(fake.lines(), [""; 0]);

    std::fs::write(&path, "planted-1\n").unwrap();
    let catalog = open(&properties).await.unwrap();
    catalog.load(&ident()).await.unwrap();
    // Rotated, and the old one is not taken any more: told by the 401, not by the time.
    std::fs::write(&path, "planted-2\n").unwrap();
    good.store(2, Ordering::SeqCst);
    catalog.load(&ident()).await.unwrap();
    assert_eq!(fake.asked().last().unwrap().header("authorization"), Some("Bearer planted-2"));
    // Rotated late: until then it may pass.
    good.store(3, Ordering::SeqCst);
    let error = catalog.load(&ident()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("token-file") && !error.to_string().contains("planted"), "{error}");
    std::fs::write(&path, "planted-3").unwrap();
    catalog.load(&ident()).await.unwrap();
    assert_eq!(taken.load(Ordering::SeqCst), 3);
    // A token in the catalog's file is what it is.
    let fixed = open(&[("uri", &url), ("token", "planted-3")]).await.unwrap();
    fixed.load(&ident()).await.unwrap();
    good.store(4, Ordering::SeqCst);
    let error = fixed.load(&ident()).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(_)) && error.to_string().contains("its token is wrong or has expired"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn icebergs_own_server_behind_oauth2() {
    let rest = Part::start("rest", &[&format!("auth=me:{SECRET}"), "ttl=2"]);
    let error = open(&[("uri", &rest.address)]).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("credential"), "{error:?}");
    let error = open(&[("uri", &rest.address), ("credential", "me:planted-wrong")]).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("invalid_client"), "{error:?}");
    assert!(!error.to_string().contains("planted-wrong"), "{error}");

    let catalog = open(&[("uri", &rest.address), ("credential", &format!("me:{SECRET}"))]).await.unwrap();
    crate::catalogs::behaves(catalog.clone()).await;
    // All tokens are revoked: nobody notices.
    let ended = reqwest::Client::new().post(format!("{}/_revoke", rest.address)).send().await.unwrap();
    assert!(ended.status().is_success());
    catalog.create(&TableIdent::new(namespace(&["bronze"]), "late".to_owned()), creation()).await.unwrap();
    let log = reqwest::get(format!("{}/_log", rest.address)).await.unwrap().text().await.unwrap();
    let tokens = log.lines().filter(|line| line.starts_with("POST /v1/oauth/tokens 200")).count();
    let refused = log.lines().filter(|line| line.contains(" 401 ")).count();
    assert!((2..60).contains(&tokens), "{tokens} tokens");
    // The two that were refused above, and the one after the revocation.
    assert!((3..10).contains(&refused), "{log}");
}
