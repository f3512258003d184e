//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` inside strings.
//!
//! Messages name the variable or the file, never what was in it: it may be a secret.

use std::path::Path;

/// Where references are looked up.
pub struct Sources<'a> {
    /// Paths of `${file:PATH}` are relative to it.
    pub root: &'a Path,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Sources<'_> {
    /// `text` with its references replaced. `$${` stands for a plain `${`. A file's trailing line break is cut off.
    pub fn interpolate(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err("has a `${` without its `}`; write `$${` for a plain `${`".to_string());
            };
            out.push_str(&self.reference(&rest[at + 2..at + end])?);
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn reference(&self, reference: &str) -> Result<String, String> {
        if let Some(path) = reference.strip_prefix("file:") {
            let content = std::fs::read_to_string(self.root.join(path))
                .map_err(|error| format!("refers to the file {path}, which cannot be read: {}", plain(&error)))?;
            return Ok(content.trim_end_matches(['\r', '\n']).to_string());
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Err(format!(
                "refers to `${{{name}}}`, which is no variable's name; `${{VAR}}`, `${{VAR:-default}}` or `${{file:PATH}}` can stand here"
            ));
        }
        // As in a shell, `:-` also stands in for a variable that is set but empty.
        match ((self.variable)(name), default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_string()),
            (None, None) => Err(format!(
                "refers to ${{{name}}}, but the environment variable {name} is not set; set it, or give a default: `${{{name}:-…}}`"
            )),
        }
    }
}

/// An I/O error's reason in words, without the system's number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("secret"), "s3cr3t\n").expect("written");
        let variable = |name: &str| match name {
            "HOST" => Some("kafka".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let sources = Sources { root: folder.path(), variable: &variable };
        for (text, result) in [
            ("plain", Ok("plain")),
            ("${HOST}:9092", Ok("kafka:9092")),
            ("${HOST:-other}:${PORT:-9092}", Ok("kafka:9092")),
            ("${EMPTY}", Ok("")),
            ("${EMPTY:-full}", Ok("full")),
            ("${NONE:-}", Ok("")),
            ("${file:secret}", Ok("s3cr3t")),
            ("$${HOST} costs $5", Ok("${HOST} costs $5")),
            ("${NONE}", Err("variable NONE is not set")),
            ("${file:none}", Err("file none, which cannot be read: no such file")),
            ("${HOST", Err("without its `}`")),
            ("${a b}", Err("no variable's name")),
        ] {
            match (sources.interpolate(text), result) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted, "{text}"),
                (Err(got), Err(wanted)) => assert!(got.contains(wanted), "{text}: {got}"),
                (got, wanted) => panic!("{text}: {got:?}, not {wanted:?}"),
            }
        }
    }
}
