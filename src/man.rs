//! `man`: manual pages, made from what `--help` says.

use std::io;
use std::path::PathBuf;

use cdrvault_format::durable::{self, How};
use cdrvault_format::error::Error;
use cdrvault_format::outfile;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::exit::{Exit, Failure};
use crate::output;

/// Print the manual page, or write those of every verb into a directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault man | man -l -                                 # read it\n  cdrvault man --output /usr/local/share/man/man1         # cdrvault(1), cdrvault-run(1), ..."
)]
pub(crate) struct Args {
    /// Where to put one page for each verb; the directory is made if it is missing.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, command: Command) -> Result<Exit, Failure> {
    let failed = |error| Error::failed("cannot make the manual pages").with_source(error);
    let pages = pages(command).map_err(failed)?;
    let Some(directory) = &args.output else {
        output::text(&pages.first().map_or_else(String::new, |page| page.text.clone()));
        return Ok(Exit::Done);
    };
    durable::create_dirs(directory, &How { mode: Some(0o644), ..How::default() })?;
    for page in &pages {
        outfile::write(&directory.join(format!("{}.1", page.name)), Some(0o644), page.text.as_bytes())?;
    }
    Ok(Exit::Done)
}

/// A page in the language of man(7).
pub(crate) struct Page {
    /// As `cdrvault-run`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// That of the command comes first.
pub(crate) fn pages(command: Command) -> io::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, true, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, main: bool, pages: &mut Vec<Page>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push(Page { text: text(command, &name, main)?, name });
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| add(verb, false, pages))
}

/// What is known by `--help`, with examples as they are written, which the ready-made page would fill like prose.
fn text(command: &Command, name: &str, main: bool) -> io::Result<String> {
    let man = Man::new(command.clone());
    // The ready-made title leaves an empty date out, and so shows the version in its place.
    let mut page =
        format!(".TH {} 1 \"\" \"cdrvault {}\" \"cdrvault\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"))
            .into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for block in after.split("\n\n") {
        after_help(&mut rest, block);
    }
    if main {
        rest.control("SH", ["FILES"]);
        for (path, what) in FILES {
            rest.control("TP", []).text([roman(*path)]).text([roman(*what)]);
        }
    } else {
        rest.control("SH", ["SEE ALSO"]).control("BR", ["cdrvault", "(1)"]);
    }
    rest.to_writer(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

const FILES: &[(&str, &str)] = &[
    ("/etc/cdrvault/pipelines.d/NAME.toml", "The pipeline NAME."),
    ("$XDG_CONFIG_HOME/cdrvault/pipelines.d/NAME.toml", "The same for one user; by default in ~/.config."),
    ("/var/lib/cdrvault/NAME", "Its lock and run history, unless the pipeline names another directory."),
];

/// A paragraph of what stands after the options.
fn after_help(page: &mut Roff, block: &str) {
    let (head, rest) = block.split_once('\n').unwrap_or((block, ""));
    if matches!(head, "Example:" | "Examples:") {
        page.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in rest.lines() {
            page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        page.control("fi", []);
    } else if let Some(text) = block.strip_prefix("Exit status: ") {
        page.control("SH", ["EXIT STATUS"]);
        // Each on a line of its own.
        for line in text.replace('\n', " ").trim_end_matches('.').split("; ") {
            page.control("TP", []);
            let (status, meaning) = line.split_once(' ').unwrap_or((line, ""));
            page.text([roman(status)]).text([roman(meaning)]);
        }
    } else if !block.is_empty() {
        page.control("SH", ["NOTES"]);
        for line in block.lines() {
            page.text([roman(line)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_examples_and_notes_are_told_apart() {
        let mut page = Roff::new();
        for block in
            ["Exit status: 0 all is well; 4 something\nis damaged.", "Examples:\n  one  # 1\n  two", "A\nnote."]
        {
            after_help(&mut page, block);
        }
        let text = page.render();
        let begin = text.find(".SH").unwrap();
        assert_eq!(
            text[begin..],
            *".SH \"EXIT STATUS\"\n.TP\n0\nall is well\n.TP\n4\nsomething is damaged\n.SH EXAMPLES\n.nf\none  # 1\ntwo\n.fi\n\
              .SH NOTES\nA\nnote.\n"
        );
    }
}
