//! Where a file lies: the locations that table metadata uses, taken apart.

use std::path::PathBuf;

use super::azure::Container;

/// A location as written in table metadata, resolved to the store that holds it.
///
/// The rest of the location is taken as it is: Java, PyIceberg and DuckDB do not percent-decode paths either, and a
/// partition value's `%2F` must stay what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
    Object { bucket: Bucket, key: String },
}

/// What a store is made for; Azure calls it a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    S3(String),
    Gcs(String),
    Azure(Container),
}

impl Location {
    /// Takes bare absolute paths, `file:/…`, `file:///…`; `s3://`, `s3a://`, `s3n://`; `gs://`, `gcs://`; `abfs://`,
    /// `abfss://`, `wasb://`, `wasbs://`.
    pub fn parse(location: &str) -> Result<Location, String> {
        if location.starts_with('/') {
            return Ok(Location::Local(PathBuf::from(location)));
        }
        let Some((scheme, rest)) = location.split_once(':') else {
            return Err(format!("location {location:?} is neither an absolute path nor a URI"));
        };
        if scheme == "file" {
            let path = match rest.strip_prefix("//") {
                Some(authority_and_path) => authority_and_path.strip_prefix("localhost").unwrap_or(authority_and_path),
                None => rest,
            };
            if !path.starts_with('/') {
                return Err(format!("location {location:?}: a file URI needs an absolute path, as in file:///data"));
            }
            return Ok(Location::Local(PathBuf::from(path)));
        }
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let (authority, key) = path.split_once('/').unwrap_or((path, ""));
        let bucket = match scheme {
            "s3" | "s3a" | "s3n" => {
                Some(authority).filter(|name| !name.is_empty()).map(|name| Bucket::S3(name.to_owned()))
            }
            "gs" | "gcs" => Some(authority).filter(|name| !name.is_empty()).map(|name| Bucket::Gcs(name.to_owned())),
            "abfs" | "abfss" | "wasb" | "wasbs" => Container::parse(authority).map(Bucket::Azure),
            _ => {
                return Err(format!(
                    "location {location:?}: scheme {scheme:?} is not supported; use a path, file://, s3://, gs:// or abfss://"
                ));
            }
        };
        match bucket {
            Some(bucket) => Ok(Location::Object { bucket, key: key.to_owned() }),
            None => Err(format!("location {location:?} names no bucket")),
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
        let object = |bucket: Bucket, key: &str| Ok(Location::Object { bucket, key: key.into() });
        let s3 = |bucket: &str, key: &str| object(Bucket::S3(bucket.into()), key);
        let gcs = |bucket: &str, key: &str| object(Bucket::Gcs(bucket.into()), key);
        let azure = |name: &str, host: Option<&str>, key: &str| {
            object(Bucket::Azure(Container { name: name.into(), host: host.map(str::to_owned) }), key)
        };
        for (written, expected) in [
            ("/data/t", local("/data/t")),
            ("file:/data/t", local("/data/t")),
            ("file:///data/t", local("/data/t")),
            ("file://localhost/data/t", local("/data/t")),
            ("file:///data/region=a%2Fb/x", local("/data/region=a%2Fb/x")),
            ("s3://lake/wh/t", s3("lake", "wh/t")),
            ("s3a://lake/wh/t", s3("lake", "wh/t")),
            ("s3://lake", s3("lake", "")),
            ("gs://lake/wh/t", gcs("lake", "wh/t")),
            ("abfss://c@acc.dfs.core.windows.net/wh/t", azure("c", Some("acc.dfs.core.windows.net"), "wh/t")),
            ("wasbs://c@acc.blob.core.windows.net/t", azure("c", Some("acc.blob.core.windows.net"), "t")),
            ("abfss://c/t", azure("c", None, "t")),
        ] {
            assert_eq!(Location::parse(written), expected, "{written}");
        }
        for refused in
            ["data/t", "file://host/data", "ftp://b/k", "s3:///k", "gs:///k", "abfss://@h/k", "abfss://c@/k", ""]
        {
            assert!(Location::parse(refused).is_err(), "{refused}");
        }
    }
}
