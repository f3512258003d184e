//! Editions: read from descriptor sets, and compiled by whatever compiler is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buffa::Message;
use buffa_descriptor::generated::descriptor::{FeatureSet, FileDescriptorSet, feature_set};

use super::super::model::{Cardinality, Kind, Pool, Presence};
use super::super::protoc::compile_with;
use super::super::{load, resolve};
use super::{OPTIONS, check, create, render};
use crate::config::SchemaSource;

const SET: &[u8] = include_bytes!("../../../tests/corpus/editions/features.binpb");
const SOURCE: &str = include_str!("../../../tests/corpus/editions/features.proto");

#[test]
fn features_are_resolved() {
    let pool = Arc::new(resolve::pool(SET).unwrap());
    let message = pool.message(pool.find("corpus.editions.Features").unwrap());
    let cardinality = |name: &str| message.fields.iter().find(|field| field.name == name).unwrap().cardinality;
    assert_eq!(cardinality("explicit"), Cardinality::Singular(Presence::Explicit));
    assert_eq!(cardinality("implicit"), Cardinality::Singular(Presence::Implicit));
    assert_eq!(cardinality("required"), Cardinality::Singular(Presence::Required));
    assert_eq!(cardinality("by_name"), Cardinality::Map { key: Kind::String });
    let packed: Vec<bool> = message.fields.iter().map(|field| field.packed).collect();
    assert_eq!(packed.iter().filter(|packed| **packed).count(), 1);
    assert!(message.field(5).unwrap().packed);
    let closed: Vec<bool> = pool.enums.iter().map(|enumeration| enumeration.closed).collect();
    assert_eq!(closed, [false, true]);
    check(
        &render(&create(&pool, "corpus.editions.Features", &OPTIONS).unwrap()),
        "
        explicit int =1 #1
        implicit int =2 #2
        required int =3 #3
        expanded list =4 #4
          element int =- #15
        packed list =5 #5
          element int =- #16
        unchecked string =6 #6
        open string =7 #7
        closed string =8 #8
        prefixed struct =9 #9
          id long =9.1 #17
        by_name map =10 #10
          key string =10.1 #18
          value struct =10.2 #19
            id long =10.2.1 #20
        a string =11 #11
        b string =12 #12
        ",
    );
    let delimited = create(&pool, "corpus.editions.Delimited", &OPTIONS).unwrap();
    check(
        &render(&delimited),
        "
        one struct =1 #1
          id long =1.1 #5
        many list =2 #2
          element struct =- #6
            id long =2.1 #7
        ",
    );
    let expected = r#"{"1":[1,"group"],"1.1":[5,"int64"],"2":[2,"group"],"2.1":[7,"int64"]}"#;
    assert_eq!(delimited.column_map.to_json(), expected);
}

/// The file's features changed before it is read.
fn with_file_features(change: impl FnOnce(&mut FeatureSet)) -> Arc<Pool> {
    let mut set = FileDescriptorSet::decode_from_slice(SET).unwrap();
    let file = set.file.iter_mut().find(|file| file.package.as_deref() == Some("corpus.editions")).unwrap();
    change(file.options.get_or_insert_default().features.get_or_insert_default());
    Arc::new(resolve::pool(&set.encode_to_vec()).unwrap())
}

#[test]
fn features_of_a_file() {
    let pool = with_file_features(|features| {
        features.message_encoding = Some(feature_set::MessageEncoding::DELIMITED);
        features.field_presence = Some(feature_set::FieldPresence::IMPLICIT);
        features.enum_type = Some(feature_set::EnumType::OPEN);
    });
    let message = pool.message(pool.find("corpus.editions.Features").unwrap());
    let field = |name: &str| message.fields.iter().find(|field| field.name == name).unwrap();
    assert!(matches!(field("prefixed").kind, Kind::Group(_)));
    // A map's value is length-prefixed all the same.
    assert!(matches!(field("by_name").kind, Kind::Message(_)));
    assert_eq!(field("explicit").cardinality, Cardinality::Singular(Presence::Implicit));
    // A oneof's member and a message have presence whatever the file says; a field's and an enum's own word counts more.
    for (name, presence) in
        [("a", Presence::Explicit), ("prefixed", Presence::Explicit), ("required", Presence::Required)]
    {
        assert_eq!(field(name).cardinality, Cardinality::Singular(presence), "{name}");
    }
    let closed: Vec<bool> = pool.enums.iter().map(|enumeration| enumeration.closed).collect();
    assert_eq!(closed, [false, true]);
    let mapping = create(&pool, "corpus.editions.Features", &OPTIONS).unwrap();
    assert!(mapping.column_map.to_json().contains(r#""9":[9,"group"],"9.1":[17,"int64"],"10":10"#));
}

#[test]
fn a_descriptor_set_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.binpb");
    fs::write(&file, SET).unwrap();
    let pool = load(&SchemaSource::DescriptorSet(file.clone())).unwrap();
    let doc = &pool.message(pool.find("corpus.editions.Features").unwrap()).field(1).unwrap().doc;
    assert_eq!(doc.as_deref(), Some("Told apart from its default: the edition's own presence."));
    fs::write(&file, &SET[..SET.len() - 7]).unwrap();
    let text = format!("{:#}", load(&SchemaSource::DescriptorSet(file.clone())).unwrap_err());
    assert!(text.starts_with(&format!("{}: not a usable FileDescriptorSet", file.display())), "{text}");
}

/// A project's folder with one file of editions and an import of calve's options.
fn folder() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/features.proto"), SOURCE).unwrap();
    (folder, vec![PathBuf::from("sub/features.proto")])
}

/// An executable `name` that runs the shell script.
fn tool(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn without_a_compiler() {
    let (folder, files) = folder();
    let error = compile_with(folder.path(), &files, &files[0], &[]).unwrap_err().to_string();
    let file = folder.path().join("sub/features.proto");
    let expected = format!(
        "{}: uses editions, which calve cannot compile by itself, and neither protoc nor buf is on the PATH; make a descriptor set",
        file.display()
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn through_protoc_or_buf() {
    let (folder, files) = folder();
    let tools = tempfile::tempdir().unwrap();
    let search = [tools.path().to_path_buf()];
    fs::write(tools.path().join("set"), SET).unwrap();
    let set = tools.path().join("set").display().to_string();
    // A stand-in for each, which checks what it is asked for and answers with a set made before.
    tool(
        tools.path(),
        "buf",
        &format!(
            "[ \"$*\" = \"build . --as-file-descriptor-set -o $5\" ] && [ -f calve/v1/options.proto ] && cp {set} \"$5\""
        ),
    );
    assert_eq!(compile_with(folder.path(), &files, &files[0], &search).unwrap(), SET);
    tool(
        tools.path(),
        "protoc",
        &format!(
            "[ \"$*\" = \"-I. --include_imports --include_source_info $4 sub/features.proto\" ] && [ -f $5 ] && cp {set} \"${{4#--descriptor_set_out=}}\""
        ),
    );
    assert_eq!(compile_with(folder.path(), &files, &files[0], &search).unwrap(), SET);
    tool(tools.path(), "protoc", "echo; echo 'sub/features.proto:3:1: no such thing.' >&2; exit 1");
    let error = compile_with(folder.path(), &files, &files[0], &search).unwrap_err().to_string();
    let place = folder.path().join("sub/features.proto:3:1: no such thing.");
    assert_eq!(error, format!("{} (protoc)", place.display()));
}
