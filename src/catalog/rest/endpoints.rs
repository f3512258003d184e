//! What a server offers: the `endpoints` of its configuration.

use std::collections::HashSet;

/// The requests that we can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    ListNamespaces,
    CreateNamespace,
    ListTables,
    CreateTable,
    LoadTable,
    UpdateTable,
    DropTable,
    Credentials,
    CommitTransaction,
}

impl Endpoint {
    /// As servers list it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Endpoint::ListNamespaces => "GET /v1/{prefix}/namespaces",
            Endpoint::CreateNamespace => "POST /v1/{prefix}/namespaces",
            Endpoint::ListTables => "GET /v1/{prefix}/namespaces/{namespace}/tables",
            Endpoint::CreateTable => "POST /v1/{prefix}/namespaces/{namespace}/tables",
            Endpoint::LoadTable => "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            Endpoint::UpdateTable => "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            Endpoint::DropTable => "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            Endpoint::Credentials => "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials",
            Endpoint::CommitTransaction => "POST /v1/{prefix}/transactions/commit",
        }
    }
}

/// A server that lists nothing is one from before there were lists.
#[derive(Debug, Default)]
pub(super) struct Offered(HashSet<String>);

impl Offered {
    pub(super) fn new(listed: Vec<String>) -> Offered {
        Offered(listed.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
    }

    pub(super) fn has(&self, endpoint: Endpoint) -> bool {
        match self.0.is_empty() {
            true => !matches!(endpoint, Endpoint::Credentials | Endpoint::CommitTransaction),
            false => self.0.contains(endpoint.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_not_there() {
        let old = Offered::new(Vec::new());
        assert!(old.has(Endpoint::UpdateTable));
        assert!(!old.has(Endpoint::Credentials) && !old.has(Endpoint::CommitTransaction));
        let listed = Offered::new(vec!["GET  /v1/{prefix}/namespaces".to_owned()]);
        assert!(listed.has(Endpoint::ListNamespaces) && !listed.has(Endpoint::CreateNamespace));
    }
}
