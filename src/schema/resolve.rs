//! A FileDescriptorSet's bytes become the [`Pool`]: features, presence, packing and openness resolved once, here.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use buffa::DecodeOptions;
use buffa_descriptor::features::{EnumType, FieldPresence};
use buffa_descriptor::generated::descriptor::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
};
use buffa_descriptor::{
    DescriptorPool, EnumDescriptor, EnumIndex, FieldDescriptor, FieldKind, MessageDescriptor, MessageIndex, ScalarType,
    SingularKind,
};

use super::comments::Comments;
use super::high::Lowered;
use super::model::{
    Cardinality, Enum, EnumId, EnumValue, Field, Kind, Message, MessageId, Oneof, Place, Pool, Presence,
};
use super::{high, options, places};

/// Decoded descriptors are several times wider than their bytes; a schema of a thousand files fits well below this.
const DECODED_BYTES_MAX: usize = 1 << 30;

/// Resolves a serialized FileDescriptorSet, which must hold every file that it imports.
///
/// The bytes are untrusted: whatever they are, the answer is a pool or an error.
pub fn pool(bytes: &[u8]) -> Result<Pool> {
    let mut set: FileDescriptorSet = DecodeOptions::new()
        .with_element_memory_limit(DECODED_BYTES_MAX)
        .decode_from_slice(bytes)
        .map_err(|e| anyhow::anyhow!("the bytes are not a FileDescriptorSet: {e}"))?;
    if set.file.is_empty() {
        bail!("the descriptor set holds no file");
    }
    check_names(&set)?;
    check_imports(&set)?;
    let comments = Comments::of(&set.file);
    let places = places::of(&set.file);
    let lowered = high::lower(&mut set);
    let descriptors = DescriptorPool::new(set).map_err(|e| anyhow::anyhow!("{e}"))?;
    Resolver::new(&descriptors, comments, places, lowered).resolve()
}

/// Names must be Protobuf identifiers: a name that begins with a dot makes buffa-descriptor's lookups disagree with its
/// registrations, which it answers with a panic.
fn check_names(set: &FileDescriptorSet) -> Result<()> {
    for file in &set.file {
        let place = file.name.as_deref().unwrap_or("a file without a name");
        let package = file.package.as_deref().unwrap_or_default();
        if !package.is_empty() {
            for part in package.split('.') {
                check_name(place, "package", Some(part))?;
            }
        }
        file.message_type.iter().try_for_each(|message| check_message_names(place, message))?;
        file.enum_type.iter().try_for_each(|enumeration| check_enum_names(place, enumeration))?;
        file.extension.iter().try_for_each(|field| check_field_name(place, field))?;
    }
    Ok(())
}

/// Nesting is bounded by the decoder's recursion limit.
fn check_message_names(place: &str, message: &DescriptorProto) -> Result<()> {
    check_name(place, "message", message.name.as_deref())?;
    message.field.iter().chain(&message.extension).try_for_each(|field| check_field_name(place, field))?;
    message.oneof_decl.iter().try_for_each(|oneof| check_name(place, "oneof", oneof.name.as_deref()))?;
    message.enum_type.iter().try_for_each(|enumeration| check_enum_names(place, enumeration))?;
    message.nested_type.iter().try_for_each(|nested| check_message_names(place, nested))
}

fn check_field_name(place: &str, field: &FieldDescriptorProto) -> Result<()> {
    check_name(place, "field", field.name.as_deref())
}

fn check_enum_names(place: &str, enumeration: &EnumDescriptorProto) -> Result<()> {
    check_name(place, "enum", enumeration.name.as_deref())?;
    if enumeration.value.is_empty() {
        bail!("{place}: enum {} has no value", enumeration.name.as_deref().unwrap_or_default());
    }
    enumeration.value.iter().try_for_each(|value| check_name(place, "enum value", value.name.as_deref()))
}

fn check_name(place: &str, what: &str, name: Option<&str>) -> Result<()> {
    let name = name.unwrap_or_default();
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        bail!("{place}: {name:?} is not a name for a {what}");
    }
    Ok(())
}

fn check_imports(set: &FileDescriptorSet) -> Result<()> {
    let files: HashSet<&str> = set.file.iter().filter_map(|file| file.name.as_deref()).collect();
    for file in &set.file {
        for import in &file.dependency {
            if !files.contains(import.as_str()) {
                bail!(
                    "{}: its import {import:?} is not in the descriptor set; make the set with its imports (protoc: --include_imports)",
                    file.name.as_deref().unwrap_or("a file without a name")
                );
            }
        }
    }
    Ok(())
}

struct Resolver<'a> {
    descriptors: &'a DescriptorPool,
    comments: Comments,
    /// By full name.
    places: HashMap<String, Place>,
    lowered: Lowered,
    messages: HashMap<&'a str, MessageId>,
    enums: HashMap<&'a str, EnumId>,
}

impl<'a> Resolver<'a> {
    fn new(
        descriptors: &'a DescriptorPool,
        comments: Comments,
        places: HashMap<String, Place>,
        lowered: Lowered,
    ) -> Self {
        let messages =
            descriptors.messages().iter().zip(0..).map(|(message, id)| (message.full_name(), MessageId(id))).collect();
        let enums = descriptors.enums().iter().zip(0..).map(|(e, id)| (e.full_name(), EnumId(id))).collect();
        Resolver { descriptors, comments, places, lowered, messages, enums }
    }

    fn resolve(&self) -> Result<Pool> {
        let mut pool = Pool::default();
        for message in self.descriptors.messages() {
            let resolved = self.message(message).with_context(|| format!("message {}", message.full_name()))?;
            pool.messages.push(resolved);
        }
        pool.enums = self.descriptors.enums().iter().map(enumeration).collect();
        pool.message_by_name = self.messages.iter().map(|(name, id)| (name.to_string(), *id)).collect();
        Ok(pool)
    }

    fn message(&self, message: &MessageDescriptor) -> Result<Message> {
        let full_name = message.full_name();
        let mut oneofs = Vec::new();
        // Index into the descriptor's oneofs → index into ours, which leave out proto3 optional's synthetic ones.
        let mut declared: Vec<Option<usize>> = Vec::new();
        for oneof in message.oneofs() {
            let name = oneof.name();
            if oneof.is_synthetic() {
                declared.push(None);
                continue;
            }
            let case_column = options::case_column(oneof.options()).with_context(|| format!("oneof {name}"))?;
            let doc = self.comments.get(&format!("{full_name}.{name}"));
            declared.push(Some(oneofs.len()));
            oneofs.push(Oneof { name: name.to_string(), doc, case_column });
        }
        let mut fields = Vec::with_capacity(message.fields().len());
        for field in message.fields() {
            let doc = self.comments.get(&format!("{full_name}.{}", field.name()));
            let oneof = field.oneof_index().and_then(|index| declared.get(usize::from(index)).copied().flatten());
            fields.push(self.field(field, field.name(), field.json_name(), oneof, doc)?);
        }
        let message_set = message.options().is_some_and(|options| options.message_set_wire_format.unwrap_or_default());
        if let Some(index) = self.descriptors.message_index(full_name) {
            for extension in self.descriptors.extensions_of(index) {
                let doc = self.comments.get(extension.full_name());
                let field = self.field(extension.field(), extension.full_name(), extension.json_key(), None, doc)?;
                if message_set
                    && !matches!((field.cardinality, field.kind), (Cardinality::Singular(_), Kind::Message(_)))
                {
                    bail!("extension {} of a MessageSet is not an optional message", extension.full_name());
                }
                let number = self.lowered.number(extension.full_name(), field.number);
                fields.push(Field { extension: true, number, ..field });
            }
        }
        if message_set && fields.iter().any(|field| !field.extension) {
            bail!("a MessageSet has no fields of its own");
        }
        let place = self.places.get(full_name).cloned().unwrap_or_default();
        let doc = self.comments.get(full_name);
        let table = options::table(message.options())?;
        Ok(Message { full_name: full_name.to_string(), fields, oneofs, message_set, doc, place, table })
    }

    fn field(
        &self,
        field: &FieldDescriptor,
        name: &str,
        json_name: &str,
        oneof: Option<usize>,
        doc: Option<String>,
    ) -> Result<Field> {
        let presence = match field.presence() {
            FieldPresence::Implicit => Presence::Implicit,
            FieldPresence::Explicit => Presence::Explicit,
            FieldPresence::LegacyRequired => Presence::Required,
            _ => bail!("field {name} has a presence that this version does not know"),
        };
        let (cardinality, kind) = match field.kind() {
            FieldKind::Singular(kind) => (Cardinality::Singular(presence), self.kind(kind, field.is_delimited())?),
            FieldKind::List(kind) => (Cardinality::Repeated, self.kind(kind, field.is_delimited())?),
            // A map's entry and its value are length-prefixed whatever the file's message_encoding says.
            FieldKind::Map { key, value } => (Cardinality::Map { key: scalar(key) }, self.kind(value, false)?),
        };
        Ok(Field {
            name: name.to_string(),
            json_name: json_name.to_string(),
            number: field.number(),
            kind,
            cardinality,
            oneof,
            extension: false,
            packed: field.is_packed(),
            doc,
            options: options::column(field.options()).with_context(|| format!("field {name}"))?,
        })
    }

    fn kind(&self, kind: SingularKind, delimited: bool) -> Result<Kind> {
        Ok(match kind {
            SingularKind::Scalar(kind) => scalar(kind),
            SingularKind::Enum(index) => Kind::Enum(self.enum_id(index)?),
            SingularKind::Message(index) if delimited => Kind::Group(self.message_id(index)?),
            SingularKind::Message(index) => Kind::Message(self.message_id(index)?),
        })
    }

    fn message_id(&self, index: MessageIndex) -> Result<MessageId> {
        let name = self.descriptors.message(index).full_name();
        self.messages.get(name).copied().with_context(|| format!("message {name} is not in the descriptor set"))
    }

    fn enum_id(&self, index: EnumIndex) -> Result<EnumId> {
        let name = self.descriptors.enumeration(index).full_name();
        self.enums.get(name).copied().with_context(|| format!("enum {name} is not in the descriptor set"))
    }
}

fn enumeration(descriptor: &EnumDescriptor) -> Enum {
    Enum {
        full_name: descriptor.full_name().to_string(),
        closed: descriptor.enum_type() == EnumType::Closed,
        values: descriptor
            .values()
            .iter()
            .map(|value| EnumValue { name: value.name().to_string(), number: value.number() })
            .collect(),
    }
}

fn scalar(kind: ScalarType) -> Kind {
    match kind {
        ScalarType::Double => Kind::Double,
        ScalarType::Float => Kind::Float,
        ScalarType::Int64 => Kind::Int64,
        ScalarType::Uint64 => Kind::Uint64,
        ScalarType::Int32 => Kind::Int32,
        ScalarType::Fixed64 => Kind::Fixed64,
        ScalarType::Fixed32 => Kind::Fixed32,
        ScalarType::Bool => Kind::Bool,
        ScalarType::String => Kind::String,
        ScalarType::Bytes => Kind::Bytes,
        ScalarType::Uint32 => Kind::Uint32,
        ScalarType::Sfixed32 => Kind::Sfixed32,
        ScalarType::Sfixed64 => Kind::Sfixed64,
        ScalarType::Sint32 => Kind::Sint32,
        ScalarType::Sint64 => Kind::Sint64,
    }
}
