//! `calve completions` and `calve man`: made from the command tree itself.

use anyhow::Context as _;
use clap_complete::Shell;

use super::{Exit, output};

/// Print a completion script
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  calve completions bash > ~/.local/share/bash-completion/completions/calve")]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: Args, mut command: clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "calve", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// The manual: one page for calve, then one for each command.
pub fn man(command: clap::Command) -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    let mut command = command.disable_help_subcommand(true);
    command.build();
    render(&command, &mut page).context("the manual page cannot be made")?;
    output::print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    command.get_subcommands().try_for_each(|command| render(command, page))
}
