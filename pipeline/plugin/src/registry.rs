//! The registries: which kinds of databases, sources, transforms and sinks there are.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::codec::Codecs;
use crate::location::Location;
use crate::options::Section;
use crate::payload::{Form, Shape};
use crate::sink::Vault;
use crate::stage::{Session, Source, Transform};
use crate::target::{Target, TargetOptions};
use cdrvault_format::error::{Error, Kind, Result};

/// One kind of stage. `T` is what `parse` makes: a transform itself, or a builder of what needs I/O to exist.
pub struct Plugin<T: ?Sized> {
    /// The name in the pipeline file.
    pub kind: &'static str,
    /// One line for `stages list`.
    pub about: &'static str,
    /// A few lines for `stages describe`, Markdown.
    pub details: &'static str,
    /// The options, with their documentation and defaults.
    pub schema: fn() -> schemars::Schema,
    /// Pure: no file, no network, no clock. `None` when the section has problems, which it has reported.
    pub parse: fn(&mut Section<'_>) -> Option<Box<T>>,
}

/// All kinds that this program knows. The command joins those of the stages and of the sinks.
#[derive(Default)]
pub struct Registry {
    /// By scheme of the URL.
    pub databases: Vec<Plugin<dyn BuildDatabase>>,
    /// Where datasets come from.
    pub sources: Vec<Plugin<dyn BuildSource>>,
    /// What happens on the way.
    pub transforms: Vec<Plugin<dyn Transform>>,
    /// Where vaults are kept.
    pub sinks: Vec<Plugin<dyn BuildSink>>,
    /// Where saved content can be restored to.
    pub targets: Vec<TargetPlugin>,
    /// How stored objects are decoded.
    pub codecs: Codecs,
}

/// One kind of target.
pub struct TargetPlugin {
    /// What its text begins with, before a colon.
    pub scheme: &'static str,
    /// One line, with the whole form of the text.
    pub about: &'static str,
    /// Makes it of its text; touching the place is [`Target::check`]'s.
    pub build: fn(text: &str, options: &TargetOptions) -> Result<Arc<dyn Target>>,
}

/// A database of the pipeline file, not connected yet.
pub trait BuildDatabase: Send + Sync {
    /// What it will be connected to, without secrets.
    fn identity(&self) -> String;

    /// Resolves the secrets and prepares the session; connecting is [`Session::open`]'s.
    fn build(&self) -> Result<Arc<dyn Session>>;

    /// The database as a place to restore to.
    fn target(&self, options: &TargetOptions) -> Result<Arc<dyn Target>> {
        let _ = options;
        Err(Error::new(Kind::Refused, format!("{} is only read", self.identity()))
            .hint("restore into a new file: `sqlite:FILE`"))
    }
}

/// A source of the pipeline file.
#[async_trait]
pub trait BuildSource: Send + Sync {
    /// See [`Source::emits`].
    fn emits(&self) -> Shape;

    /// See [`Source::form`].
    fn form(&self) -> Form {
        Form::Object
    }

    /// The name of the database it reads, with its place in the file; `None` for a source without one.
    fn database(&self) -> Option<&crate::options::Reference>;

    /// Whether its database could tell of its changes.
    fn announces(&self) -> bool {
        self.database().is_some()
    }

    /// Tells it of the directories of the pipeline's own vaults and state, which it does not save.
    fn leave_out(&mut self, directories: &[PathBuf]) {
        let _ = directories;
    }

    /// The first day that is saved at all.
    fn since(&self) -> Option<jiff::civil::Date> {
        None
    }

    /// Makes the source. `session` is that of `database()`; a source without a database brings its own.
    fn build(&self, flow: &str, session: Option<Arc<dyn Session>>) -> Result<(Arc<dyn Source>, Arc<dyn Session>)>;
}

/// A sink of the pipeline file.
pub trait BuildSink: Send + Sync {
    /// Where it will be, for a person to read, without secrets.
    fn describe(&self) -> String;

    /// The sink whose vault it mirrors, if it mirrors one.
    fn mirrors(&self) -> Option<&crate::options::Reference> {
        None
    }

    /// Whether its vault lies in a directory of this machine, so that it can be mirrored.
    fn is_directory(&self) -> bool {
        false
    }

    /// Where it will be, by its name alone: no two vaults may be in one place, nor one inside the other.
    fn place(&self) -> Option<Location> {
        None
    }

    /// Whether the place keeps old versions by itself.
    fn keeps_history(&self) -> bool {
        false
    }

    /// Resolves the secrets and prepares the sink; touching the place is [`Vault::open`]'s.
    fn build(&self, around: &Around) -> Result<Arc<dyn Vault>>;
}

/// What a sink is told of the pipeline around it.
#[derive(Default, Clone)]
pub struct Around {
    /// Every flow of the file that lists it.
    pub datasets: Vec<String>,
    /// The sink that it mirrors, if it mirrors one.
    pub mirrored: Option<Arc<dyn Vault>>,
}
