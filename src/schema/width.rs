//! A message with too many columns, and which fields as JSON would make it fit.

use super::check::{DEPTH_MAX, LEAVES_COUNTED_MAX};
use super::choices::Choices;
use super::columns::{Form, Layout};
use super::mapping::Options;
use super::model::{Cardinality, MessageId, Pool};

/// Messages that are looked into for fields to choose: of ways down there may be more than can be walked.
const TRIES_MAX: usize = 100;

/// More paths than this are no advice that anyone would follow.
const PATHS_MAX: usize = 12;

/// What to tell about a message of so many leaf columns.
pub fn fault(pool: &Pool, message: MessageId, options: &Options, choices: &Choices, leaves: u64) -> String {
    let count = match leaves {
        ..=LEAVES_COUNTED_MAX => leaves.to_string(),
        _ => format!("more than {LEAVES_COUNTED_MAX}"),
    };
    let columns_max = options.columns_max;
    let hint = match (below(pool, message, options, choices), paths(pool, message, options, choices)) {
        (Some(depth), Some(paths)) => format!("json_below = {depth} or json = {paths:?} would fit, or "),
        (Some(depth), None) => format!("json_below = {depth} would fit, or "),
        (None, Some(paths)) => format!("json = {paths:?} would fit, or "),
        (None, None) => String::new(),
    };
    format!(
        "the message has {count} leaf columns, over columns_max = {columns_max}; {hint}raise columns_max if the table's readers stand that many"
    )
}

/// The largest `json_below` that fits.
fn below(pool: &Pool, message: MessageId, options: &Options, choices: &Choices) -> Option<usize> {
    let max = options.columns_max as u64;
    let fits = |depth: usize| {
        let options = Options { json_below: Some(depth), ..options.clone() };
        Count::of(Layout::new(pool, &options, choices), message, max) <= max
    };
    (1..DEPTH_MAX).take_while(|depth| fits(*depth)).last()
}

/// Fields that make it fit as JSON: the largest of each level, as few and as deep as there is room for.
fn paths(pool: &Pool, message: MessageId, options: &Options, choices: &Choices) -> Option<Vec<String>> {
    let mut count = Count { layout: Layout::new(pool, options, choices), leaves: 0, max: u64::MAX, tries: TRIES_MAX };
    let mut paths = Vec::new();
    let fits = choose(&mut count, message, options.columns_max as u64, &mut paths);
    (fits && paths.len() <= PATHS_MAX).then(|| {
        let mut all = options.json.clone();
        all.extend(paths);
        all
    })
}

/// Chooses fields of a message so that it has at most `room` leaves; false if it has more even without its messages.
fn choose(count: &mut Count<'_>, message: MessageId, room: u64, paths: &mut Vec<String>) -> bool {
    let pool = count.layout.pool;
    // What the level itself takes, its messages as JSON; and those messages with what each takes beyond that.
    let mut taken = count.layout.cases(pool.message(message)).count() as u64;
    let mut messages = Vec::new();
    count.layout.way.push(message);
    for field in &pool.message(message).fields {
        let Some(form) = count.layout.down(field) else { continue };
        taken += 1 + u64::from(matches!(field.cardinality, Cardinality::Map { .. }));
        if let Form::Struct(inner) = form {
            count.leaves = 0;
            count.max = room;
            count.message(inner);
            messages.push((count.leaves.saturating_sub(1), field, inner));
        }
        count.layout.up();
    }
    // An empty struct has `_present`.
    taken = taken.max(1);
    let fits = taken <= room;
    messages.sort_by_key(|(more, _, _)| *more);
    for (more, field, inner) in messages {
        if !fits {
            break;
        }
        let left = room - taken;
        if more <= left {
            taken += more;
            continue;
        }
        if count.layout.down(field).is_none() {
            continue;
        }
        let here = paths.len();
        let deeper = count.tries > 0 && {
            count.tries -= 1;
            choose(count, inner, left + 1, paths) && paths.len() <= PATHS_MAX
        };
        if deeper {
            taken = room;
        } else {
            paths.truncate(here);
            paths.push(count.layout.path.join("."));
        }
        count.layout.up();
    }
    count.layout.way.pop();
    fits
}

/// Leaf columns of a message, counted until there are more than `max`.
struct Count<'a> {
    layout: Layout<'a>,
    leaves: u64,
    max: u64,
    /// How many more messages [`choose`] looks into.
    tries: usize,
}

impl Count<'_> {
    fn of(layout: Layout<'_>, message: MessageId, max: u64) -> u64 {
        let mut count = Count { layout, leaves: 0, max, tries: 0 };
        count.message(message);
        count.leaves
    }

    fn message(&mut self, message: MessageId) {
        let pool = self.layout.pool;
        let fields = &pool.message(message).fields;
        let before = self.leaves;
        self.leaves += self.layout.cases(pool.message(message)).count() as u64;
        // Deeper than a record may be, there is nothing that fits.
        if self.layout.way.len() > DEPTH_MAX {
            self.leaves = u64::MAX;
        }
        self.layout.way.push(message);
        for field in fields {
            if self.leaves > self.max {
                break;
            }
            let Some(form) = self.layout.down(field) else { continue };
            self.leaves += u64::from(matches!(field.cardinality, Cardinality::Map { .. }));
            match form {
                Form::Leaf(_) => self.leaves += 1,
                Form::Struct(inner) => self.message(inner),
            }
            self.layout.up();
        }
        self.layout.way.pop();
        if self.leaves == before {
            // `_present`
            self.leaves += 1;
        }
    }
}
