//! Names of one level's columns, where columns without a field keep theirs.

use std::collections::HashSet;

/// A column, as far as its name goes.
pub struct Claim<'a> {
    /// The name in the table; none for a new column.
    pub current: Option<&'a str>,
    /// The field's name; none for a column that no field fills, which keeps its own.
    pub wanted: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub name: String,
    /// Whether the wanted name is held by a column without a field, so that this one has to be called otherwise anew.
    pub clashes: bool,
}

/// A field's column is called like the field; if a column without a field holds that name (ignoring case), `<name>_<n>`
/// with the smallest free n from 2. Such a name, once given, stays. Fields among each other have different names.
pub fn settle(claims: &[Claim<'_>]) -> Vec<Settled> {
    let lower = |name: &str| name.to_ascii_lowercase();
    let mut held: HashSet<String> =
        claims.iter().filter(|claim| claim.wanted.is_none()).filter_map(|claim| claim.current.map(lower)).collect();
    // Somebody else may have given a column the name of another field.
    let named = |claim: &Claim<'_>| claim.current.is_some() && claim.current == claim.wanted;
    let own: HashSet<String> =
        claims.iter().filter(|claim| named(claim)).filter_map(|claim| claim.current.map(lower)).collect();
    let keeps = |claim: &Claim<'_>, held: &HashSet<String>| match (claim.current, claim.wanted) {
        (Some(current), Some(wanted)) => {
            (held.contains(&lower(wanted)) || own.contains(&lower(wanted))) && is_numbered(current, wanted)
        }
        _ => false,
    };
    let kept: Vec<bool> = claims.iter().map(|claim| keeps(claim, &held)).collect();
    let numbered = claims.iter().zip(&kept).filter(|(_, kept)| **kept);
    held.extend(numbered.filter_map(|(claim, _)| claim.current.map(lower)));
    // A name is not free either if a field or another column of the table has it.
    let mut used: HashSet<String> =
        claims.iter().flat_map(|claim| [claim.current, claim.wanted]).flatten().map(lower).collect();
    let free = |claim: &Claim<'_>, wanted: &str| {
        !held.contains(&lower(wanted)) && (named(claim) || !own.contains(&lower(wanted)))
    };
    let mut settled = Vec::with_capacity(claims.len());
    for (claim, kept) in claims.iter().zip(kept) {
        let current = claim.current.unwrap_or_default();
        settled.push(match claim.wanted {
            None => Settled { name: current.to_string(), clashes: false },
            Some(_) if kept => Settled { name: current.to_string(), clashes: false },
            Some(wanted) if free(claim, wanted) => Settled { name: wanted.to_string(), clashes: false },
            Some(wanted) => {
                let name = (2..)
                    .map(|n: u64| format!("{wanted}_{n}"))
                    .find(|name| !used.contains(&lower(name)))
                    .expect("there are more numbers than columns");
                used.insert(lower(&name));
                Settled { name, clashes: true }
            }
        });
    }
    settled
}

fn is_numbered(name: &str, base: &str) -> bool {
    let number = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('_'));
    number.is_some_and(|digits| digits.parse::<u64>().is_ok_and(|n| n >= 2) && !digits.starts_with(['0', '+']))
}
