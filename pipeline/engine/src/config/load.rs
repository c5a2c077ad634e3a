//! From a text to a pipeline.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::flow::{Known, Loaded};
use super::header::Header;
use super::pipeline::{DatabaseSpec, Pipeline};
use super::table::{self, Entry};
use super::{alerts, places, schema, sink, syntax, watch};
use cdrvault_plugin::options::decode::{Field, fields};
use cdrvault_plugin::options::draft::{Draft, Literal};
use cdrvault_plugin::options::mask::{Masked, secret_in_url};
use cdrvault_plugin::options::nearest::{did_you_mean, nearest};
use cdrvault_plugin::options::options_of;
use cdrvault_plugin::options::section::{Body, Section};
use cdrvault_plugin::options::{Problem, Problems, Severity};
use cdrvault_plugin::registry::Registry;

/// A text and where it comes from.
pub(super) struct Input<'a> {
    /// The file, as messages call it.
    pub(super) path: &'a Path,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    /// Its content.
    pub(super) text: &'a str,
    /// Others can read the file: it must hold no secret.
    pub(super) exposed: bool,
}

/// Loads a text, or finds everything that is wrong with it.
pub(super) fn load(input: &Input<'_>, registry: &Registry) -> Result<Pipeline, Problems> {
    // Editors of other systems put a mark at the start; places are counted without it.
    let text = input.text.strip_prefix('\u{feff}').unwrap_or(input.text);
    let shown = Masked::new(text, &schema::secret_options(registry));
    let problems = |severity, found: Vec<Problem>| {
        let other = shown.with_other_secrets(text).filter(|_| !found.is_empty());
        let of_other = other.map(|other| match read(input, registry, &other, &shown) {
            Ok((_, found)) | Err(found) => found,
        });
        let said = |problem: Problem| [Some(problem.message), problem.help].into_iter().flatten();
        let prose = of_other.into_iter().flatten().flat_map(said).collect();
        Problems::new(input.path, text, shown.clone(), severity, found, &prose)
    };
    match read(input, registry, text, &shown) {
        Ok((mut pipeline, warnings)) => {
            pipeline.warnings = problems(Severity::Warning, warnings);
            Ok(pipeline)
        }
        Err(wrong) => Err(problems(Severity::Error, wrong)),
    }
}

/// A pipeline and its warnings, or what is wrong with the text.
fn read(
    input: &Input<'_>,
    registry: &Registry,
    text: &str,
    shown: &Masked,
) -> Result<(Pipeline, Vec<Problem>), Vec<Problem>> {
    let parsed = syntax::parse(text, shown);
    if parsed.problems.is_empty() && parsed.root.get_ref().is_empty() {
        let empty = Problem::new(0..0, "the file is empty").help("`cdrvault init FILE` writes one to start from");
        return Err(vec![empty]);
    }
    let draft = Draft::new(input.base);
    let pipeline = if parsed.sound { root(&draft, input, registry, parsed.root.get_ref()) } else { None };
    let (found, literals) = draft.into_parts();
    let mut wrong = parsed.problems;
    // Of a value that is not TOML nothing else is said.
    let again = |problem: &Problem| parsed.twice.iter().any(|table| table.contains(&problem.span.start));
    let apart = |problem: &Problem| !again(problem) && !wrong.iter().any(|known| touch(known, problem));
    let found: Vec<_> = found.into_iter().filter(apart).collect();
    wrong.extend(found);
    if input.exposed {
        wrong.extend(literals.iter().map(exposed));
    }
    match pipeline {
        Some(loaded) if wrong.is_empty() => Ok(loaded),
        // A stage that fails without a word is a mistake of ours, but the file must not pass for sound.
        None if wrong.is_empty() => {
            let silent = Problem::new(0..0, "a stage refused its options without saying why");
            Err(vec![silent.help("please report this")])
        }
        _ => Err(wrong),
    }
}

fn touch(one: &Problem, other: &Problem) -> bool {
    one.span.start <= other.span.end && other.span.start <= one.span.end
}

/// The problem of a secret in a file that others can read.
fn exposed(literal: &Literal) -> Problem {
    let problem = Problem::new(literal.span.clone(), "a secret in a file that others can read").label("a secret");
    problem.help(if literal.in_url {
        "leave it out of the URL and write `password = { file = \"...\" }` beside it, or `chmod 600` this file"
    } else {
        "write where it is, `{ file = \"...\" }`, `{ credential = \"...\" }`, `{ env = \"...\" }` or \
         `{ command = [\"...\"] }`, or `chmod 600` this file"
    })
}

fn root<'a>(
    draft: &'a Draft<'a>,
    input: &Input<'_>,
    registry: &Registry,
    table: &'a DeTable<'a>,
) -> Option<(Pipeline, Vec<Problem>)> {
    let mut texts = Vec::new();
    table::texts(table, &mut texts);
    for (_, span) in texts.into_iter().filter(|(text, _)| secret_in_url(text).is_some()) {
        draft.literal(span, true);
    }
    let mut section = Section::new(draft, "", "pipeline", "the pipeline".to_owned(), 0..0, Body::Table(table));
    let header: Option<Header> = section.take();
    let metrics = alerts::metrics(draft, &mut section);
    let notify = alerts::notify(draft, &mut section);
    let watch = watch::watch(draft, &mut section);
    let [databases, sinks, flows] =
        ["database", "sink", "flow"].map(|word| table::entries(draft, word, section.take_raw(word).as_ref()));
    section.finish();

    let database_specs: Vec<_> = databases.iter().filter_map(|entry| database(draft, registry, entry)).collect();
    let sink_specs = sink::load(draft, registry, &sinks);
    let known = Known { registry, databases: &databases, sinks: &sinks, specs: &sink_specs };
    let loaded: Vec<_> = flows.iter().map(|entry| known.load(draft, entry)).collect();
    for (word, entries, form) in [("flow", &flows, "[flow.NAME]"), ("sink", &sinks, "[sink.NAME.KIND]")] {
        // One that is misspelt, or no table, is reported as that.
        let meant = fields(table).into_iter().find(|field| nearest(&field.key, ["flow", "sink"]) == Some(word));
        let reported = meant.is_some_and(|field| field.key != word || !field.value.get_ref().is_table());
        if entries.is_empty() && !reported {
            let problem = Problem::new(0..0, format!("the pipeline has no {word}: it would save nothing"));
            draft.report(problem.help(format!("add a table `{form}`")));
        }
    }
    let mut warnings = unused(&databases, &sinks, &loaded);
    let state = header.as_ref().map(|header| match &header.state {
        Some(state) => state.to_path_buf(),
        None => PathBuf::from(format!("/var/lib/cdrvault/{}", header.name.as_str())),
    });
    warnings.extend(state.iter().flat_map(|state| places::state(draft, &sinks, &sink_specs, state)));
    let mut flow_specs: Vec<_> = loaded.into_iter().map(|flow| flow.spec).collect::<Option<_>>()?;
    let complete = database_specs.len() == databases.len() && sink_specs.len() == sinks.len();
    let header = header.filter(|_| complete)?;
    let name = header.name.into_inner();
    let state = state?;
    let mut own: Vec<_> = sink_specs.iter().filter_map(|sink| sink.build.place()?.path()).collect();
    own.push(state.clone());
    for flow in &mut flow_specs {
        flow.source.leave_out(&own);
    }
    let pipeline = Pipeline {
        path: input.path.to_owned(),
        timezone: header.timezone.map(|zone| zone.0),
        state,
        name,
        workers: header.workers.into(),
        min_free: header.min_free,
        databases: database_specs,
        sinks: sink_specs,
        flows: flow_specs,
        metrics,
        notify,
        watch: watch.unwrap_or_default(),
        codecs: registry.codecs.clone(),
        warnings: Problems::none(input.path),
    };
    Some((pipeline, warnings))
}

/// The kind of a database is the scheme of its URL.
fn database(draft: &Draft<'_>, registry: &Registry, entry: &Entry<'_>) -> Option<DatabaseSpec> {
    let kinds: Vec<_> = registry.databases.iter().map(|plugin| plugin.kind).collect();
    let title = format!("[database.{}]", entry.name);
    let table = entry.table?;
    let url = table.get("url");
    let Some(DeValue::String(text)) = url.map(serde_spanned::Spanned::get_ref) else {
        let problem = match url {
            None => Problem::new(entry.span.clone(), format!("`url` is missing in {title}")),
            Some(url) => Problem::new(url.span(), "`url` must be a string"),
        };
        let misspelt = strangers(draft, registry, &title, table);
        if url.is_some() || !misspelt.iter().any(|key| nearest(key, ["url"]).is_some()) {
            draft.report(
                problem.help("add `url = \"mysql://user@host/database\"`; its scheme says which database it is"),
            );
        }
        return None;
    };
    let span = url.map_or_else(|| entry.span.clone(), serde_spanned::Spanned::span);
    let Some((scheme, _)) = text.split_once(':') else {
        let problem = Problem::new(span, "the `url` has no scheme, which says which database it is");
        draft.report(problem.help(format!("begin it with one of {}", schemes(&kinds))));
        strangers(draft, registry, &title, table);
        return None;
    };
    let Some(plugin) = registry.databases.iter().find(|plugin| plugin.kind == scheme) else {
        let problem = Problem::new(span, format!("there is no database of the kind `{scheme}`"));
        draft.report(problem.help(did_you_mean(scheme, &kinds, "kinds")));
        strangers(draft, registry, &title, table);
        return None;
    };
    let mut section = Section::new(draft, entry.name, plugin.kind, title, entry.span.clone(), Body::Table(table));
    let build = (plugin.parse)(&mut section)?;
    Some(DatabaseSpec { name: entry.name.to_owned(), build })
}

/// Reports the keys that no kind of database has, for a database whose kind is not known.
fn strangers<'a>(draft: &Draft<'_>, registry: &Registry, title: &str, table: &'a DeTable<'a>) -> Vec<Cow<'a, str>> {
    let known: BTreeSet<String> =
        registry.databases.iter().flat_map(|plugin| options_of(&(plugin.schema)())).map(|option| option.name).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let unknown = fields(table).into_iter().filter(|field| !known.contains(&&*field.key));
    let reported = unknown.map(|Field { key, key_span, .. }| {
        let problem = Problem::new(key_span, format!("unknown key `{key}` in {title}"));
        draft.report(problem.help(did_you_mean(&key, &known, "keys")));
        key
    });
    reported.collect()
}

fn schemes(kinds: &[&str]) -> String {
    kinds.iter().map(|kind| format!("`{kind}:`")).collect::<Vec<_>>().join(", ")
}

/// What no flow refers to.
fn unused(databases: &[Entry<'_>], sinks: &[Entry<'_>], flows: &[Loaded]) -> Vec<Problem> {
    let read: BTreeSet<_> = flows.iter().filter_map(|flow| flow.database.as_deref()).collect();
    let written: BTreeSet<_> = flows.iter().flat_map(|flow| &flow.sinks).map(String::as_str).collect();
    let idle = |word: &str, entry: &Entry<'_>, verb: &str, help: &str| {
        Problem::new(entry.span.clone(), format!("no flow {verb} the {word} `{}`", entry.name)).help(help)
    };
    let databases = databases.iter().filter(|entry| !read.contains(entry.name));
    let databases = databases.map(|entry| idle("database", entry, "reads", "name it in a source, or remove it"));
    let sinks = sinks.iter().filter(|entry| !written.contains(entry.name));
    let sinks = sinks.map(|entry| idle("sink", entry, "writes to", "add it to the `sinks` of a flow, or remove it"));
    databases.chain(sinks).collect()
}
