//! `[sink.NAME.KIND]`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::keep::Keep;
use super::kind::Place;
use super::pipeline::SinkSpec;
use super::places;
use super::table::{self, Entry};
use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::decode::Field;
use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::nearest::did_you_mean;
use cdrvault_plugin::options::section::{Body, Section};
use cdrvault_plugin::registry::{Plugin, Registry};

/// What every sink has, whatever its kind.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SinkOptions {
    /// Its failure is a warning; it catches up later.
    #[serde(default)]
    pub optional: bool,
    /// How long superseded versions are kept there; for ever by default.
    #[serde(default)]
    pub keep: Option<Keep>,
}

/// Loads the sinks that are sound.
pub(super) fn load(draft: &Draft<'_>, registry: &Registry, entries: &[Entry<'_>]) -> Vec<SinkSpec> {
    let kinds: Vec<_> = registry.sinks.iter().map(|plugin| plugin.kind).collect();
    let sinks: Vec<_> = entries.iter().filter_map(|entry| one(draft, registry, &kinds, entry)).collect();
    mirrors(draft, entries, &sinks);
    places::apart(draft, entries, &sinks);
    sinks
}

fn one(draft: &Draft<'_>, registry: &Registry, kinds: &[&'static str], entry: &Entry<'_>) -> Option<SinkSpec> {
    let place = Place {
        role: "sink",
        title: format!("[sink.{}]", entry.name),
        form: format!("[sink.{}.KIND]", entry.name),
        apart: "keep one of them, or give each a name of its own",
        span: entry.span.clone(),
        kinds,
    };
    let Field { key, key_span, value } = place.choose(draft, entry.table?)?;
    let plugin: &Plugin<_> = registry.sinks.iter().find(|plugin| plugin.kind == key)?;
    let title = format!("[sink.{}.{key}]", entry.name);
    let mut section = Section::new(draft, entry.name, plugin.kind, title, key_span, Body::of(value));
    let common: Option<SinkOptions> = section.take();
    let keep_span = section.value("keep");
    let build = (plugin.parse)(&mut section)?;
    let SinkOptions { optional, keep } = common?;
    if keep.is_some_and(|keep| keep.superseded.is_none() && keep.last.is_none()) {
        let problem = Problem::new(keep_span, "`keep` is empty");
        draft.report(problem.help("write `keep = { superseded = \"30d\" }`, `{ last = 3 }`, or both"));
        return None;
    }
    if keep.is_some_and(|keep| keep.last.is_some()) && build.keeps_history() {
        let problem = Problem::new(keep_span, format!("`last` does not work in a sink of kind `{}`", plugin.kind));
        draft.report(problem.help("it keeps history by time: write `keep = { superseded = \"30d\" }`"));
        return None;
    }
    Some(SinkSpec { name: entry.name.to_owned(), kind: plugin.kind, optional, keep, build })
}

/// A mirror names another sink, which is not a mirror itself.
fn mirrors(draft: &Draft<'_>, entries: &[Entry<'_>], sinks: &[SinkSpec]) {
    let by_name: BTreeMap<_, _> = sinks.iter().map(|sink| (sink.name.as_str(), sink)).collect();
    for sink in sinks {
        let Some(mirrored) = sink.build.mirrors() else { continue };
        let others: Vec<_> = table::names(entries).into_iter().filter(|name| *name != sink.name).collect();
        let problem = |message: String| Problem::new(mirrored.span(), message);
        if mirrored.name() == sink.name {
            let problem = problem(format!("the sink `{}` mirrors itself", sink.name));
            draft.report(problem.help("name the sink whose vault it is to mirror"));
        } else if !others.contains(&mirrored.name()) {
            let problem = problem(format!("there is no sink `{}` to mirror", mirrored.name()));
            draft.report(problem.help(did_you_mean(mirrored.name(), &others, "sinks")));
        } else if let Some(next) = by_name.get(mirrored.name()).and_then(|other| other.build.mirrors())
            && next.name() != mirrored.name()
        {
            let problem = problem(format!("the sink `{}` is a mirror itself", mirrored.name()));
            draft.report(problem.help(format!("mirror `{}`", next.name())));
        } else if let Some(other) = by_name.get(mirrored.name())
            && other.build.mirrors().is_none()
            && !other.build.is_directory()
        {
            let problem = problem(format!("the vault of `{}` does not lie in a directory", mirrored.name()));
            draft.report(problem.help("mirror a sink of kind `local`"));
        }
    }
}
