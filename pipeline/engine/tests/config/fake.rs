//! Kinds that do nothing, with the options of real ones.
#![allow(dead_code, reason = "options are there to be read from a file")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::codec::Codecs;
use cdrvault_plugin::location::Location;
use cdrvault_plugin::options::{
    Age, ByteSize, Day, Explained, FilePath, Glob, Mode, Problem, Reference, Secret, Section, schema_of,
};
use cdrvault_plugin::payload::{Payload, Shape};
use cdrvault_plugin::registry::{Around, BuildDatabase, BuildSink, BuildSource, Plugin, Registry};
use cdrvault_plugin::sink::Vault;
use cdrvault_plugin::stage::{Detection, Session, Source, Transform, Work};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) fn registry() -> Registry {
    Registry {
        databases: vec![
            plugin("mysql", schema_of::<MySql>, |section| {
                let options: MySql = section.options()?;
                Some(Box::new(FakeDatabase(options.url)))
            }),
            plugin("sqlite", schema_of::<Sqlite>, |section| {
                let options: Sqlite = section.options()?;
                Some(Box::new(FakeDatabase(options.url)))
            }),
        ],
        sources: vec![
            plugin("ar-cdr", schema_of::<ArCdr>, |section| {
                let options: ArCdr = section.options()?;
                if options.money_scale > 18 {
                    let problem = Problem::new(section.value("money-scale"), "a BIGINT has no such scale");
                    section.problem(problem.help("write a number from 0 to 18"));
                    return None;
                }
                Some(Box::new(FakeSource {
                    database: Some(options.database),
                    emits: Shape::Rows,
                    seen: format!("{:?}", options.since),
                }))
            }),
            plugin("files", schema_of::<Files>, |section| {
                let options: Files = section.options()?;
                let seen = format!("{} {:?}", options.path.display(), options.exclude);
                Some(Box::new(FakeSource { database: None, emits: Shape::Objects, seen }))
            }),
        ],
        transforms: vec![
            plugin("incremental", schema_of::<Incremental>, |section| {
                let _: Incremental = section.options()?;
                Some(Box::new(FakeTransform { kind: "incremental", from: None, to: None, detects: true }))
            }),
            plugin("always", schema_of::<Nothing>, |section| {
                let _: Nothing = section.options()?;
                Some(Box::new(FakeTransform { kind: "always", from: None, to: None, detects: true }))
            }),
            plugin("parquet", schema_of::<Parquet>, |section| {
                let _: Parquet = section.options()?;
                let (from, to) = (Some(Shape::Rows), Some(Shape::Objects));
                Some(Box::new(FakeTransform { kind: "parquet", from, to, detects: false }))
            }),
            plugin("compress", schema_of::<Compress>, |section| {
                let _: Compress = section.options()?;
                Some(Box::new(FakeTransform { kind: "compress", from: Some(Shape::Objects), to: None, detects: false }))
            }),
        ],
        sinks: vec![
            plugin("local", schema_of::<Local>, |section| {
                let options: Local = section.options()?;
                Some(Box::new(FakeSink {
                    seen: format!("{} {:?}", options.path.display(), options.mode),
                    mirrors: None,
                }))
            }),
            plugin("s3", schema_of::<S3>, |section| {
                let options: S3 = section.options()?;
                Some(Box::new(FakeSink { seen: format!("{} {:?}", options.url, options.secret_key), mirrors: None }))
            }),
            plugin("rdiff", schema_of::<Rdiff>, |section| {
                let options: Rdiff = section.options()?;
                Some(Box::new(FakeSink { seen: options.to, mirrors: Some(options.mirror) }))
            }),
        ],
        targets: Vec::new(),
        codecs: Codecs::default(),
    }
}

fn plugin<T: ?Sized>(
    kind: &'static str,
    schema: fn() -> schemars::Schema,
    parse: fn(&mut Section<'_>) -> Option<Box<T>>,
) -> Plugin<T> {
    Plugin { kind, about: "a fake", details: "", schema, parse }
}

/// A server.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MySql {
    /// Where it is.
    url: String,
    /// The account's password.
    password: Option<Secret>,
}

/// A file.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sqlite {
    /// Where it is.
    url: String,
}

/// A table.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ArCdr {
    /// The database that holds it.
    database: Reference,
    /// The first day.
    since: Option<Day>,
    /// The number of decimal places
    /// of money. It is not applied.
    #[serde(default = "four")]
    money_scale: u8,
}

fn four() -> u8 {
    4
}

/// A tree.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Files {
    /// Its top.
    path: FilePath,
    /// What to leave out.
    #[serde(default)]
    exclude: Vec<Glob>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Incremental {
    /// How changes are found.
    detect: Vec<Detector>,
    /// How far a sweep looks back.
    window: Age,
}

impl Default for Incremental {
    fn default() -> Self {
        Self { detect: vec![Detector::Events, Detector::Tripwire], window: Age::days(40) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Detector {
    Events,
    Tripwire,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Parquet {
    /// The size of a row group.
    #[serde(default = "group")]
    row_group: ByteSize,
    /// Encodings by hand.
    encoding: Option<Encoding>,
}

fn group() -> ByteSize {
    ByteSize::mebibytes(64)
}

/// Encodings by hand.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Encoding {
    column: String,
    dictionary: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "codec"))]
struct Compress {
    /// The codec.
    #[serde(default)]
    codec: Codec,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
struct Codec;

impl TryFrom<String> for Codec {
    type Error = Explained;

    fn try_from(text: String) -> Result<Self, Explained> {
        if text.starts_with("zstd") {
            Ok(Self)
        } else {
            Err(Explained::new(format!("`{text}` is not a codec"), "write \"zstd(9)\""))
        }
    }
}

/// A directory.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Local {
    /// The directory of the vault.
    path: FilePath,
    /// The mode of its files.
    mode: Option<Mode>,
}

/// A bucket.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct S3 {
    /// Where it is.
    url: String,
    /// The key.
    secret_key: Option<Secret>,
}

/// A mirror.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rdiff {
    /// The sink whose vault it mirrors.
    mirror: Reference,
    /// Where to.
    to: String,
}

struct FakeDatabase(String);

impl BuildDatabase for FakeDatabase {
    fn identity(&self) -> String {
        self.0.clone()
    }

    fn build(&self) -> Result<Arc<dyn Session>> {
        Err(Error::failed("a fake"))
    }
}

struct FakeSource {
    database: Option<Reference>,
    emits: Shape,
    seen: String,
}

#[async_trait]
impl BuildSource for FakeSource {
    fn emits(&self) -> Shape {
        self.emits
    }

    fn database(&self) -> Option<&Reference> {
        self.database.as_ref()
    }

    // The only place where a fake can show what it was given.
    fn build(&self, _: &str, _: Option<Arc<dyn Session>>) -> Result<(Arc<dyn Source>, Arc<dyn Session>)> {
        Err(Error::failed(self.seen.clone()))
    }
}

struct FakeTransform {
    kind: &'static str,
    /// `None` for either.
    from: Option<Shape>,
    /// `None` for the same.
    to: Option<Shape>,
    detects: bool,
}

impl Transform for FakeTransform {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn accepts(&self, input: Shape) -> Option<Shape> {
        self.from.is_none_or(|from| from == input).then(|| self.to.unwrap_or(input))
    }

    fn detection(&self) -> Option<Detection> {
        self.detects.then_some(Detection { events: true, tripwire: None })
    }

    fn apply(&self, _: &Work, input: Payload) -> Result<Payload> {
        Ok(input)
    }
}

struct FakeSink {
    seen: String,
    mirrors: Option<Reference>,
}

impl BuildSink for FakeSink {
    fn describe(&self) -> String {
        self.seen.clone()
    }

    fn mirrors(&self) -> Option<&Reference> {
        self.mirrors.as_ref()
    }

    fn is_directory(&self) -> bool {
        self.mirrors.is_none()
    }

    fn place(&self) -> Option<Location> {
        match self.seen.split_once("::") {
            Some((account, path)) => Some(Location::by_ssh(account, None, path)),
            None => Some(Location::directory(Path::new(self.seen.split(' ').next()?))),
        }
    }

    fn build(&self, _: &Around) -> Result<Arc<dyn Vault>> {
        Err(Error::failed("a fake"))
    }
}
