//! The options of a stage, as its users read of them.

use schemars::Schema;
use serde_json::{Map, Value};

use super::known::{Known, properties, unwrapped};

/// One option of a stage, for a person to read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptionDoc {
    /// Its key.
    pub name: String,
    /// What to write: `size`, `"a" | "b"`, `array of glob`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What holds where it is not written.
    pub default: Option<String>,
    /// Whether it must be written.
    pub required: bool,
    /// What it does.
    pub doc: String,
}

/// The options that a schema describes: the required ones first, each group in alphabetical order.
pub fn options_of(schema: &Schema) -> Vec<OptionDoc> {
    let known = Known::in_schema(schema);
    let mut options: Vec<_> = properties(schema)
        .map(|(name, property)| OptionDoc {
            name: name.clone(),
            kind: kind(property),
            default: property.get("default").map(as_toml),
            required: known.required.iter().any(|(key, _)| key == name),
            doc: unwrapped(property.get("description").and_then(Value::as_str).unwrap_or_default()),
        })
        .collect();
    options.sort_by_key(|option| !option.required);
    options
}

fn kind(schema: &Value) -> String {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(only) = schema.get("const") {
        return only.to_string();
    }
    if text("type") == Some("integer") {
        return match (schema.get("minimum"), schema.get("maximum")) {
            (Some(min), Some(max)) => format!("integer, {min} to {max}"),
            _ => "integer".to_owned(),
        };
    }
    if let Some(format) = text("format") {
        return format.to_owned();
    }
    let choices = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    if let Some(choices) = choices {
        let mut kinds: Vec<_> = choices.iter().map(kind).collect();
        kinds.dedup();
        return kinds.join(" | ");
    }
    match text("type") {
        Some("array") => match schema.get("items") {
            Some(items) => format!("array of {}", kind(items)),
            None => "array".to_owned(),
        },
        Some("object") => {
            let keys: Vec<_> = schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(Map::keys)
                .map(String::as_str)
                .collect();
            if keys.is_empty() { "table".to_owned() } else { format!("{{ {} }}", keys.join(", ")) }
        }
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

/// A default as it would stand in the file.
fn as_toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let pairs: Vec<_> = table
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key} = {}", as_toml(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
