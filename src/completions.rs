//! `completions`: the completion script of a shell.

use clap_complete::Shell;

use crate::cli::{self, Exit, Failure, Globals};
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
pub(crate) fn run(args: &Args, _: &Globals) -> Result<Exit, Failure> {
    output::text(&script(args.shell));
    Ok(Exit::Done)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cdrvault", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_learns_every_verb() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for verb in cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell} does not know `{}`", verb.get_name());
            }
        }
    }
}
