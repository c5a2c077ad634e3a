//! `completions`: the completion script of a shell.

use clap::Command;
use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::output;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault completions bash > /etc/bash_completion.d/cdrvault\n  cdrvault completions zsh > /usr/local/share/zsh/site-functions/_cdrvault\n  cdrvault completions fish > ~/.config/fish/completions/cdrvault.fish"
)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "as every verb")]
pub(crate) fn run(args: &Args, mut command: Command) -> Result<Exit, Failure> {
    output::text(&script(args.shell, &mut command));
    Ok(Exit::Done)
}

pub(crate) fn script(shell: Shell, command: &mut Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "cdrvault", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
