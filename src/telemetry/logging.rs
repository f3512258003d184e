//! The log: stderr, as text or as one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::Progress;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// How much is logged: `-1` errors only (`-q`), `0` warnings, `1` what calve does, `2` why, `3` everything.
///
/// `CALVE_LOG`, in the syntax of tracing's `EnvFilter`, overrides it. What `progress` draws is stepped around.
pub fn start(format: Format, level: i8, progress: &Progress) {
    let directives = match level {
        ..=-1 => "error",
        // A command that asks Kafka once says itself what failed; librdkafka would repeat it many times a second.
        // sqlx warns of parameters of an address that it does not know, with their values, which may be secrets.
        0 => "warn,librdkafka=off,sqlx_postgres::options=error,calve::telemetry::progress=info",
        1 => "warn,sqlx_postgres::options=error,calve=info",
        2 => "info,sqlx_postgres::options=error,calve=debug",
        _ => "debug,calve=trace",
    };
    let filter = std::env::var("CALVE_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(directives)))
        .with_writer(progress.clone())
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(level >= 2);
    // A second start, as in tests, keeps the first log.
    let _ = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}
