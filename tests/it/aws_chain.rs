//! AWS's chain of credentials, link by link: from where the keys come that a signed request to a catalog shows.
//!
//! The chain reads the environment, which tests of one process share: each asks by a process of its own.

use std::process::Command;

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::http::{Asked, Fake, empty, json as answer};
use crate::support::project::Project;

const ROLE: &str = "arn:aws:iam::123456789012:role/lake";
const INSTANCE_ROLE: &str = "GET /latest/meta-data/iam/security-credentials/";

/// A catalog, and all services that give keys; the keys are named after who gave them.
async fn cloud() -> Fake {
    Fake::start(|asked| match asked.line.as_str() {
        "GET /v1/config" => answer(200, json!({ "defaults": {}, "overrides": {} })),
        "GET /v1/namespaces" => answer(200, json!({ "namespaces": [] })),
        "GET /creds" => answer(200, keys("container")),
        "PUT /latest/api/token" => instance_token(),
        INSTANCE_ROLE => text("lake-role"),
        "GET /latest/meta-data/iam/security-credentials/lake-role" => answer(200, keys("instance")),
        "POST /" => security_tokens(asked),
        _ => empty(404),
    })
    .await
}

/// As the metadata services of containers and instances write them.
fn keys(source: &str) -> Value {
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2025-01-01T00:00:00Z",
        "AccessKeyId": format!("{source}-key"),
        "SecretAccessKey": "planted-secret",
        "Token": format!("{source}-session"),
        "Expiration": "2099-01-01T00:00:00Z",
    })
}

fn text(body: &str) -> Response {
    let mut response = empty(200);
    *response.body_mut() = Body::from(body.to_owned());
    response
}

fn instance_token() -> Response {
    let mut response = text("instance-token");
    response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", "21600".parse().unwrap());
    response
}

/// STS, which exchanges a web identity for keys.
fn security_tokens(asked: &Asked) -> Response {
    if !asked.body().contains("Action=AssumeRoleWithWebIdentity") {
        return empty(400);
    }
    text(
        r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <AssumedRoleUser>
      <AssumedRoleId>AROAEXAMPLE:calve</AssumedRoleId>
      <Arn>arn:aws:sts::123456789012:assumed-role/lake/calve</Arn>
    </AssumedRoleUser>
    <Credentials>
      <AccessKeyId>identity-key</AccessKeyId>
      <SecretAccessKey>planted-secret</SecretAccessKey>
      <SessionToken>identity-session</SessionToken>
      <Expiration>2099-01-01T00:00:00Z</Expiration>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#,
    )
}

/// A project whose catalog wants signatures, and says nothing of keys.
struct Asking {
    cloud: Fake,
    project: Project,
    home: tempfile::TempDir,
    /// The project's topic is there.
    _broker: Broker,
}

impl Asking {
    async fn new() -> Asking {
        let cloud = cloud().await;
        let broker = Broker::light();
        broker.create_topic("events", 1, &[]);
        let project = Project::new(&broker, "");
        let catalog = format!(
            "type = \"rest\"\nuri = \"{}\"\n\"rest.sigv4-enabled\" = \"true\"\n\"rest.signing-name\" = \"glue\"\n\
             \"rest.signing-region\" = \"eu-central-1\"\n",
            cloud.url()
        );
        project.write("catalogs/local.toml", &catalog);
        Asking { cloud, project, home: tempfile::tempdir().unwrap(), _broker: broker }
    }

    /// Connects to the catalog with these variables and no others of AWS's: exit code, and what was said.
    fn connect(&self, environment: &[(&str, &str)]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calve"));
        command.args(["validate", "--connect"]).current_dir(self.project.path());
        command.env_remove("CALVE_CONFIG").env_remove("CALVE_LOG");
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        // No profile of who runs the tests. The region is for STS, which else asks the instance.
        command.env("HOME", self.home.path()).env("AWS_REGION", "eu-central-1");
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    /// The same, and the catalog was asked with the keys of this source.
    fn connects_with(&self, source: &str, environment: &[(&str, &str)]) {
        let (code, said) = self.connect(environment);
        assert_eq!(code, 0, "{source}: {said}\n{:?}", self.cloud.lines());
        let asked = self.asked("GET /v1/");
        assert!(!asked.is_empty(), "{source}: the catalog was not asked");
        for asked in asked {
            let signed = asked.header("authorization").unwrap_or_default();
            assert!(signed.contains(&format!("Credential={source}-key/")), "{source}: {signed}");
            assert!(signed.contains("/eu-central-1/glue/aws4_request"), "{source}: {signed}");
            assert_eq!(asked.header("x-amz-security-token"), Some(&*format!("{source}-session")));
        }
    }

    fn asked(&self, start: &str) -> Vec<Asked> {
        self.cloud.asked().into_iter().filter(|asked| asked.line.starts_with(start)).collect()
    }
}

const NO_INSTANCE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_the_environment() {
    let asking = Asking::new().await;
    let container = format!("{}/creds", asking.cloud.url());
    let environment = [
        ("AWS_ACCESS_KEY_ID", "environment-key"),
        ("AWS_SECRET_ACCESS_KEY", "planted-secret"),
        ("AWS_SESSION_TOKEN", "environment-session"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        NO_INSTANCE,
    ];
    asking.connects_with("environment", &environment);
    assert_eq!(asking.cloud.count("GET /creds"), 0, "the environment comes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_profile() {
    let asking = Asking::new().await;
    let folder = asking.home.path().join(".aws");
    std::fs::create_dir(&folder).unwrap();
    let profiles = "[default]\naws_access_key_id = other-key\naws_secret_access_key = other\n\n\
                    [lake]\naws_access_key_id = profile-key\naws_secret_access_key = planted-secret\n\
                    aws_session_token = profile-session\n";
    std::fs::write(folder.join("credentials"), profiles).unwrap();
    asking.connects_with("profile", &[("AWS_PROFILE", "lake"), NO_INSTANCE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_container() {
    let asking = Asking::new().await;
    let uri = format!("{}/creds", asking.cloud.url());
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token"),
        NO_INSTANCE,
    ];
    asking.connects_with("container", &environment);
    let asked = asking.asked("GET /creds");
    assert_eq!(asked.len(), 1, "keys are kept from one request to the next");
    assert_eq!(asked[0].header("authorization"), Some("container-token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_instance() {
    let asking = Asking::new().await;
    let endpoint = asking.cloud.url();
    asking.connects_with("instance", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str())]);
    let asked = asking.asked(INSTANCE_ROLE);
    assert_eq!(asked.len(), 2, "the role's name, and its keys");
    // The second version of the protocol: nothing is told without a token.
    assert!(asked.iter().all(|asked| asked.header("x-aws-ec2-metadata-token") == Some("instance-token")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_for_a_web_identity() {
    let asking = Asking::new().await;
    let (token, endpoint) = (asking.home.path().join("token").display().to_string(), asking.cloud.url());
    std::fs::write(&token, "planted-identity").unwrap();
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ENDPOINT_URL_STS", endpoint.as_str()),
        NO_INSTANCE,
    ];
    asking.connects_with("identity", &environment);
    let asked = asking.asked("POST /");
    assert_eq!(asked.len(), 1, "keys are kept from one request to the next");
    let form: Vec<_> = url::form_urlencoded::parse(&asked[0].body).into_owned().collect();
    for (key, value) in [("RoleArn", ROLE), ("WebIdentityToken", "planted-identity")] {
        assert!(form.contains(&(key.to_owned(), value.to_owned())), "{key}: {form:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_keys_anywhere() {
    let asking = Asking::new().await;
    let (code, said) = asking.connect(&[NO_INSTANCE]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no AWS credentials are to be had") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    assert_eq!(asking.cloud.lines(), [""; 0], "nothing is asked without a signature");
}
