//! Where a file lies: the locations that table metadata uses, taken apart.

use std::path::PathBuf;

/// A location as written in table metadata, resolved to the store that holds it.
///
/// The rest of the location is taken as it is: Java, PyIceberg and DuckDB do not percent-decode paths either, and a
/// partition value's `%2F` must stay what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
    S3 { bucket: String, key: String },
}

impl Location {
    /// Takes bare absolute paths, `file:/…`, `file:///…`, `s3://`, `s3a://` and `s3n://`.
    pub fn parse(location: &str) -> Result<Location, String> {
        if location.starts_with('/') {
            return Ok(Location::Local(PathBuf::from(location)));
        }
        let Some((scheme, rest)) = location.split_once(':') else {
            return Err(format!("location {location:?} is neither an absolute path nor a URI"));
        };
        match scheme {
            "file" => {
                let path = match rest.strip_prefix("//") {
                    Some(authority_and_path) => {
                        authority_and_path.strip_prefix("localhost").unwrap_or(authority_and_path)
                    }
                    None => rest,
                };
                if !path.starts_with('/') {
                    return Err(format!(
                        "location {location:?}: a file URI needs an absolute path, as in file:///data"
                    ));
                }
                Ok(Location::Local(PathBuf::from(path)))
            }
            "s3" | "s3a" | "s3n" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                if bucket.is_empty() {
                    return Err(format!("location {location:?} names no bucket"));
                }
                Ok(Location::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => {
                Err(format!("location {location:?}: scheme {scheme:?} is not supported; use a path, file:// or s3://"))
            }
        }
    }
}

/// `base` and `name` joined by exactly one slash.
pub fn join(base: &str, name: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_every_spelling() {
        let local = |path: &str| Ok(Location::Local(PathBuf::from(path)));
        let s3 = |bucket: &str, key: &str| Ok(Location::S3 { bucket: bucket.into(), key: key.into() });
        for (written, expected) in [
            ("/data/t", local("/data/t")),
            ("file:/data/t", local("/data/t")),
            ("file:///data/t", local("/data/t")),
            ("file://localhost/data/t", local("/data/t")),
            ("file:///data/region=a%2Fb/x", local("/data/region=a%2Fb/x")),
            ("s3://lake/wh/t", s3("lake", "wh/t")),
            ("s3a://lake/wh/t", s3("lake", "wh/t")),
            ("s3://lake", s3("lake", "")),
        ] {
            assert_eq!(Location::parse(written), expected, "{written}");
        }
        for refused in ["data/t", "file://host/data", "gs://b/k", "s3:///k", ""] {
            assert!(Location::parse(refused).is_err(), "{refused}");
        }
    }
}
