//! Extensions of MessageSets with numbers that fit no tag, which only descriptor sets hold: protox refuses them.

use std::fs;

use buffa::{DecodeOptions, Message};
use buffa_descriptor::generated::descriptor::FileDescriptorSet;

use super::super::{protos, resolve};

const SOURCE: &str = r#"
syntax = "proto2";
package h;
message Set { option message_set_wire_format = true; extensions 4 to max; }
message Plain { extensions 4 to 1000; }
message A { extend Set { optional A a = 10; } optional int32 n = 1; }
extend Set { optional A b = 11; optional A c = 536870911; }
extend Plain { optional A d = 12; }
"#;

/// The set with these extensions' numbers changed.
fn numbered(numbers: &[(&str, i32)]) -> anyhow::Result<Vec<(String, u32)>> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("h.proto"), SOURCE).unwrap();
    let bytes = protos::compile(folder.path()).unwrap();
    let mut set: FileDescriptorSet = DecodeOptions::new().decode_from_slice(&bytes).unwrap();
    for file in &mut set.file {
        let nested = file.message_type.iter_mut().flat_map(|message| &mut message.extension);
        for extension in file.extension.iter_mut().chain(nested) {
            let name = extension.name.as_deref().unwrap();
            extension.number = numbers.iter().find(|(of, _)| *of == name).map_or(extension.number, |(_, to)| Some(*to));
        }
    }
    let pool = resolve::pool(&set.encode_to_vec())?;
    let extensions = pool.messages.iter().flat_map(|message| &message.fields).filter(|field| field.extension);
    let mut extensions: Vec<_> = extensions.map(|field| (field.name.clone(), field.number)).collect();
    extensions.sort();
    Ok(extensions)
}

#[test]
fn numbers_up_to_31_bits() {
    let named = |a, b, c| [("h.A.a", a), ("h.b", b), ("h.c", c), ("h.d", 12)].map(|(name, n)| (name.to_string(), n));
    assert_eq!(numbered(&[]).unwrap(), named(10, 11, 536_870_911));
    let numbers = [("a", 536_870_912), ("b", 2_147_483_646)];
    assert_eq!(numbered(&numbers).unwrap(), named(536_870_912, 2_147_483_646, 536_870_911));
}

#[test]
fn numbers_that_are_refused() {
    let fault = |numbers: &[(&str, i32)]| numbered(numbers).unwrap_err().to_string();
    assert_eq!(fault(&[("d", 1_000_000_000)]), "field h.d has invalid field number 1000000000");
    assert_eq!(fault(&[("b", i32::MAX)]), "field h.b has invalid field number 2147483647");
    let twice = fault(&[("a", 1_000_000_000), ("b", 1_000_000_000)]);
    assert!(twice.ends_with("has invalid field number 1000000000"), "{twice}");
}
