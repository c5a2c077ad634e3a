//! `files`: a directory tree as it stands.
//!
//! Saved are regular files, symbolic links (as links, never followed) and directories, each with owner, permission bits,
//! modification time, extended attributes and access control lists. A file of several names (hard links) is saved under
//! each of them, with a word that they are one, and stored once, because bodies are stored by their hash; a sparse file
//! is read as what it reads as, with a word that it has holes. What cannot be saved never stops the rest: see
//! [`cdrvault_plugin::notice`].

mod known;
mod reader;
pub(crate) mod selection;
pub(crate) mod stat;
pub(crate) mod walk;
pub(crate) mod xattrs;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::location::{Location, Overlap};
use cdrvault_plugin::options::{FilePath, Problem, Reference, Section, schema_of};
use cdrvault_plugin::payload::{Form, Payload, Shape};
use cdrvault_plugin::registry::{BuildSource, Plugin};
use cdrvault_plugin::stage::{Ask, Candidate, Read, Session, Snapshot, Source};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::detached::Detached;
use selection::{Pattern, Selection};

pub(crate) fn plugin() -> Plugin<dyn BuildSource> {
    Plugin {
        kind: "files",
        about: "a directory tree: files, links and directories with owner, mode, time and attributes",
        details: "Each run looks at every name and reads only files whose size, times or inode changed. Links are never \
                  followed. Extended attributes (`user.*`, `trusted.*`, `security.capability`) and POSIX access control \
                  lists are saved; hard links and holes come back as such. Flags of chattr and labels of SELinux are not \
                  saved; the run says which files are immutable or append-only. Sockets, pipes and devices are left out with a note. A file that keeps changing while it is \
                  read is saved as it was last read, with a warning; one that cannot be read makes the run partial, and \
                  everything else is saved. The pipeline's own vaults and its state directory are left out.\n\n\
                  Patterns are those of `.gitignore`: without a `/` at its beginning or inside, a pattern matches a name at \
                  any depth; with one, it matches the path from the top of the tree on. A `/` at its end is for directories \
                  alone. `*` and `?` stand for any characters (`?` for one byte) but `/`, `[a-z]` for one of them, `{a,b}` for \
                  either, `**` for any number of directories. A pattern that matches a directory is also for all that is in it.",
        schema: schema_of::<Options>,
        parse: |section| parse(section),
    }
}

/// A directory tree.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The top of the tree. If it is a link, what it points at is the top; links below are never followed.
    path: FilePath,
    /// Patterns of what is saved, everything by default. Directories that could hold something of it are saved too, so
    /// that their owners and modes come back.
    #[serde(default)]
    include: Vec<Pattern>,
    /// Patterns of what is not saved; it wins over `include`. Directories of it are not entered.
    #[serde(default)]
    exclude: Vec<Pattern>,
    /// Does not enter directories on which another file system is mounted; the directories themselves are saved, empty.
    #[serde(default)]
    one_file_system: bool,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSource>> {
    let options: Options = section.options()?;
    let mut sound = true;
    for (option, patterns) in [("include", &options.include), ("exclude", &options.exclude)] {
        for (pattern, below) in patterns.iter().filter_map(|p| Some((p, p.begins_with(&options.path)?))) {
            let message = format!("`{}` matches nothing: patterns are relative to `path`", pattern.written());
            let help = match below.trim_end_matches('/') {
                "" => "remove it: `path` is the top of the tree".to_owned(),
                _ => format!("write `{below}`"),
            };
            section.problem(Problem::new(section.value(option), message).help(help));
            sound = false;
        }
    }
    if !sound {
        return None;
    }
    match Selection::new(&options.include, &options.exclude) {
        Ok(selection) => Some(Box::new(Tree {
            path: options.path.into_inner(),
            leave_out: Vec::new(),
            selection: Arc::new(selection),
            one_file_system: options.one_file_system,
        })),
        Err(error) => {
            section.problem(Problem::new(section.span(), error.one_line()).help("write fewer or simpler patterns"));
            None
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
struct Tree {
    path: PathBuf,
    /// Our own directories.
    leave_out: Vec<PathBuf>,
    selection: Arc<Selection>,
    one_file_system: bool,
}

impl BuildSource for Tree {
    fn emits(&self) -> Shape {
        Shape::Objects
    }

    fn form(&self) -> Form {
        Form::Tree
    }

    fn database(&self) -> Option<&Reference> {
        None
    }

    fn leave_out(&mut self, directories: &[PathBuf]) {
        self.leave_out = directories.to_vec();
    }

    fn build(&self, _flow: &str, _session: Option<Arc<dyn Session>>) -> Result<(Arc<dyn Source>, Arc<dyn Session>)> {
        let session =
            Detached::new(self.describe(), "a directory tree announces no changes; every run looks through it");
        Ok((Arc::new(self.clone()), Arc::new(session)))
    }
}

impl Tree {
    /// A vault that saves itself would grow with each run.
    fn check_place(&self) -> Result<()> {
        let place = Location::directory(&self.path).resolved();
        let inside = |own: &&PathBuf| {
            let overlap = place.overlap(&Location::directory(own).resolved());
            matches!(overlap, Some(Overlap::Same | Overlap::Inside))
        };
        match self.leave_out.iter().find(inside) {
            Some(own) => Err(Error::new(
                Kind::Config,
                format!("{} lies in {}, where this pipeline itself writes", self.path.display(), own.display()),
            )
            .hint("correct `path`, or move the vault or the state directory out of the tree")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Source for Tree {
    fn emits(&self) -> Shape {
        Shape::Objects
    }

    fn form(&self) -> Form {
        Form::Tree
    }

    fn describe(&self) -> String {
        format!("files:{}", self.path.display())
    }

    async fn check(&self, cx: &Context) -> Result<Vec<String>> {
        let tree = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            walk::open_root(&tree.path)?;
            tree.check_place().map(|()| Vec::new())
        });
        cx.unless_cancelled(async { opened.await.map_err(|died| Error::failed("a check stopped").with_source(died))? })
            .await
    }

    async fn discover(&self, _: &Context, _: &Ask) -> Result<Vec<Candidate>> {
        Ok(Detached::candidates())
    }

    async fn read(&self, cx: &Context, _: &Arc<dyn Snapshot>, what: &Read) -> Result<Payload> {
        Ok(Payload::Objects(reader::objects(reader::Job {
            path: self.path.clone(),
            leave_out: self.leave_out.clone(),
            selection: Arc::clone(&self.selection),
            one_file_system: self.one_file_system,
            previous: what.previous.clone(),
            notices: what.notices.clone(),
            cancel: cx.cancel.clone(),
        })))
    }
}

#[cfg(test)]
mod tests;
