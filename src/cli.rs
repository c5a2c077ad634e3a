//! The command line: its verbs, and what each ends with.

use std::process::ExitCode;

use cdrvault_format::error::Kind;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{
    completions, demo, forget, history, init, man, output, prune, replay, report, restore, run, schema, session,
    snapshots, stages, status, validate, verify,
};

/// Keeps the call records of a VoIP billing system safe and small.
///
/// cdrvault reads the days that changed from the billing database, encodes them as Parquet, and delivers them to
/// every place that the pipeline file names.
#[derive(Debug, Parser)]
#[command(name = "cdrvault", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit status: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 partly done; 4 verify found damage; 11 another run is
in progress; 78 the pipeline file is wrong; 130 interrupted.

Try it without a database: cdrvault demo";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a commented pipeline file to start from
    Init(init::Args),
    /// Check a pipeline file, and with --connect everything that it points at
    Validate(validate::Args),
    /// Show the kinds of databases, sources, transforms and sinks, and their options
    Stages(stages::Args),
    /// Print the JSON schema of pipeline files, for editors
    Schema(schema::Args),
    /// Save what changed: the main job
    Run(run::Args),
    /// Export a range of days again, changed or not
    Replay(replay::Args),
    /// Show what is saved where, and how old it is
    Status(status::Args),
    /// Show the last runs
    History(history::Args),
    /// Show the saved generations
    Snapshots(snapshots::Args),
    /// Write one HTML page: what is saved where, day by day, and what needs attention
    Report(report::Args),
    /// Remove the superseded versions that `keep` no longer keeps
    Prune(prune::Args),
    /// Read everything again, and compare it with what it should be
    Verify(verify::Args),
    /// Restore saved days, files and dumps
    Restore(restore::Args),
    /// Unregister a removed flow or a retired host
    Forget(forget::Args),
    /// Make a complete example and run it: SQLite, a local vault, nothing to install
    Demo(demo::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
    /// Print the manual page, or write those of every verb
    Man(man::Args),
}

/// Help, versions, and arguments that cannot be understood.
fn refused(message: &clap::Error) -> ExitCode {
    if message.use_stderr() && wants_json() {
        output::speak_json();
        output::note(&message.render().to_string());
    } else {
        output::parsed(message);
    }
    let status = u8::try_from(message.exit_code()).unwrap_or(2);
    ExitCode::from(if status == 0 && tell_loss(None) { 1 } else { status })
}

/// Whether lines of JSON were asked for, in arguments that cannot be understood as a whole.
fn wants_json() -> bool {
    let words: Vec<String> = std::env::args().collect();
    words.iter().any(|word| word == "--log-format=json")
        || words.windows(2).any(|pair| matches!(pair, [flag, value] if flag == "--log-format" && value == "json"))
        || std::env::var("CDRVAULT_LOG_FORMAT").is_ok_and(|value| value == "json")
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // Nothing that we make can be read by others, unless an option says so: vaults, copies of them, call records.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Cli { globals, verb } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return refused(&message),
    };
    output::start_logging(&globals);
    let done = match verb {
        Verb::Init(args) => init::run(&args, &globals),
        Verb::Validate(args) => validate::run(&args, &globals),
        Verb::Stages(args) => stages::run(&args, &globals),
        Verb::Schema(args) => schema::run(&args, &globals),
        Verb::Run(args) => run::run(&args, &globals),
        Verb::Replay(args) => replay::run(&args, &globals),
        Verb::Status(args) => status::run(&args, &globals),
        Verb::History(args) => history::run(&args, &globals),
        Verb::Snapshots(args) => snapshots::run(&args, &globals),
        Verb::Report(args) => report::run(&args, &globals),
        Verb::Prune(args) => prune::run(&args, &globals),
        Verb::Verify(args) => verify::run(&args, &globals),
        Verb::Restore(args) => restore::run(&args, &globals),
        Verb::Forget(args) => forget::run(&args, &globals),
        Verb::Demo(args) => demo::run(&args, &globals),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
        Verb::Man(args) => man::run(&args, Cli::command()),
    };
    let plugin = matches!(done, Ok(Exit::Plugin(_)));
    let status = exit_status(done, &globals);
    // Whatever else it may be called: it was stopped halfway.
    let status = if matches!(status, 1 | 3) && !plugin && session::was_stopped() { 130 } else { status };
    let lost = tell_loss(Some(&globals));
    ExitCode::from(if lost && status == 0 { 1 } else { status })
}

/// Says on standard error that not all of the output has arrived where it was to go, if that is so.
fn tell_loss(globals: Option<&Globals>) -> bool {
    let Some(error) = output::lost() else { return false };
    let message = format!("cannot write to standard output: {error}");
    let hint = "the work is done; its report is lost";
    match globals {
        Some(globals) => output::error(globals, &message, Some(hint)),
        None => output::note(&format!("error: {message}\n  {hint}")),
    }
    true
}

fn exit_status(done: Result<Exit, Failure>, globals: &Globals) -> u8 {
    match done {
        Ok(Exit::Done) => 0,
        Ok(Exit::Failed) => 1,
        Ok(Exit::Partial) => 3,
        Ok(Exit::Damage) => 4,
        Ok(Exit::Interrupted) => 130,
        Ok(Exit::Plugin(status)) => status,
        Err(Failure::Usage(message)) => {
            output::error(globals, &message, None);
            2
        }
        Err(Failure::Pipeline(problems)) => {
            output::problems(globals, &problems);
            78
        }
        Err(Failure::LockedQuietly) => 11,
        Err(Failure::Error(error)) => {
            output::error(globals, &error.one_line(), error.hint_text());
            match error.kind() {
                Kind::Locked => 11,
                Kind::Interrupted => 130,
                _ => 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn every_shell_learns_every_verb() {
        for shell in Shell::value_variants() {
            let script = completions::script(*shell, &mut Cli::command());
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell} does not know `{}`", verb.get_name());
            }
        }
    }

    #[test]
    fn every_verb_has_a_page_with_an_example() {
        let pages = man::pages(Cli::command()).unwrap();
        assert_eq!(pages[0].name, "cdrvault");
        for verb in Cli::command().get_subcommands() {
            let name = format!("cdrvault-{}", verb.get_name());
            let page = pages.iter().find(|page| page.name == name);
            let page = page.unwrap_or_else(|| panic!("{name}(1) is missing"));
            assert!(page.text.contains(".SH EXAMPLES\n.nf\n"), "{}", page.text);
        }
    }
}
