//! Extensions of MessageSets numbered above every field.
//!
//! Such a number stands in an item's own field and never in a tag, so that Protobuf allows all of 31 bits; the descriptor
//! reader refuses what fits no tag. So these extensions go through it under numbers that are free, and get their own
//! back in the model.

use std::collections::{HashMap, HashSet};

use buffa_descriptor::generated::descriptor::descriptor_proto::ExtensionRange;
use buffa_descriptor::generated::descriptor::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// The highest number that fits a tag.
const FIELD_NUMBER_MAX: i32 = (1 << 29) - 1;

/// The extensions' own numbers, by full name.
#[derive(Debug, Default)]
pub struct Lowered(HashMap<String, u32>);

impl Lowered {
    /// An extension's number, which the descriptor reader knows as `number`.
    pub fn number(&self, full_name: &str, number: u32) -> u32 {
        self.0.get(full_name).copied().unwrap_or(number)
    }
}

#[derive(Default)]
struct Set {
    /// Of its extensions' numbers, the ends exclusive.
    ranges: Vec<(i32, i32)>,
    taken: HashSet<i32>,
    /// What extensions are numbered now.
    given: Vec<i32>,
}

/// Gives these extensions other numbers. One whose number is taken, or that its MessageSet does not allow, keeps it: the
/// descriptor reader says so.
pub fn lower(set: &mut FileDescriptorSet) -> Lowered {
    let mut sets: HashMap<String, Set> = HashMap::new();
    for file in &mut set.file {
        let scope = scope("", file.package.as_deref());
        file.message_type
            .iter_mut()
            .for_each(|message| each_message(message, &scope, &mut |message, name| find(message, name, &mut sets)));
    }
    if sets.is_empty() {
        return Lowered::default();
    }
    each_extension(set, &mut |extension, _| {
        if let (Some(set), Some(number)) =
            (sets.get_mut(extension.extendee.as_deref().unwrap_or_default()), extension.number)
            && number <= FIELD_NUMBER_MAX
        {
            set.taken.insert(number);
        }
    });
    let mut lowered = Lowered::default();
    each_extension(set, &mut |extension, scope| {
        let set = sets.get_mut(extension.extendee.as_deref().unwrap_or_default());
        let (Some(set), Some(number)) = (set, extension.number) else { return };
        let allowed = set.ranges.iter().any(|(start, end)| (*start..*end).contains(&number));
        if number <= FIELD_NUMBER_MAX || !allowed || !set.taken.insert(number) {
            return;
        }
        let Some(free) = (1..=FIELD_NUMBER_MAX).rev().find(|number| !set.taken.contains(number)) else { return };
        set.taken.insert(free);
        set.given.push(free);
        extension.number = Some(free);
        let name = self::scope(scope, extension.name.as_deref());
        lowered.0.insert(name.trim_start_matches('.').to_string(), number as u32);
    });
    for file in &mut set.file {
        let scope = scope("", file.package.as_deref());
        file.message_type.iter_mut().for_each(|message| {
            each_message(message, &scope, &mut |message, name| {
                for number in sets.get(name).map(|set| set.given.as_slice()).unwrap_or_default() {
                    let range = ExtensionRange { start: Some(*number), end: Some(number + 1), ..Default::default() };
                    message.extension_range.push(range);
                }
            });
        });
    }
    lowered
}

fn find(message: &DescriptorProto, name: &str, sets: &mut HashMap<String, Set>) {
    if message.options.message_set_wire_format != Some(true) {
        return;
    }
    let set = sets.entry(name.to_string()).or_default();
    set.ranges.extend(message.extension_range.iter().filter_map(|range| Some((range.start?, range.end?))));
}

/// A name within a scope, as extensions name what they extend: from a dot on.
fn scope(outer: &str, name: Option<&str>) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("{outer}.{name}"),
        _ => outer.to_string(),
    }
}

/// Nesting is bounded by the decoder's recursion limit.
fn each_message(message: &mut DescriptorProto, outer: &str, each: &mut impl FnMut(&mut DescriptorProto, &str)) {
    let name = scope(outer, message.name.as_deref());
    each(message, &name);
    message.nested_type.iter_mut().for_each(|nested| each_message(nested, &name, each));
}

/// Every extension, with the scope that it is declared in.
fn each_extension(set: &mut FileDescriptorSet, each: &mut impl FnMut(&mut FieldDescriptorProto, &str)) {
    for file in &mut set.file {
        let scope = scope("", file.package.as_deref());
        file.extension.iter_mut().for_each(|extension| each(extension, &scope));
        for message in &mut file.message_type {
            each_message(message, &scope, &mut |message, name| {
                message.extension.iter_mut().for_each(|extension| each(extension, name));
            });
        }
    }
}
