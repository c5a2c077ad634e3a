//! JSON schemas: of a struct of options, and of the whole file.

use cdrvault_plugin::options::schema_of;
use schemars::Schema;
use serde_json::{Map, Value, json};

use super::alerts::{MetricsOptions, NotifyOptions};
use super::flow::FlowOptions;
use super::header::Header;
use super::name;
use super::sink::SinkOptions;
use super::watch::WatchOptions;
use cdrvault_plugin::options::known::{Known, properties};
use cdrvault_plugin::registry::{Plugin, Registry};

/// The names of all options that are secrets.
pub(super) fn secret_options(registry: &Registry) -> Vec<String> {
    let databases = registry.databases.iter().map(|plugin| (plugin.schema)());
    let sources = registry.sources.iter().map(|plugin| (plugin.schema)());
    let transforms = registry.transforms.iter().map(|plugin| (plugin.schema)());
    let sinks = registry.sinks.iter().map(|plugin| (plugin.schema)());
    let mut names = Vec::new();
    let notify = schema_of::<NotifyOptions>();
    for schema in databases.chain(sources).chain(transforms).chain(sinks).chain([notify]) {
        let secret = |property: &Value| property.get("format").is_some_and(|format| format == "secret");
        names.extend(properties(&schema).filter(|(_, property)| secret(property)).map(|(name, _)| name.clone()));
    }
    names.sort();
    names.dedup();
    names
}

/// The JSON schema of a whole pipeline file (draft 2020-12), for editors.
pub fn schema(registry: &Registry) -> Value {
    let mut file = section(schema_of::<Header>());
    let header = file["properties"].take();
    let mut properties = match header {
        Value::Object(header) => header,
        _ => Map::new(),
    };
    let databases: Vec<_> = registry.databases.iter().map(described).collect();
    properties.insert("database".to_owned(), named("The databases: `[database.NAME]`", &json!({ "anyOf": databases })));
    let sinks = one_of(&registry.sinks, |plugin| with_options(described(plugin), &schema_of::<SinkOptions>()));
    properties.insert("sink".to_owned(), named("The places that hold a vault: `[sink.NAME.KIND]`", &sinks));
    let mut flow = section(schema_of::<FlowOptions>());
    flow["properties"]["source"] = one_of(&registry.sources, described);
    let transforms: Vec<_> = registry.transforms.iter().flat_map(transform).collect();
    flow["properties"]["transforms"] = json!({
        "description": "What happens between source and sinks, in order.", "type": "array", "items": { "anyOf": transforms },
    });
    if let Value::Array(required) = &mut flow["required"] {
        required.push("source".into());
    }
    let alerts = [
        ("metrics", "A text file for Prometheus: `[metrics]`", schema_of::<MetricsOptions>()),
        ("notify", "Who hears of runs: `[notify]`", schema_of::<NotifyOptions>()),
        ("watch", "What of the saved data is an alarm: `[watch]`", schema_of::<WatchOptions>()),
    ];
    for (word, about, schema) in alerts {
        let mut table = section(schema);
        table["description"] = about.into();
        properties.insert(word.to_owned(), table);
    }
    properties.insert("flow".to_owned(), named("One chain each: `[flow.NAME]`", &flow));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cdrvault pipeline",
        "type": "object",
        "properties": properties,
        "required": ["name", "sink", "flow"],
        "additionalProperties": false,
    })
}

fn section(schema: Schema) -> Value {
    let mut value = schema.to_value();
    value["additionalProperties"] = false.into();
    value
}

/// A table whose keys are names.
fn named(about: &str, content: &Value) -> Value {
    json!({
        "description": about, "type": "object", "minProperties": 1, "additionalProperties": content,
        "propertyNames": { "pattern": name::PATTERN },
    })
}

/// The options of a kind, with what the kind is.
fn described<T: ?Sized>(plugin: &Plugin<T>) -> Value {
    let mut value = section((plugin.schema)());
    value["description"] = plugin.about.into();
    value
}

fn with_options(mut value: Value, more: &Schema) -> Value {
    for (key, property) in properties(more) {
        value["properties"][key] = property.clone();
    }
    value
}

/// A table with exactly one key: the kind.
fn one_of<T: ?Sized>(plugins: &[Plugin<T>], content: impl Fn(&Plugin<T>) -> Value) -> Value {
    let kinds: Map<_, _> = plugins.iter().map(|plugin| (plugin.kind.to_owned(), content(plugin))).collect();
    json!({ "type": "object", "properties": kinds, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 })
}

/// `"kind"`, `{ kind = { ... } }`, and `{ kind = "value of its shorthand" }`.
fn transform(plugin: &Plugin<dyn cdrvault_plugin::stage::Transform>) -> Vec<Value> {
    let schema = (plugin.schema)();
    let known = Known::in_schema(&schema);
    let table = |content: Value| {
        let mut properties = Map::new();
        properties.insert(plugin.kind.to_owned(), content);
        json!({ "type": "object", "properties": properties, "required": [plugin.kind], "additionalProperties": false })
    };
    let mut forms = vec![table(described(plugin))];
    if known.required.is_empty() {
        forms.push(json!({ "const": plugin.kind, "description": plugin.about }));
    }
    let alone = known.shorthand.and_then(|key| schema.pointer(&format!("/properties/{key}")).cloned());
    forms.extend(alone.map(table));
    forms
}
