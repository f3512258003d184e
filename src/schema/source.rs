//! Where a topic's schema comes from: a folder of `.proto` files or a descriptor set. Both end up as the bytes of a
//! FileDescriptorSet, so that one reader ([`super::resolve`]) decides what every schema means.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::model::Pool;
use super::{protos, resolve};
use crate::config::SchemaSource;

/// Reads and resolves all types of a schema source. Errors carry the file, and the line where there is one.
pub fn load(source: &SchemaSource) -> Result<Arc<Pool>> {
    let pool = match source {
        SchemaSource::Protos(folder) => {
            let set = protos::compile(folder)?;
            resolve::pool(&set)
                .with_context(|| format!("{}: the compiled schema does not resolve", folder.display()))?
        }
        SchemaSource::DescriptorSet(file) => descriptor_set(file)?,
        SchemaSource::Registry => {
            bail!(
                "schema = \"registry\" needs the schema registry client, which this version does not have; use a folder of .proto files or a descriptor set"
            )
        }
    };
    Ok(Arc::new(pool))
}

/// Whether some file of the source may import `path`: its text or its bytes hold it. A source that cannot be read holds
/// nothing.
pub fn imports(source: &SchemaSource, path: &str) -> bool {
    let holds = |file: &Path| {
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(path.len()).any(|window| window == path.as_bytes())
    };
    match source {
        SchemaSource::Protos(folder) => {
            protos::find(folder).unwrap_or_default().iter().any(|file| holds(&folder.join(file)))
        }
        SchemaSource::DescriptorSet(file) => holds(file),
        SchemaSource::Registry => true,
    }
}

fn descriptor_set(file: &Path) -> Result<Pool> {
    let bytes = fs::read(file).with_context(|| format!("{}: cannot read the descriptor set", file.display()))?;
    resolve::pool(&bytes).with_context(|| {
        format!("{}: not a usable FileDescriptorSet; make one with `buf build -o schema.binpb` or `protoc --include_imports --include_source_info --descriptor_set_out=schema.binpb`", file.display())
    })
}
