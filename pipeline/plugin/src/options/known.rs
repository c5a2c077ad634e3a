//! What the loader takes from the schema of an options struct.

use std::fmt;

use schemars::{JsonSchema, Schema};
use serde_json::Value;
use toml::de::DeValue;

use super::schema::schema_of;

/// The keyword by which an options struct names the option that may be written alone.
const SHORTHAND: &str = "x-shorthand";

/// What a schema tells about the keys of a section.
pub struct Known {
    /// The names of all options.
    pub keys: Vec<String>,
    /// With the first line of their documentation.
    pub required: Vec<(String, String)>,
    /// The option that may be written alone.
    pub shorthand: Option<String>,
    /// The numbers that options take.
    pub ranges: Vec<Range>,
}

/// The numbers that an option takes: `#[schemars(range(min = 1, max = 16))]` is enough to have them checked.
pub struct Range {
    /// The option.
    pub key: String,
    min: i64,
    max: Option<i64>,
}

impl Range {
    fn of(key: &str, property: &Value) -> Option<Self> {
        let limit = |name: &str| property.get(name).and_then(Value::as_i64);
        let integer = property.get("type").is_some_and(|kind| kind == "integer");
        limit("minimum").filter(|_| integer).map(|min| Self { key: key.to_owned(), min, max: limit("maximum") })
    }

    /// Whether a value lies in it, if it is an integer at all.
    pub fn holds(&self, value: &DeValue<'_>) -> bool {
        let Some(integer) = value.as_integer() else { return true };
        i64::from_str_radix(integer.as_str(), integer.radix())
            .is_ok_and(|number| self.min <= number && self.max.is_none_or(|max| number <= max))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            Some(max) => write!(f, "a whole number from {} to {max}", self.min),
            None => write!(f, "a whole number, {} or more", self.min),
        }
    }
}

impl Known {
    /// Those of a struct of options.
    pub fn of<T: JsonSchema>() -> Self {
        Self::in_schema(&schema_of::<T>())
    }

    /// Those of a schema.
    pub fn in_schema(schema: &Schema) -> Self {
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let about = |key: &str| {
            let text = schema.pointer(&format!("/properties/{key}/description")).and_then(Value::as_str);
            let first = unwrapped(text.unwrap_or_default());
            let end = first.find(". ").or_else(|| first.find('\n')).unwrap_or(first.len());
            first[..end].trim_end_matches('.').to_owned()
        };
        Self {
            keys: properties(schema).map(|(key, _)| key.clone()).collect(),
            ranges: properties(schema).filter_map(|(key, property)| Range::of(key, property)).collect(),
            required: required.map(|key| (key.to_owned(), about(key))).collect(),
            shorthand: schema.get(SHORTHAND).and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// The options of a schema with their own schemas.
pub fn properties(schema: &Schema) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// Paragraphs without their line breaks.
pub fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}
