//! `calve run`: the daemon.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Exit, Global};
use crate::{config, daemon};

/// Feed all registered topics' tables, and refine them
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  calve run                             until SIGTERM or Ctrl-C; what was read is committed first
  calve run --until-caught-up           everything up to the ends at start, then exit (cron, backfill, tests)
  calve run --topic orders --http 127.0.0.1:0

Exit codes: 0 done, 1 a topic halted or a refinement failed (the others went on), 2 wrong configuration.")]
pub struct Args {
    /// Stop once everything up to the topics' ends at start is committed and refined downstream
    #[arg(long)]
    until_caught_up: bool,
    /// Only this topic; may be given several times
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Serve metrics, health and status here instead of daemon.http; port 0 = any free one
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
}

#[derive(Serialize)]
struct Ended {
    ok: bool,
    /// Topic or refinement, and why.
    halted: std::collections::BTreeMap<String, String>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    for topic in &args.topics {
        if !project.topics.contains_key(topic) {
            let known: Vec<&str> = project.topics.keys().map(String::as_str).collect();
            let message = format!("topic {topic} is not registered in calve.toml; registered: {}", known.join(", "));
            return Err(super::Usage(message).into());
        }
    }
    // A run that ends by itself serves nothing unless asked: it may run beside the daemon.
    let http = match (args.http, args.until_caught_up) {
        (Some(address), _) => Some(address),
        (None, true) => None,
        (None, false) => Some(project.daemon.http.clone()),
    };
    if let Some(address) = &http {
        config::check_http(address, project.daemon.http_token.is_some()).map_err(super::Usage)?;
    }
    let options = daemon::Options {
        until_caught_up: args.until_caught_up,
        topics: args.topics,
        http,
        progress: global.progress.clone(),
    };
    let stop = CancellationToken::new();
    let signals = tokio::spawn(watch_signals(stop.clone()));
    let report = daemon::run(&project, &options, stop.clone()).await?;
    signals.abort();
    let ended = Ended { ok: report.halted.is_empty(), halted: report.halted };
    if args.until_caught_up {
        global.output.print(&ended, || {
            let mut text = String::new();
            for (name, why) in &ended.halted {
                text += &format!("{name}: halted: {why}\n");
            }
            text + match (ended.ok, stop.is_cancelled()) {
                (true, false) => "caught up\n",
                (true, true) => "stopped before it had caught up; what was read is committed\n",
                (false, _) => "",
            }
        })?;
    }
    Ok(if ended.ok { Exit::Done } else { Exit::Failed })
}

/// The first SIGTERM or SIGINT asks for an ordered end, the second ends at once.
async fn watch_signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::warn!(
            "signals cannot be watched: a SIGTERM ends calve at once, and it reads again what it had not committed"
        );
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if std::mem::replace(&mut asked, true) {
            tracing::warn!("asked a second time: ending at once; what was not committed is read again");
            std::process::exit(1);
        }
        stop.cancel();
    }
}
