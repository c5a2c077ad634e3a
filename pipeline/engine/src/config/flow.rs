//! `[flow.NAME]`

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::chain::{self, Link};
use super::kind::Place;
use super::pipeline::{FlowSpec, OnSchemaChange, SinkSpec};
use super::table::{self, Entry};
use cdrvault_plugin::options::decode::{Field, kind_of};
use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::nearest::did_you_mean;
use cdrvault_plugin::options::section::{Body, Section};
use cdrvault_plugin::options::{Problem, Reference};
use cdrvault_plugin::registry::{BuildSource, Registry};

/// The options of a flow itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct FlowOptions {
    /// The sinks that get the dataset; at least one of them must not be optional.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    sinks: Vec<Reference>,
    /// What to do when the table has other columns than what is saved: go on (`evolve`), or wait until somebody has
    /// looked (`refuse`).
    #[serde(default)]
    on_schema_change: OnSchemaChange,
}

/// What flows refer to.
pub(super) struct Known<'a> {
    pub(super) registry: &'a Registry,
    pub(super) databases: &'a [Entry<'a>],
    pub(super) sinks: &'a [Entry<'a>],
    /// The sinks that are sound.
    pub(super) specs: &'a [SinkSpec],
}

/// A flow that is sound, and what every flow refers to.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) spec: Option<FlowSpec>,
    pub(super) database: Option<String>,
    pub(super) sinks: Vec<String>,
}

impl Known<'_> {
    /// Loads one flow; its parts are checked although others are wrong.
    pub(super) fn load(&self, draft: &Draft<'_>, entry: &Entry<'_>) -> Loaded {
        let Some(table) = entry.table else { return Loaded::default() };
        let title = format!("[flow.{}]", entry.name);
        let mut section = Section::new(draft, entry.name, "flow", title, entry.span.clone(), Body::Table(table));
        let options: Option<FlowOptions> = section.take();
        let source = section.take_raw("source");
        let transforms = section.take_raw("transforms");
        section.finish();

        let source = self.source(draft, entry, source);
        let database = source
            .as_ref()
            .and_then(|(_, build, _)| build.database())
            .map(|name| self.database(draft, name.name(), name.span()));
        let sinks = options.as_ref().and_then(|options| self.sinks(draft, &section.value("sinks"), &options.sinks));
        let end = transforms.as_ref().map_or_else(|| entry.span.clone(), |field| field.value.span());
        let links = self.transforms(draft, entry, transforms.as_ref());
        if let Some((kind, build, span)) = &source {
            let from = chain::Start { kind, shape: build.emits(), span: span.clone() };
            chain::check(draft, self.registry, &from, &links, &end);
        }
        let named = options.iter().flat_map(|options| &options.sinks).map(|sink| sink.name().to_owned()).collect();
        let spec = || {
            let (source_kind, source, _) = source?;
            let transforms = links.into_iter().map(|link| link.transform.map(Arc::from)).collect::<Option<_>>()?;
            let on_schema_change = options?.on_schema_change;
            Some(FlowSpec {
                name: entry.name.to_owned(),
                source_kind,
                source,
                transforms,
                sinks: sinks?,
                on_schema_change,
            })
        };
        Loaded { database: database.flatten(), sinks: named, spec: spec() }
    }

    fn source(
        &self,
        draft: &Draft<'_>,
        entry: &Entry<'_>,
        field: Option<Field<'_>>,
    ) -> Option<(&'static str, Box<dyn BuildSource>, Range<usize>)> {
        let kinds: Vec<_> = self.registry.sources.iter().map(|plugin| plugin.kind).collect();
        let place = Place {
            role: "source",
            title: format!("`source` of [flow.{}]", entry.name),
            form: "source.KIND = { ... }".to_owned(),
            apart: "keep one of them: a second source makes a second flow",
            span: field.as_ref().map_or_else(|| entry.span.clone(), |field| field.key_span.clone()),
            kinds: &kinds,
        };
        let Some(field) = field else {
            let problem = Problem::new(place.span.clone(), format!("`source` is missing in [flow.{}]", entry.name));
            draft.report(problem.help(format!("add `{}`; {}", place.form, did_you_mean("", &kinds, "kinds"))));
            return None;
        };
        let DeValue::Table(table) = field.value.get_ref() else {
            let found = kind_of(field.value.get_ref());
            let form = match field.value.get_ref() {
                DeValue::String(kind) if kinds.contains(&&**kind) => format!("source.{kind} = {{ ... }}"),
                _ => place.form.clone(),
            };
            let problem = Problem::new(field.value.span(), format!("`source` must be a table, not {found}"));
            draft.report(problem.label(found).help(format!("write `{form}`")));
            return None;
        };
        let Field { key, key_span, value } = place.choose(draft, table)?;
        let plugin = self.registry.sources.iter().find(|plugin| plugin.kind == key)?;
        let title = format!("`source.{key}` of [flow.{}]", entry.name);
        let mut section = Section::new(draft, entry.name, plugin.kind, title, key_span.clone(), Body::of(value));
        let build = (plugin.parse)(&mut section);
        // Of a source whose other options are wrong, this is known all the same.
        if let (None, DeValue::Table(options)) = (&build, value.get_ref())
            && let Some(database) = options.get("database")
            && let DeValue::String(name) = database.get_ref()
        {
            self.database(draft, name, database.span());
        }
        build.map(|build| (plugin.kind, build, key_span))
    }

    fn transforms(&self, draft: &Draft<'_>, entry: &Entry<'_>, field: Option<&Field<'_>>) -> Vec<Link> {
        let Some(field) = field else { return Vec::new() };
        let DeValue::Array(array) = field.value.get_ref() else {
            let found = kind_of(field.value.get_ref());
            let problem = Problem::new(field.value.span(), format!("`transforms` must be an array, not {found}"));
            draft.report(problem.label(found).help("write it in brackets: [ ... ]"));
            return vec![Link { transform: None, span: field.value.span() }];
        };
        array.iter().map(|element| self.transform(draft, entry, element)).collect()
    }

    fn transform(&self, draft: &Draft<'_>, entry: &Entry<'_>, element: &Spanned<DeValue<'_>>) -> Link {
        let kinds: Vec<_> = self.registry.transforms.iter().map(|plugin| plugin.kind).collect();
        let place = Place {
            role: "transform",
            title: "this element of `transforms`".to_owned(),
            form: "{ KIND = { ... } }".to_owned(),
            apart: "put each into braces of its own",
            span: element.span(),
            kinds: &kinds,
        };
        let (kind, span, body) = match element.get_ref() {
            DeValue::String(kind) => (kind.to_string(), element.span(), Body::Nothing),
            DeValue::Table(table) => match place.choose(draft, table) {
                Some(field) => (field.key.into_owned(), field.key_span, Body::of(field.value)),
                None => return Link { transform: None, span: element.span() },
            },
            other => {
                let found = kind_of(other);
                let problem = Problem::new(element.span(), format!("a transform cannot be {found}")).label(found);
                draft.report(problem.help("write its kind in quotes, or { KIND = { ... } } with options"));
                return Link { transform: None, span: element.span() };
            }
        };
        let Some(plugin) = self.registry.transforms.iter().find(|plugin| plugin.kind == kind) else {
            draft.report(place.no_such(&kind, span.clone()));
            return Link { transform: None, span };
        };
        let title = format!("`{kind}` of [flow.{}]", entry.name);
        let mut section = Section::new(draft, entry.name, plugin.kind, title, span.clone(), body);
        Link { transform: (plugin.parse)(&mut section), span }
    }

    /// The name of a database that exists.
    fn database(&self, draft: &Draft<'_>, name: &str, span: Range<usize>) -> Option<String> {
        let known = table::names(self.databases);
        if known.contains(&name) {
            return Some(name.to_owned());
        }
        let help = if known.is_empty() {
            format!("add `[database.{name}]` with its `url`")
        } else {
            did_you_mean(name, &known, "databases")
        };
        draft.report(Problem::new(span, format!("there is no database `{name}`")).help(help));
        None
    }

    /// The indexes of the sinks, or `None` when one of them is wrong.
    fn sinks(&self, draft: &Draft<'_>, span: &Range<usize>, references: &[Reference]) -> Option<Vec<usize>> {
        let known = table::names(self.sinks);
        if references.is_empty() {
            let problem = Problem::new(span.clone(), "a flow without a sink saves nothing");
            draft.report(problem.help(did_you_mean("", &known, "sinks")));
            return None;
        }
        let mut seen: BTreeMap<&str, &Reference> = BTreeMap::new();
        let mut sound = true;
        for reference in references {
            let name = reference.name();
            if !known.contains(&name) {
                sound = false;
                // That there are none at all has been reported.
                if known.is_empty() {
                    continue;
                }
                let problem = Problem::new(reference.span(), format!("there is no sink `{name}`"));
                draft.report(problem.help(did_you_mean(name, &known, "sinks")));
            } else if let Some(first) = seen.insert(name, reference) {
                let problem = Problem::new(reference.span(), format!("the sink `{name}` is listed twice"));
                draft.report(problem.label("again").also(first.span(), "first here").help("keep one of them"));
                sound = false;
            }
        }
        let index = |reference: &Reference| self.specs.iter().position(|spec| spec.name == reference.name());
        let indexes = references.iter().map(index).collect::<Option<Vec<_>>>().filter(|_| sound)?;
        self.delivery(draft, span, references, &indexes);
        Some(indexes)
    }

    /// A change is forgotten once it was delivered wherever it must be: so it must be somewhere. And a mirror has
    /// nothing to deliver unless what it mirrors gets the dataset as well.
    fn delivery(&self, draft: &Draft<'_>, span: &Range<usize>, references: &[Reference], indexes: &[usize]) {
        let specs = || indexes.iter().filter_map(|index| self.specs.get(*index));
        if specs().all(|spec| spec.optional) {
            let problem = Problem::new(span.clone(), "all sinks of this flow are optional: none has to hold its data");
            draft.report(problem.help("list one that is not `optional`"));
        }
        for (reference, spec) in references.iter().zip(specs()) {
            let Some(mirrored) = spec.build.mirrors() else { continue };
            let known = self.sinks.iter().any(|entry| entry.name == mirrored.name()) && mirrored.name() != spec.name;
            if known && !references.iter().any(|other| other.name() == mirrored.name()) {
                let message = format!("`{}` mirrors `{}`, which does not get this dataset", spec.name, mirrored.name());
                let problem = Problem::new(reference.span(), message);
                draft.report(problem.help(format!("add \"{}\" to `sinks`", mirrored.name())));
            }
        }
    }
}
