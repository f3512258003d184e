//! What must never be seen in a message, though a server may echo it.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::encode;

/// Shorter values would black out ordinary words.
const LENGTH_MIN: usize = 6;
/// Of those that pass (tokens, vended keys), the newest are remembered.
const PASSING_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Secrets {
    /// Those of the catalog's file.
    fixed: Vec<String>,
    passing: Mutex<VecDeque<String>>,
}

impl Secrets {
    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() >= LENGTH_MIN {
            self.fixed.extend(spellings(secret));
        }
    }

    /// A secret that was handed to us while running.
    pub(super) fn learn(&self, secret: &str) {
        if secret.len() < LENGTH_MIN {
            return;
        }
        let mut passing = self.passing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if passing.iter().any(|known| known == secret) {
            return;
        }
        passing.extend(spellings(secret));
        let surplus = passing.len().saturating_sub(PASSING_MAX);
        passing.drain(..surplus);
    }

    pub(super) fn hide(&self, mut line: String) -> String {
        let passing = self.passing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut found: Vec<&String> = self.fixed.iter().chain(passing.iter()).filter(|s| line.contains(*s)).collect();
        // A longer one first: what is left of it behind a shorter one that it begins with would be seen.
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in found {
            line = line.replace(secret.as_str(), "***");
        }
        line
    }
}

/// A secret as it is, and as a form or a query holds it.
fn spellings(secret: &str) -> impl Iterator<Item = String> {
    let encoded = encode(secret);
    let encoded = (encoded != secret).then_some(encoded);
    [secret.to_owned()].into_iter().chain(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_in_every_spelling() {
        let mut secrets = Secrets::default();
        secrets.add("pass word/1");
        secrets.add("short");
        for at in 0..PASSING_MAX {
            secrets.learn(&format!("passing-{at}"));
        }
        let line = secrets.hide("a pass word/1 b pass%20word%2F1 c passing-255 d short".to_owned());
        assert_eq!(line, "a *** b *** c *** d short");
    }
}
