//! `report`: one HTML page for those who want to see that all is well, and what to do where it is not.
//!
//! | file | holds |
//! |---|---|
//! | `facts` | everything that the page says, as a value; `--json` prints it |
//! | `flows` | what of it is about single days and months |
//! | `verdict`, `finding` | what it comes to, in a sentence, and what needs attention |
//! | `page`, `calendar`, `charts`, `figures`, `style.css` | how it looks |

mod calendar;
mod charts;
mod facts;
mod figures;
mod finding;
mod flows;
mod page;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdrvault_format::error::Error;
use cdrvault_format::outfile;
use cdrvault_plugin::options::{Explained, Mode};
use cdrvault_plugin::progress::Quiet;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, session};

/// Write one HTML page: what is saved where, day by day, and what needs attention.
///
/// The page is one file that needs no network, no script and no other file. A sink that cannot be read is shown as
/// such; the exit status is 3 then.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault report asterisell > report.html\n  cdrvault report asterisell --output /var/www/html/backup.html --mode 0644 --max-age 26h   # from cron, after the run"
)]
pub(crate) struct Args {
    /// The pipeline: a file, or a name in pipelines.d.
    #[arg(value_name = "NAME|FILE")]
    pipeline: Option<String>,
    /// The file to write, at once and whole; standard output by default.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The permissions of the file, as 0644 for a web server; otherwise one that is there keeps its own, and a new one is private.
    #[arg(long, value_name = "MODE", value_parser = mode, requires = "output")]
    mode: Option<Mode>,
    /// How many months to show day by day, up to the newest day that is saved.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=1200))]
    months: u16,
    /// Say that something is wrong when the last run that went well is older.
    #[arg(long, value_name = "TIME", value_parser = crate::globals::parse_age)]
    max_age: Option<Duration>,
}

fn mode(text: &str) -> Result<Mode, String> {
    text.parse().map_err(|wrong: Explained| format!("{}: {}", wrong.cause, wrong.help))
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let pipeline = session::load(args.pipeline.as_deref(), globals)?;
    // What the page tells people to type.
    let called = args.pipeline.clone().filter(|name| !name.contains(['/', '.']));
    let wanted = facts::Wanted {
        months: args.months,
        max_age: args.max_age,
        called: called.unwrap_or_else(|| page::shell_word(&pipeline.path)),
    };
    let facts = session::runtime()?.block_on(async {
        let cx = session::context(&pipeline, Arc::new(Quiet))?;
        let mut facts = facts::gather(&cx, &pipeline, &wanted).await?;
        facts.verdict = verdict::of(&facts, pipeline.min_free.as_u64());
        Ok::<_, Error>(facts)
    })?;
    match &args.output {
        Some(path) => {
            outfile::write(path, args.mode.map(Mode::bits), page::html(&facts).as_bytes())?;
        }
        None if !globals.json => output::text(&page::html(&facts)),
        None => {}
    }
    if globals.json {
        output::json(&facts)?;
    }
    for (optional, message) in facts.unreadable() {
        if optional {
            output::warning(globals, &message);
        } else {
            output::error(globals, &message, None);
        }
    }
    Ok(if facts.unreadable().iter().any(|(optional, _)| !optional) { Exit::Partial } else { Exit::Done })
}
