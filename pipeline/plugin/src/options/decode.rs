//! Values of the pipeline file, for serde.
//!
//! It differs from the deserializer of the `toml` crate in four things: its errors are values (`Fault`) and not
//! sentences; a date may be written with or without quotes; paths are joined to the directory of the file; and the
//! places of literal secrets are noted.

use std::borrow::Cow;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::de::value::{BytesDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde_spanned::Spanned;
use serde_spanned::de::{SpannedDeserializer, is_spanned};
use toml::de::{DeInteger, DeTable, DeValue};

use super::draft::Draft;
use super::fault::{Fault, Why};
use super::{path, secret, variables};

/// One value of the file.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// What is written.
    pub value: &'a Spanned<DeValue<'a>>,
    /// Where problems go.
    pub draft: &'a Draft<'a>,
}

/// One key of a table with its value.
#[derive(Clone)]
pub struct Field<'a> {
    /// Its name.
    pub key: Cow<'a, str>,
    /// Where the name stands.
    pub key_span: Range<usize>,
    /// What it is set to.
    pub value: &'a Spanned<DeValue<'a>>,
}

impl Field<'_> {
    /// Whether a place lies in it.
    pub fn holds(&self, span: &Range<usize>) -> bool {
        let within = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
        within(&self.key_span) || within(&self.value.span())
    }
}

/// The keys of a table in the order of the file.
pub fn fields<'a>(table: &'a DeTable<'a>) -> Vec<Field<'a>> {
    let field = |(key, value): (&'a Spanned<Cow<'a, str>>, _)| Field {
        key: Cow::Borrowed(key.get_ref()),
        key_span: key.span(),
        value,
    };
    let mut fields: Vec<_> = table.iter().map(field).collect();
    fields.sort_by_key(|field| field.key_span.start);
    fields
}

/// What a value is, in words.
pub fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Value<'a> {
    fn visit_integer<V: Visitor<'a>>(integer: &DeInteger<'_>, visitor: V) -> Result<V::Value, Fault> {
        match (
            i64::from_str_radix(integer.as_str(), integer.radix()),
            u64::from_str_radix(integer.as_str(), integer.radix()),
        ) {
            (Ok(number), _) => visitor.visit_i64(number),
            (_, Ok(number)) => visitor.visit_u64(number),
            _ => Err(de::Error::custom("the number is too large")),
        }
    }

    /// Joins a path to the directory of the file. Purely textual: nothing is looked up.
    fn visit_path<V: Visitor<'a>>(self, text: &str, visitor: V) -> Result<V::Value, Fault> {
        let said = |text: &str| Err(de::Error::custom(text));
        if text.is_empty() {
            return said("the path is empty\nwrite the whole path, or one relative to the directory of this file");
        }
        if text.contains('\0') {
            return said("the path holds a NUL\nno path does: remove it");
        }
        if let Some(refused) = variables::in_path(text) {
            return Err(de::Error::custom(refused));
        }
        let joined = self.draft.base().join(Path::new(text));
        visitor.visit_newtype_struct(BytesDeserializer::new(joined.as_os_str().as_bytes()))
    }

    fn visit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_borrowed_str(text),
            DeValue::Integer(integer) => Self::visit_integer(integer, visitor),
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom("it is not a number")),
            },
            DeValue::Boolean(yes) => visitor.visit_bool(*yes),
            DeValue::Datetime(_) => {
                Err(Fault::new(self.value.span(), Why::Type { expected: expected(&visitor), found: "a date or time" }))
            }
            DeValue::Array(array) => visitor.visit_seq(Elements { rest: array.iter(), draft: self.draft }),
            DeValue::Table(table) => visitor.visit_map(Fields::new(fields(table), self.draft)),
        }
    }
}

fn expected<'de, V: Visitor<'de>>(visitor: &V) -> String {
    let wanted: &dyn de::Expected = visitor;
    wanted.to_string()
}

impl<'a> Deserializer<'a> for Value<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor).map_err(|fault| fault.within(&self.value.span()))
    }

    // `since = 2015-01-01` is as good as `since = "2015-01-01"`.
    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.get_ref() {
            DeValue::Datetime(date) => {
                visitor.visit_string(date.to_string()).map_err(|fault: Fault| fault.within(&self.value.span()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let DeValue::String(text) = self.value.get_ref()
            && let Some(refused) = variables::in_text(text)
        {
            return Err(<Fault as de::Error>::custom(refused).within(&self.value.span()));
        }
        // Here it is a text and nothing else: `name = 2015-01-01` lacks its quotes.
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        let span = self.value.span();
        match (name, self.value.get_ref()) {
            (path::MARKER, DeValue::String(text)) => self.visit_path(text, visitor),
            (secret::MARKER, DeValue::String(_)) => {
                self.draft.literal(span.clone(), false);
                visitor.visit_newtype_struct(self)
            }
            _ => visitor.visit_newtype_struct(self),
        }
        .map_err(|fault| fault.within(&span))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if is_spanned(name) {
            return visitor.visit_map(SpannedDeserializer::new(self, self.value.span()));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let span = self.value.span();
        match self.value.get_ref() {
            DeValue::String(name) => visitor.visit_enum(StrDeserializer::new(name)),
            DeValue::Table(table) => match fields(table).as_slice() {
                [field] => visitor.visit_enum(Choice { field: field.clone(), draft: self.draft }),
                _ => Err(de::Error::custom("exactly one key is expected here\nkeep one of them")),
            },
            other => Err(Fault::new(
                span.clone(),
                Why::Type { expected: "a name in quotes".to_owned(), found: kind_of(other) },
            )),
        }
        .map_err(|fault| fault.within(&span))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

impl<'a> IntoDeserializer<'a, Fault> for Value<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The elements of an array.
struct Elements<'a> {
    rest: std::slice::Iter<'a, Spanned<DeValue<'a>>>,
    draft: &'a Draft<'a>,
}

impl<'a> de::SeqAccess<'a> for Elements<'a> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let element = seed.deserialize(Value { value, draft: self.draft });
        element.map(Some).map_err(|fault| fault.within(&value.span()))
    }
}

/// The keys of a table, or those of them that an option struct is to see.
pub struct Fields<'a> {
    rest: std::vec::IntoIter<Field<'a>>,
    current: Option<Field<'a>>,
    draft: &'a Draft<'a>,
}

impl<'a> Fields<'a> {
    /// Those of a table.
    pub fn new(fields: Vec<Field<'a>>, draft: &'a Draft<'a>) -> Self {
        Self { rest: fields.into_iter(), current: None, draft }
    }
}

impl<'a> de::MapAccess<'a> for Fields<'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(field) = self.rest.next() else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<Fault>::new(&field.key));
        let key = key.map(Some).map_err(|fault| fault.within(&field.key_span));
        self.current = Some(field);
        key
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(Field { key, value, .. }) = self.current.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        let made = seed.deserialize(Value { value, draft: self.draft });
        made.map_err(|fault: Fault| fault.within(&value.span()).under(&key))
    }
}

impl<'a> Deserializer<'a> for Fields<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(self)
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A variant with content: a table with one key.
struct Choice<'a> {
    field: Field<'a>,
    draft: &'a Draft<'a>,
}

impl<'a> de::EnumAccess<'a> for Choice<'a> {
    type Error = Fault;
    type Variant = Value<'a>;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Value<'a>), Fault> {
        let name = seed.deserialize(StrDeserializer::<Fault>::new(&self.field.key));
        let name = name.map_err(|fault| fault.within(&self.field.key_span))?;
        Ok((name, Value { value: self.field.value, draft: self.draft }))
    }
}

impl<'a> de::VariantAccess<'a> for Value<'a> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(Fault::new(
            self.value.span(),
            Why::Said("this takes no options\nwrite the name alone, in quotes".to_owned()),
        ))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self).map_err(|fault| fault.within(&self.value.span()))
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }
}
