//! What the topics hold.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;

use crate::config::SchemaSource;
use crate::generate::{self, Style};
use crate::schema::model::{MessageId, Pool};
use crate::{producers, root, schema};

const STYLE: Style = Style { foreign: 0.02, ..Style::PLAIN };

/// Messages of one type, every one of them different.
pub struct Messages {
    /// As in a topic's configuration.
    pub message: &'static str,
    source: Source,
}

enum Source {
    Written(fn(u64, &mut StdRng) -> Vec<u8>),
    Random(Arc<Pool>, MessageId),
}

impl Messages {
    /// By the name that the benches' tables have them under: `event` and `flat` as services write them, `-random` of the
    /// corpus' generator, which predict and compress worst.
    pub fn of(name: &str) -> Result<Messages> {
        let (message, written): (_, Option<fn(u64, &mut StdRng) -> Vec<u8>>) = match name {
            "event" => ("corpus.event.Event", Some(producers::event)),
            "flat" => ("corpus.flat.Flat", Some(producers::flat)),
            "event-random" => ("corpus.event.Event", None),
            "flat-random" => ("corpus.flat.Flat", None),
            _ => bail!("{name} names no messages"),
        };
        let source = match written {
            Some(written) => Source::Written(written),
            None => {
                let pool = schema::load(&SchemaSource::Protos(root().join("tests/corpus/proto")))?;
                let id = pool.find(message).context("the corpus has the message")?;
                Source::Random(pool, id)
            }
        };
        Ok(Messages { message, source })
    }

    pub fn nth(&self, n: u64, rng: &mut StdRng) -> Vec<u8> {
        match &self.source {
            Source::Written(written) => written(n, rng),
            Source::Random(pool, id) => generate::message(pool, *id, STYLE, rng),
        }
    }
}
