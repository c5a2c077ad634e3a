//! `[sink.NAME.KIND]`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::decode::Field;
use super::draft::Draft;
use super::kind::Place;
use super::nearest::did_you_mean;
use super::pipeline::SinkSpec;
use super::problem::Problem;
use super::section::{Body, Section};
use super::table::{self, Entry};
use crate::plugin::{Plugin, Registry};

/// What every sink has, whatever its kind.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SinkOptions {
    /// Its failure is a warning; it catches up later.
    #[serde(default)]
    pub optional: bool,
}

/// Loads the sinks that are sound.
pub(super) fn load(draft: &Draft<'_>, registry: &Registry, entries: &[Entry<'_>]) -> Vec<SinkSpec> {
    let kinds: Vec<_> = registry.sinks.iter().map(|plugin| plugin.kind).collect();
    let sinks: Vec<_> = entries.iter().filter_map(|entry| one(draft, registry, &kinds, entry)).collect();
    mirrors(draft, entries, &sinks);
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
    let build = (plugin.parse)(&mut section)?;
    Some(SinkSpec { name: entry.name.to_owned(), kind: plugin.kind, optional: common?.optional, build })
}

/// A mirror names another sink, which is no mirror itself.
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
        }
    }
}
