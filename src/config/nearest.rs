//! The known name that a user most likely meant.

/// `; did you mean "…"?` with the candidate nearest to `name`, or a list of all when none is near.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if candidates.is_empty() => "there is none".to_string(),
        None => {
            let mut names = candidates;
            names.sort_unstable();
            format!("known: {}", names.join(", "))
        }
    }
}

/// The candidate that differs from `name` by typing errors only.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '.'], "_");
    let wanted = plain(name);
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &plain(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= 0.82)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_key_and_nonsense_lists_them() {
        let keys = ["bootstrap_servers", "group_id", "properties"];
        assert_eq!(suggest("bootstrap.servers", keys), "did you mean `bootstrap_servers`?");
        assert_eq!(suggest("grup_id", keys), "did you mean `group_id`?");
        assert_eq!(suggest("zzz", keys), "known: bootstrap_servers, group_id, properties");
    }
}
