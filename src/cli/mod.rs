//! The command line: results on stdout, everything else on stderr, and exit codes that scripts can rely on.
//!
//! To add a command: a file with `Args` and `run`, a variant of [`Command`], an arm in `dispatch`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{self, Faults, Project};
use crate::telemetry::{Progress, logging};

mod completions;
mod demo;
mod init;
mod ledger;
mod orders;
pub mod output;
pub mod plan;
mod probe;
mod query;
mod refine;
mod run;
mod schema;
pub mod tables;
mod topics;
mod validate;
mod verify;

pub use output::Output;

const EXAMPLES: &str = "\
Examples:
  calve init shop && cd shop    a commented project, ready for a broker on this machine
  calve validate                every fault of the project at once, without network
  calve -o json validate        the same for a script

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a check says no.
Logs go to stderr; CALVE_LOG=calve=debug overrides -v and -q.";

/// Kafka topics in, Iceberg tables out.
///
/// calve reads Protobuf topics, commits them to Iceberg tables exactly once, and refines them with SQL. It keeps no
/// state of its own: what a table has is written in the table.
#[derive(Debug, Parser)]
#[command(name = "calve", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The project: its calve.toml, or the folder of it
    #[arg(short, long, global = true, value_name = "PATH", default_value = "calve.toml", env = "CALVE_CONFIG")]
    pub config: PathBuf,
    /// How results are printed on stdout
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// Log more; twice even more
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How logs are printed on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: logging::Format,
    /// Where commands that take long show how far they are.
    #[arg(skip)]
    pub progress: Progress,
}

impl Global {
    /// The project's calve.toml.
    pub fn config_file(&self) -> PathBuf {
        if self.config.is_dir() { self.config.join("calve.toml") } else { self.config.clone() }
    }

    /// The project, whole and good; else every fault of it.
    pub fn project(&self) -> Result<Project, Faults> {
        let mut project = config::load(&self.config)?;
        crate::schema::settle(&mut project).into_result(project)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: a broker in the process, sample orders, ingest, a refinement, a query
    Demo(demo::Args),
    /// Make a commented project that runs as it is against a local broker
    Init(init::Args),
    /// Check the whole project and print every fault at once
    Validate(validate::Args),
    /// Show how far topics are: state, lag, last commit, quarantine
    Topics(topics::TopicsArgs),
    /// Show how the daemon and all topics are
    Status(topics::StatusArgs),
    /// Feed the registered topics' tables, and refine them: the daemon
    Run(run::Args),
    /// Show what a topic's messages become
    Schema(schema::Args),
    /// Show or decide what a table says it has
    Ledger(ledger::Args),
    /// Prove what a table holds, against its ledger and, if asked, against the log
    Verify(verify::Args),
    /// Run SQL over the project's tables
    Query(query::Args),
    /// Run refinements, or see what they would do
    Refine(refine::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man,
}

impl Command {
    /// Commands that run for long say what they do; the others only when something is wrong.
    fn log_level(&self) -> i8 {
        match self {
            Command::Run(_) => 1,
            _ => 0,
        }
    }
}

/// How a command ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// Some of it failed, and has said so.
    Failed = 1,
    /// The check that was asked for says no.
    No = 3,
}

/// The command line asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Of each of the runtime's threads, as a main thread has: messages nest a hundred deep, and what goes through them
/// recurses.
const STACK_BYTES: usize = 8 << 20;

/// Reads the command line, starts the log, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let level = match cli.global.quiet {
        true => -1,
        false => cli.command.log_level().saturating_add_unsigned(cli.global.verbose.min(9)),
    };
    cli.global.progress = Progress::new(cli.global.log_format, cli.global.quiet);
    logging::start(cli.global.log_format, level, &cli.global.progress);
    // Two providers are in the tree; rustls wants to be told. Only a second installation fails, and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&anyhow::Error::new(error).context("the async runtime cannot be started"));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(exit) => ExitCode::from(exit as u8),
        // Whoever reads our results has seen enough, as in `calve … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            let usage = error.is::<Faults>() || error.is::<config::Fault>() || error.is::<Usage>();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(args, global).await,
        Command::Run(args) => run::run(args, global).await,
        Command::Init(args) => init::run(args, global),
        Command::Validate(args) => validate::run(args, global).await,
        Command::Topics(args) => topics::topics(args, global).await,
        Command::Status(args) => topics::status(args, global).await,
        Command::Ledger(args) => ledger::run(args, global).await,
        Command::Schema(args) => schema::run(args, global).await,
        Command::Verify(args) => verify::run(args, global).await,
        Command::Query(args) => query::run(args, global).await,
        Command::Refine(args) => refine::run(args, global).await,
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man => completions::man(Cli::command()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Says on stderr what failed: faults one a line, anything else as one line and its causes, indented.
pub fn report(error: &anyhow::Error) {
    eprint!("{}", reported(error));
}

fn reported(error: &anyhow::Error) -> String {
    if let Some(faults) = error.downcast_ref::<Faults>() {
        return format!("{faults}\n");
    }
    let mut text = String::new();
    let mut said = String::new();
    for (depth, cause) in error.chain().enumerate() {
        // Some errors of dependencies span lines, or repeat their cause.
        let line = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if depth > 0 && said.contains(&line) {
            continue;
        }
        text += &if depth == 0 { format!("error: {line}\n") } else { format!("  {line}\n") };
        said = line;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line_and_its_causes() {
        let error = anyhow::anyhow!("connection refused\n  (os error 111)")
            .context("cannot reach http://c: connection refused (os error 111)");
        assert_eq!(reported(&error), "error: cannot reach http://c: connection refused (os error 111)\n");
        let error =
            crate::error::Error::halt("topic orders: stopped").caused_by(anyhow::anyhow!("why").context("what"));
        assert_eq!(reported(&error.into()), "error: topic orders: stopped\n  what\n  why\n");
        let faults = Faults(vec![config::Fault::new("calve.toml", 3, "unknown key x")]);
        assert_eq!(reported(&faults.into()), "calve.toml:3: unknown key x\n");
    }
}
