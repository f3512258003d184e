//! What a store's refusal means and what a person must do about it, decided once.

use std::io;

use iceberg::ErrorKind;

use crate::catalog::error::one_line;

/// Not the store's fault: a location or property that cannot work.
pub(super) fn usage_error(message: String) -> iceberg::Error {
    iceberg::Error::new(ErrorKind::DataInvalid, message)
}

pub(super) fn io_error(location: &str, error: io::Error) -> iceberg::Error {
    let (kind, retryable) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            (ErrorKind::DataInvalid, false)
        }
        io::ErrorKind::AlreadyExists => (ErrorKind::PreconditionFailed, false),
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => (ErrorKind::Unexpected, false),
        // A full disk among them: somebody may make room.
        _ => (ErrorKind::Unexpected, true),
    };
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull => "; the disk is full: make room, and it goes on by itself",
        io::ErrorKind::QuotaExceeded => "; the quota is used up: raise it or make room, and it goes on by itself",
        io::ErrorKind::PermissionDenied => "; let the user that calve runs as read and write there",
        _ => "",
    };
    iceberg::Error::new(kind, format!("{location}: {error}{remedy}")).with_retryable(retryable)
}

pub(super) fn store_error(location: &str, error: object_store::Error) -> iceberg::Error {
    use object_store::Error as E;
    let (kind, mut retryable) = match &error {
        E::NotFound { .. } | E::InvalidPath { .. } => (ErrorKind::DataInvalid, false),
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::PreconditionFailed, false),
        E::NotSupported { .. } | E::NotImplemented { .. } => (ErrorKind::FeatureUnsupported, false),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } | E::UnknownConfigurationKey { .. } => {
            (ErrorKind::Unexpected, false)
        }
        _ => (ErrorKind::Unexpected, true),
    };
    // Its display holds the whole answer, which the line below would cut.
    let whole = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    // Azurite calls a wrong signature by the name of a missing permission.
    let unknown = whole.contains("failed to authenticate the request");
    // Azure has no code of its own for a clock that is off.
    let skewed =
        whole.contains("The Date header in the request is incorrect") || whole.contains("Request date header too old");
    let known = REFUSALS.iter().find(|refusal| {
        refusal.codes.iter().any(|code| match (skewed, unknown) {
            (true, _) => *code == "RequestTimeTooSkewed",
            (_, true) => *code == "AuthenticationFailed",
            _ => says(&whole, code),
        })
    });
    let line = match known {
        Some(refusal) => {
            retryable = refusal.passes;
            // The remedy must not be cut off behind addresses that are said three times.
            format!("{}; {}", answer(&whole), refusal.remedy)
        }
        None => one_line(&error),
    };
    iceberg::Error::new(kind, format!("{location}: {line}")).with_retryable(retryable)
}

/// A refusal that people meet.
struct Refusal {
    /// The stores' words for it: S3's and Google's, then Azure's.
    codes: &'static [&'static str],
    /// Whether time or somebody elsewhere heals it, so that trying again makes sense.
    passes: bool,
    remedy: &'static str,
}

const REFUSALS: &[Refusal] = &[
    Refusal {
        codes: &["NoSuchBucket", "ContainerNotFound"],
        passes: false,
        remedy: "there is no such bucket: make it, or correct the location (the catalog's warehouse, the table's write.data.path)",
    },
    Refusal {
        codes: &["RequestTimeTooSkewed"],
        passes: true,
        remedy: "this host's clock is off: synchronize it (NTP), and it goes on by itself",
    },
    Refusal {
        codes: &["ExpiredToken", "TokenRefreshRequired"],
        // Whoever gives keys that expire gives new ones.
        passes: true,
        remedy: "the credentials have expired: give new ones, or let them be fetched (a profile, a role, vended by the catalog)",
    },
    Refusal {
        codes: &[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            // MinIO's word for a session token that is not its own.
            "InvalidTokenId",
            "InvalidSecurity",
            "AuthenticationFailed",
            // versitygw's word for a key that it does not know.
            "XAdminUserNotFound",
        ],
        passes: false,
        remedy: "the store does not accept these credentials: check the keys, and the region or account that they are for",
    },
    Refusal {
        codes: &[
            "AccessDenied",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "InsufficientAccountPermissions",
        ],
        passes: false,
        remedy: "the credentials may not do this: let them read, write, list and delete there",
    },
    Refusal {
        codes: &["AuthorizationHeaderMalformed", "PermanentRedirect"],
        passes: false,
        remedy: "the bucket is in another region: set s3.region to it",
    },
    Refusal {
        codes: &["KMS.NotFoundException", "KMS.DisabledException", "KMS.KMSInvalidStateException"],
        passes: false,
        remedy: "the key that objects are encrypted with cannot be used: check s3.sse.key",
    },
    Refusal {
        codes: &["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"],
        passes: true,
        remedy: "the store is full: make room, and it goes on by itself",
    },
];

/// Whether an answer in XML gives this code.
fn says(text: &str, code: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<Code>") {
        if after.split('<').next().unwrap_or_default().trim() == code {
            return true;
        }
        rest = after;
    }
    false
}

/// What an answer in XML says, in short.
fn answer(text: &str) -> String {
    let tag = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split('<').next()?.trim());
    let code = tag("Code").unwrap_or("refused");
    match tag("Message") {
        Some(message) => format!("{code}: {}", message.chars().take(200).collect::<String>()),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str) -> iceberg::Error {
        let source = format!(
            "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>7</RequestId></Error>"
        );
        store_error("s3://lake/x", object_store::Error::Generic { store: "S3", source: source.into() })
    }

    #[test]
    fn refusals_are_one_line_that_says_what_to_do() {
        for (code, passes, wanted) in [
            ("NoSuchBucket", false, "make it, or correct the location"),
            ("ContainerNotFound", false, "make it, or correct the location"),
            ("RequestTimeTooSkewed", true, "clock is off"),
            ("ExpiredToken", true, "have expired"),
            ("SignatureDoesNotMatch", false, "check the keys"),
            ("AuthenticationFailed", false, "check the keys"),
            ("AccessDenied", false, "read, write, list and delete"),
        ] {
            let error = refused(code, "so it is");
            let text = error.to_string();
            assert_eq!(error.retryable(), passes, "{text}");
            assert!(text.contains(wanted) && text.contains(&format!("{code}: so it is")), "{text}");
            assert!(!text.contains('<') && !text.contains('\n') && !text.contains("RequestId"), "{text}");
        }
        assert!(refused("InternalError", "try again").retryable());
        let skewed = refused("AuthenticationFailed", "Server failed to authenticate. Request date header too old: 'x'");
        assert!(skewed.retryable() && skewed.to_string().contains("clock is off"), "{skewed}");
        // A word in a message is no code.
        assert!(refused("InternalError", "AccessDenied").retryable());
    }

    #[test]
    fn a_full_disk_passes() {
        let error = io_error("/data/x", io::ErrorKind::StorageFull.into());
        assert!(error.retryable() && error.to_string().contains("make room"), "{error}");
        let error = io_error("/data/x", io::ErrorKind::PermissionDenied.into());
        assert!(!error.retryable() && error.to_string().contains("the user that calve runs as"), "{error}");
    }
}
