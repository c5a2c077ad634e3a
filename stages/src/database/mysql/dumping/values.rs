//! The rows of a table as `INSERT` statements that give every byte back.

use super::super::connect::{quoted, text};
use super::super::wire::{BinaryRow, Row};
use super::frames::{self, shown};

/// A statement is not made longer than this by one more row: far below what servers take at once by default, 16 MiB.
const STATEMENT: usize = 512 << 10;

/// A value that is longer goes on its way in parts, which are put together in a variable of the session: as a literal it is
/// up to twice as long as itself, and a server that holds it may not take that.
const LARGE: usize = 512 << 10;

/// How a column is asked for and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The server writes its digits.
    Number,
    /// The server would round it to six digits.
    Float,
    /// The server would lose the sign of zero.
    Double,
    /// The number of a label, or the bits of several: their text can be ambiguous.
    Label,
    /// A date, a time, an address: the server writes it in ASCII.
    Written,
    /// JSON of MySQL, which takes no bytes.
    Json,
    /// Text in UTF-8, as long as its bytes are.
    Utf8,
    /// Text of a character set that has ASCII in it, as long as nothing else is there.
    Ascii,
    Bytes,
}

/// Character sets in which a byte below 0x80 is the character of ASCII.
const WITH_ASCII: [&str; 19] = [
    "ascii", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "greek", "hebrew", "koi8r", "koi8u",
    "latin1", "latin2", "latin5", "latin7", "macce", "macroman", "tis620",
];

impl Form {
    fn of(data_type: &str, charset: Option<&str>) -> Self {
        match data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => Self::Number,
            "float" => Self::Float,
            "double" => Self::Double,
            "enum" | "set" => Self::Label,
            "date" | "time" | "datetime" | "timestamp" | "uuid" | "inet4" | "inet6" => Self::Written,
            "json" => Self::Json,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => match charset {
                Some("utf8mb4" | "utf8mb3" | "utf8") => Self::Utf8,
                Some(charset) if WITH_ASCII.contains(&charset) => Self::Ascii,
                _ => Self::Bytes,
            },
            _ => Self::Bytes,
        }
    }

    fn asked(self, name: &str) -> String {
        match self {
            Self::Number | Self::Written | Self::Json => format!("CAST({name} AS CHAR)"),
            Self::Label => format!("CAST(CAST({name} AS UNSIGNED) AS CHAR)"),
            Self::Float | Self::Double | Self::Utf8 | Self::Ascii | Self::Bytes => name.to_owned(),
        }
    }
}

/// The columns of a table that are saved.
#[derive(Debug, Default)]
pub(super) struct Columns {
    names: Vec<String>,
    forms: Vec<Form>,
    /// Those that say from when to when a row was in force, where the table has them as columns of its own.
    pub(super) period: Option<Period>,
}

/// What the columns of a system-versioned table's period hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Times,
    /// Numbers of transactions, which mean nothing in another server.
    Transactions,
}

impl Columns {
    /// What [`Columns::new`] reads.
    pub(super) const ASKED: &str = "COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, EXTRA, GENERATION_EXPRESSION";

    /// `with_times` says that those of a period are saved, too.
    pub(super) fn new(rows: &[Row], with_times: bool) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let at = |column| text(row, column).unwrap_or_default();
            let (name, data_type, extra) = (at(0), at(1), at(3));
            if ["ROW START", "ROW END"].contains(&at(4).as_str()) {
                let transactions = data_type == "bigint";
                columns.period = Some(if transactions { Period::Transactions } else { Period::Times });
                if with_times && !transactions {
                    columns.push(&name, Form::Written);
                }
            // MySQL says DEFAULT_GENERATED of what is not.
            } else if !["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|word| extra.contains(word)) {
                columns.push(&name, Form::of(&data_type, text(row, 2).as_deref()));
            }
        }
        columns
    }

    fn push(&mut self, name: &str, form: Form) {
        self.names.push(quoted(name));
        self.forms.push(form);
    }

    /// The period of a table that does not name its columns.
    pub(super) fn push_hidden_period(&mut self) {
        self.push("row_start", Form::Written);
        self.push("row_end", Form::Written);
    }

    /// What is to be selected.
    pub(super) fn select_list(&self) -> String {
        if self.names.is_empty() {
            return "NULL".to_owned();
        }
        let asked: Vec<String> = self.names.iter().zip(&self.forms).map(|(name, form)| form.asked(name)).collect();
        asked.join(", ")
    }
}

/// Makes statements of rows.
pub(super) struct Inserts<'a> {
    columns: &'a Columns,
    table: &'a str,
    statement: Vec<u8>,
    /// How many values of the row at hand went ahead.
    variables: usize,
}

impl<'a> Inserts<'a> {
    pub(super) fn new(table: &'a str, columns: &'a Columns) -> Self {
        Self { columns, table, statement: Vec::new(), variables: 0 }
    }

    /// Adds a row. Statements that are complete go to the end of `out`.
    pub(super) fn add(&mut self, out: &mut Vec<u8>, row: &BinaryRow<'_>) {
        let mut written = Vec::new();
        self.variables = 0;
        for (column, form) in self.columns.forms.iter().enumerate() {
            written.extend_from_slice(if column == 0 { b"(" } else { b"," });
            match row.get(column) {
                Some(value) if value.len() > LARGE => {
                    self.finish(out);
                    self.push_in_parts(out, value);
                    written.extend_from_slice(format!("@cdrvault_{}", self.variables).as_bytes());
                }
                value => push(&mut written, *form, value),
            }
        }
        if self.columns.forms.is_empty() {
            written.push(b'(');
        }
        written.push(b')');
        if self.statement.len() + written.len() > STATEMENT {
            self.finish(out);
        }
        if self.statement.is_empty() {
            let names = self.columns.names.join(",");
            self.statement
                .extend_from_slice(format!("INSERT INTO {} ({names}) VALUES\n", quoted(self.table)).as_bytes());
        } else {
            self.statement.extend_from_slice(b",\n");
        }
        self.statement.extend_from_slice(&written);
        if self.variables > 0 {
            self.finish(out);
            for variable in 1..=self.variables {
                let sql = format!("SET @cdrvault_{variable} = NULL");
                frames::push(out, &format!("value for {}", shown(self.table)), sql.as_bytes());
            }
        }
    }

    /// Ends the statement that was begun.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.statement.is_empty() {
            frames::push(out, &format!("rows of {}", shown(self.table)), &self.statement);
            self.statement.clear();
        }
    }

    fn push_in_parts(&mut self, out: &mut Vec<u8>, value: &[u8]) {
        self.variables += 1;
        let variable = format!("@cdrvault_{}", self.variables);
        let what = format!("value of {} bytes for {}", value.len(), shown(self.table));
        // Each part copies what there is so far, so the parts of very large values are larger.
        let part = (LARGE / 2).max(value.len() / 32);
        for (number, piece) in value.chunks(part).enumerate() {
            let mut sql = format!("SET {variable} = ");
            if number > 0 {
                sql += &format!("CONCAT({variable}, ");
            }
            let mut sql = sql.into_bytes();
            push_hex(&mut sql, piece);
            sql.extend_from_slice(if number > 0 { b")" } else { b"" });
            frames::push(out, &what, &sql);
        }
        // A server that takes less than the value gives NULL, and a warning that nobody sees.
        let wrong = "(SELECT 'raise max_allowed_packet' UNION SELECT '')";
        let sql = format!("SET {variable} = IF(LENGTH({variable}) = {}, {variable}, {wrong})", value.len());
        frames::push(out, &what, sql.as_bytes());
    }
}

fn push(out: &mut Vec<u8>, form: Form, value: Option<&[u8]>) {
    let Some(value) = value else { return out.extend_from_slice(b"NULL") };
    match form {
        Form::Number | Form::Label => out.extend_from_slice(value),
        // With an exponent it is a DOUBLE and not a DECIMAL, so that -0 keeps its sign. The FLOAT that a value came from is
        // the nearest one to it.
        Form::Float => {
            let bits = value.first_chunk().copied().unwrap_or_default();
            out.extend_from_slice(format!("{:e}", f64::from(f32::from_le_bytes(bits))).as_bytes());
        }
        Form::Double => {
            let bits = value.first_chunk().copied().unwrap_or_default();
            out.extend_from_slice(format!("{:e}", f64::from_le_bytes(bits)).as_bytes());
        }
        Form::Written | Form::Json => push_quoted(out, value),
        Form::Utf8 if std::str::from_utf8(value).is_ok() => push_quoted(out, value),
        Form::Ascii if value.is_ascii() => push_quoted(out, value),
        Form::Utf8 | Form::Ascii | Form::Bytes => push_hex(out, value),
    }
}

pub(super) fn push_quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.reserve(value.len() + 2);
    out.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            // So that a row is a line, whatever is in it.
            b'\0' => out.extend_from_slice(b"\\0"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1a => out.extend_from_slice(b"\\Z"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
}

/// Digits of bytes are stored as the bytes, whatever the character set of the column.
pub(super) fn push_hex(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(value.len() * 2 + 3);
    out.extend_from_slice(b"X'");
    for byte in value {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(form: Form, value: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, form, Some(value));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_is_quoted_only_where_its_bytes_are_sure_to_stay() {
        assert_eq!(of(Form::Utf8, "it's \\ \0\n\r\u{1a} \u{1f600}".as_bytes()), "'it''s \\\\ \\0\\n\\r\\Z \u{1f600}'");
        assert_eq!(of(Form::Utf8, b"\xed\xa0\x80"), "X'EDA080'");
        assert_eq!((of(Form::Ascii, b"caf"), of(Form::Ascii, b"\xe9")), ("'caf'".to_owned(), "X'E9'".to_owned()));
        assert_eq!(of(Form::Bytes, b""), "X''");
        assert_eq!(Form::of("varchar", Some("sjis")), Form::Bytes);
        assert_eq!(Form::of("varbinary", None), Form::Bytes);
        assert_eq!(Form::of("vector", None), Form::Bytes);
    }

    #[test]
    fn floats_are_doubles_that_give_the_same_float() {
        assert_eq!(of(Form::Float, &16_777_216_f32.to_le_bytes()), "1.6777216e7");
        assert_eq!(of(Form::Double, &(-0.0_f64).to_le_bytes()), "-0e0");
    }
}
