//! A stage's own part of the pipeline file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::decode::{Field, Fields, fields, kind_of};
use super::draft::Draft;
use super::fault::Why;
use super::known::Known;
use super::nearest::{did_you_mean, nearest};
use super::problem::Problem;

/// What a plugin parses: one table of the pipeline file.
///
/// ```ignore
/// fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSink>> {
///     let options: Options = section.options()?;
///     if options.keep.is_some() && options.mirror.is_some() {
///         section.problem(Problem::new(section.value("keep"), "...").help("..."));
///     }
///     Some(Box::new(Builder(options)))
/// }
/// ```
///
/// A scalar in place of the table (`{ compress = "zstd(9)" }`) is the value of the option that the options struct names
/// by `#[schemars(extend("x-shorthand" = "codec"))]`.
pub struct Section<'a> {
    draft: &'a Draft<'a>,
    owner: &'a str,
    kind: &'a str,
    title: String,
    span: Range<usize>,
    body: Body<'a>,
    /// The keys that the loader has taken: known, but not the stage's.
    taken: BTreeSet<String>,
}

/// What follows the name of a section.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Nothing: `"incremental"`.
    Nothing,
    /// A table of options.
    Table(&'a DeTable<'a>),
    /// The value of one option.
    Bare(&'a Spanned<DeValue<'a>>),
}

impl<'a> Body<'a> {
    /// A table, or the value of the shorthand.
    pub fn of(value: &'a Spanned<DeValue<'a>>) -> Self {
        match value.get_ref() {
            DeValue::Table(table) => Self::Table(table),
            _ => Self::Bare(value),
        }
    }
}

impl<'a> Section<'a> {
    /// The section of a kind, which begins at `span`, in the table of `owner`. `title` is what messages call it.
    pub fn new(
        draft: &'a Draft<'a>,
        owner: &'a str,
        kind: &'a str,
        title: String,
        span: Range<usize>,
        body: Body<'a>,
    ) -> Self {
        Self { draft, owner, kind, title, span, body, taken: BTreeSet::new() }
    }

    /// The options, or `None` when a key is missing or a value wrong. All of these are reported, and so is every key
    /// that is unknown.
    pub fn options<T: DeserializeOwned + JsonSchema>(&mut self) -> Option<T> {
        let known = Known::of::<T>();
        let written = self.written(known.shorthand.as_deref())?;
        let (ours, unknown): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|field| known.keys.iter().any(|key| **key == field.key));
        let names: Vec<_> = known.keys.iter().chain(&self.taken).map(String::as_str).collect();
        for field in unknown {
            self.unknown(&field, &names);
        }
        self.read(&known, ours)
    }

    /// As [`Section::options`], for some options that the loader takes before the stage sees the rest.
    pub fn take<T: DeserializeOwned + JsonSchema>(&mut self) -> Option<T> {
        let known = Known::of::<T>();
        let ours = match self.body {
            Body::Table(table) => {
                fields(table).into_iter().filter(|field| known.keys.iter().any(|key| **key == field.key)).collect()
            }
            _ => Vec::new(),
        };
        let options = self.read(&known, ours);
        self.taken.extend(known.keys);
        options
    }

    /// As [`Section::take`], for the raw value of one key.
    pub fn take_raw(&mut self, key: &str) -> Option<Field<'a>> {
        self.taken.insert(key.to_owned());
        let Body::Table(table) = self.body else { return None };
        fields(table).into_iter().find(|field| field.key == key)
    }

    /// Reports what was not taken.
    pub fn finish(&mut self) {
        let names: Vec<_> = self.taken.iter().map(String::as_str).collect();
        for field in self.written(None).unwrap_or_default() {
            self.unknown(&field, &names);
        }
    }

    /// The keys that are written here and not taken yet.
    fn written(&self, shorthand: Option<&str>) -> Option<Vec<Field<'a>>> {
        match (self.body, shorthand) {
            (Body::Nothing, _) => Some(Vec::new()),
            (Body::Table(table), _) => {
                Some(fields(table).into_iter().filter(|field| !self.taken.contains(&*field.key)).collect())
            }
            (Body::Bare(value), Some(key)) => {
                Some(vec![Field { key: Cow::Owned(key.to_owned()), key_span: self.span.clone(), value }])
            }
            (Body::Bare(value), None) => {
                let found = kind_of(value.get_ref());
                self.draft.report(
                    Problem::new(value.span(), format!("{} takes a table of options, not {found}", self.title))
                        .label(found)
                        .help("write its options in braces, { key = value }, or under a header of their own"),
                );
                None
            }
        }
    }

    fn unknown(&self, field: &Field<'_>, names: &[&str]) {
        let problem = Problem::new(field.key_span.clone(), format!("unknown key `{}` in {}", field.key, self.title));
        self.draft.report(problem.help(did_you_mean(&field.key, names, "keys")));
    }

    /// Reads the options. A value that is wrong is reported and left out, and the rest is read again: so every wrong
    /// value is found, and nothing is said of a key whose value was there but wrong.
    fn read<T: DeserializeOwned>(&self, known: &Known, mut written: Vec<Field<'a>>) -> Option<T> {
        let mut sound = self.complete(known, &written);
        written.retain(|field| {
            let outside =
                known.ranges.iter().find(|range| range.key == field.key && !range.holds(field.value.get_ref()));
            if let Some(range) = outside {
                let problem = Problem::new(field.value.span(), format!("`{}` is out of range", field.key));
                self.draft.report(problem.help(format!("write {range}")));
                sound = false;
            }
            outside.is_none()
        });
        loop {
            let mut fault = match T::deserialize(Fields::new(written.clone(), self.draft)) {
                Ok(options) => return sound.then_some(options),
                Err(fault) => fault,
            };
            let wrong = fault.span.as_ref().and_then(|span| written.iter().position(|field| field.holds(span)));
            match (wrong, &fault.why) {
                (Some(index), _) => {
                    let field = written.remove(index);
                    if let Some(range) = known.ranges.iter().find(|range| range.key == field.key) {
                        fault.expect_integer(&range.to_string());
                    }
                    // Of a value alone, the name of its option was never written.
                    let name = if matches!(self.body, Body::Bare(_)) { self.kind } else { &*field.key };
                    self.draft.report(fault.problem(name, field.value.span()));
                    sound = false;
                }
                // The key was reported before, as missing or as wrong.
                (None, Why::Missing(_)) if !sound => return None,
                (None, _) => {
                    self.draft.report(fault.problem(self.kind, self.span.clone()));
                    return None;
                }
            }
        }
    }

    /// Whether no required key is missing. One that is misspelt is not: it is reported as unknown.
    fn complete(&self, known: &Known, written: &[Field<'_>]) -> bool {
        let names: Vec<_> = known.keys.iter().map(String::as_str).collect();
        let others = match self.body {
            Body::Table(table) => fields(table),
            _ => Vec::new(),
        };
        let unknown = others.iter().filter(|field| !names.contains(&&*field.key) && !self.taken.contains(&*field.key));
        let meant: Vec<_> = unknown.filter_map(|field| nearest(&field.key, names.iter().copied())).collect();
        let missing = known.required.iter().filter(|(key, _)| !written.iter().any(|field| field.key == *key));
        let mut complete = true;
        for (key, about) in missing {
            complete = false;
            if meant.contains(&key.as_str()) {
                continue;
            }
            let about = if about.is_empty() { String::new() } else { format!(": {about}") };
            let problem = Problem::new(self.span.clone(), format!("`{key}` is missing in {}", self.title));
            self.draft.report(problem.help(format!("add `{key} = ...`{about}")));
        }
        complete
    }

    /// Reports a problem that only the stage can know of. Its place is that of a value ([`Section::value`]), of a
    /// [`super::Reference`], or of the section itself.
    pub fn problem(&mut self, problem: Problem) {
        self.draft.report(problem);
    }

    /// The place of the section's name.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The place of an option's value; that of the section's name where the option is not written.
    pub fn value(&self, key: &str) -> Range<usize> {
        match self.body {
            Body::Table(table) => table.get(key).map_or_else(|| self.span(), Spanned::span),
            Body::Bare(value) => value.span(),
            Body::Nothing => self.span(),
        }
    }

    /// The name of the database, sink or flow that the section belongs to.
    pub fn owner(&self) -> &str {
        self.owner
    }

    /// The directory that relative paths are relative to. A [`super::FilePath`] is joined to it already.
    pub fn base(&self) -> &Path {
        self.draft.base()
    }
}
