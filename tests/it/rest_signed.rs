//! Requests to a REST catalog signed by SigV4, judged by AWS's own SDK in front of Iceberg's server.

use calve::catalog::{self, Error};
use calve::config::CatalogKind;
use iceberg::TableIdent;

use crate::support::parts::Part;
use crate::support::tables::{append_manifests, configured, creation, namespace};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "planted/session+token==";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_signed_as_aws_signs_it() {
    for (service, session) in [("s3tables", None), ("glue", Some(SESSION)), ("execute-api", None)] {
        let keys = match session {
            Some(session) => format!("sigv4={ID}:{SECRET}:{session}"),
            None => format!("sigv4={ID}:{SECRET}"),
        };
        let rest = Part::start("rest", &[&keys, "region=eu-central-1", &format!("service={service}")]);
        let mut properties = vec![
            ("uri", rest.address.as_str()),
            ("warehouse", "arn:aws:s3tables:eu-central-1:1:bucket/a b"),
            ("rest.sigv4-enabled", "true"),
            ("rest.signing-region", "eu-central-1"),
            ("rest.access-key-id", ID),
            ("rest.secret-access-key", SECRET),
            ("rest-page-size", "1"),
        ];
        // The default is Java's.
        if service != "execute-api" {
            properties.push(("rest.signing-name", service));
        }
        properties.extend(session.map(|session| ("rest.session-token", session)));
        let catalog = catalog::open(&configured("lake", CatalogKind::Rest, &properties)).await.unwrap();
        // Names that are one thing in a path and another in what is signed, and pages with tokens.
        let outer = namespace(&["one two"]);
        let inner = namespace(&["one two", "thr=ee+&ü"]);
        for namespace in [&outer, &inner] {
            catalog.create_namespace(namespace).await.unwrap();
        }
        assert_eq!(catalog.namespaces().await.unwrap(), [outer, inner.clone()]);
        let tables = ["a b", "c+d=e", "ümläut~'(*)!"].map(|name| TableIdent::new(inner.clone(), name.to_owned()));
        for (number, ident) in tables.iter().enumerate() {
            catalog.create(ident, creation()).await.unwrap();
            let base = catalog.load(ident).await.unwrap();
            let manifests = format!("{}/metadata/none-{number}.avro", base.metadata().location());
            let (requirements, updates) = append_manifests(&base, "one", manifests);
            catalog.commit(&base, requirements, updates).await.unwrap();
            assert!(catalog.load(ident).await.unwrap().metadata().current_snapshot().is_some());
        }
        assert_eq!(catalog.tables(&inner).await.unwrap(), tables);
        catalog.drop_table(&tables[1]).await.unwrap();

        // The judge does say no, and calve does not say with what it signed.
        let wrong = [("rest.secret-access-key", "planted/other"), ("rest.signing-name", "iam")];
        for (key, value) in wrong {
            let mut properties = properties.clone();
            properties.retain(|(known, _)| *known != key);
            properties.push((key, value));
            let refused = catalog::open(&configured("lake", CatalogKind::Rest, &properties)).await.unwrap_err();
            assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
            let text = refused.to_string();
            assert!(text.contains("bad signature") && !text.contains("planted"), "{text}");
        }
    }
}
