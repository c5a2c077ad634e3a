//! The text of a pipeline file with its secrets blotted out: the only form in which it is ever shown.
//!
//! It works on the text and not on what was parsed, because a file whose syntax is wrong is shown as well, and it
//! rather hides too much: a key that merely sounds like a secret, or is a misspelt one, has its value hidden.

use std::ops::Range;

use super::secret::KEYS;

/// The text, shown: every character of a secret is a `*`, so that lines and columns are those of the file.
#[derive(Clone)]
pub struct Masked {
    text: String,
    holes: Vec<Hole>,
}

/// A secret in the original, and how many bytes it has in the shown text.
#[derive(Clone)]
struct Hole {
    span: Range<usize>,
    shown: usize,
}

impl Masked {
    /// `known` are the names of options that are secrets.
    pub fn new(original: &str, known: &[String]) -> Self {
        let mut text = String::with_capacity(original.len());
        let mut holes = Vec::new();
        let mut end = 0;
        for span in secrets(original, known) {
            let Some(secret) = original.get(span.clone()) else { continue };
            text.push_str(&original[end..span.start]);
            let before = text.len();
            text.extend(secret.chars().map(|c| if matches!(c, '\n' | '\r') { c } else { '*' }));
            end = span.end;
            holes.push(Hole { span, shown: text.len() - before });
        }
        text.push_str(&original[end..]);
        Self { text, holes }
    }

    /// The masked text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a span of the original lies in the shown text.
    pub fn map(&self, span: &Range<usize>) -> Range<usize> {
        self.offset(span.start)..self.offset(span.end)
    }

    /// What is shown of a span of the original.
    pub fn get(&self, span: &Range<usize>) -> &str {
        self.text.get(self.map(span)).unwrap_or_default()
    }

    /// The original with other secrets of the same form in it, if there are any: what is said of both texts alike does
    /// not come from the secrets.
    pub fn with_other_secrets(&self, original: &str) -> Option<String> {
        let mut text = String::with_capacity(original.len());
        let mut end = 0;
        for Hole { span, .. } in &self.holes {
            text.push_str(original.get(end..span.start)?);
            text.extend(original.get(span.clone())?.chars().map(another));
            end = span.end;
        }
        text.push_str(original.get(end..)?);
        (text != original).then_some(text)
    }

    /// Blots out of a message what it repeats of the file's secrets, and what looks like one. Of very short ones only
    /// the latter: every message would be full of stars. In `prose`, which does not come from the file, that would tell
    /// which word is the secret.
    pub fn scrub(&self, original: &str, message: &str, prose: bool) -> String {
        let secrets = self.holes.iter().filter_map(|hole| original.get(hole.span.clone()));
        let secrets = secrets.filter(|secret| secret.len() > 3);
        let secrets = secrets.filter(|secret| !prose || secret.chars().all(|c| another(c) == c));
        let message = secrets.fold(message.to_owned(), |message, secret| message.replace(secret, "***"));
        if prose {
            return message;
        }
        Self::new(&message, &[]).text
    }

    /// Line and column, counted from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.offset(offset)];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn offset(&self, offset: usize) -> usize {
        let mut lost = 0;
        for hole in &self.holes {
            if offset <= hole.span.start {
                break;
            }
            let inside = offset.min(hole.span.end) - hole.span.start;
            lost += inside - inside.min(hole.shown);
        }
        let mut shown = offset.saturating_sub(lost).min(self.text.len());
        while !self.text.is_char_boundary(shown) {
            shown -= 1;
        }
        shown
    }
}

/// Another letter or digit of its kind; whatever else has a meaning stays.
fn another(c: char) -> char {
    match c {
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from_u32(u32::from(c) + 1).unwrap_or(c),
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        _ => c,
    }
}

/// Whether a key by this name holds a secret, or was meant to.
fn sounds_secret(key: &str, known: &[String]) -> bool {
    const PARTS: [&str; 8] = ["pass", "pwd", "secret", "token", "credential", "private", "apikey", "api-key"];
    const MEANT: [&str; 3] = ["password", "passphrase", "secret"];
    let key = key.to_ascii_lowercase().replace('_', "-");
    if KEYS.contains(&key.as_str()) {
        return false;
    }
    PARTS.iter().any(|part| key.contains(part))
        || MEANT.iter().any(|word| strsim::osa_distance(&key, word) <= 2)
        || known.iter().any(|word| strsim::osa_distance(&key, word) <= 1)
}

/// The secrets of a text in their order, without overlap.
fn secrets(text: &str, known: &[String]) -> Vec<Range<usize>> {
    let mut found = passwords_in_urls(text);
    found.extend(secret_values(text, known));
    found.sort_by_key(|span| span.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for span in found.into_iter().filter(|span| !span.is_empty()) {
        match apart.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => apart.push(span),
        }
    }
    apart
}

/// What stands between `://user:` and the last `@` of the string.
fn passwords_in_urls(text: &str) -> Vec<Range<usize>> {
    let after_scheme = text.match_indices("://").map(|(at, mark)| at + mark.len());
    let password = |start: usize| {
        let rest = &text[start..];
        let end = rest.find(['"', '\'', '`', '\n']).unwrap_or(rest.len());
        let colon = rest[..end].find([':', '/', '@']).filter(|at| rest[*at..].starts_with(':'))?;
        let at = rest[..end].rfind('@').filter(|at| *at > colon)?;
        Some(start + colon + 1..start + at)
    };
    after_scheme.filter_map(password).collect()
}

/// The values of keys that sound like secrets.
fn secret_values(text: &str, known: &[String]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // In `[sink.x.s3.password]` every key is one, unless it says where the secret is.
    let mut secret_table = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            let last = header.split(']').next().and_then(|path| path.rsplit('.').next()).unwrap_or_default();
            secret_table = sounds_secret(last.trim_matches(|c: char| !is_word(c)), known);
        }
        let mut secret_inline = false;
        for (equals, _) in line.match_indices('=') {
            let key = key_before(&line[..equals]);
            // An even number of quotes: this `=` is not a part of a string.
            let is_key = line[..equals].matches(['"', '\'']).count().is_multiple_of(2);
            let inside = (secret_table || secret_inline) && is_key && !KEYS.contains(&key);
            if !inside && !sounds_secret(key, known) {
                continue;
            }
            let value = line[equals + 1..].trim_start_matches([' ', '\t']);
            if value.starts_with('{') {
                secret_inline = true;
                continue;
            }
            let at = start + equals + 1 + (line.len() - equals - 1 - value.len());
            found.extend(value_of(&text[at..]).map(|span| at + span.start..at + span.end));
        }
        start += line.len();
    }
    found
}

/// The secret at the start of `text`: a string without its quotes, or the rest of the line.
fn value_of(text: &str) -> Option<Range<usize>> {
    let line = text.find(['\n', '\r']).unwrap_or(text.len());
    for quote in ["\"\"\"", "'''"] {
        if let Some(rest) = text.strip_prefix(quote) {
            let end = rest.find(quote).unwrap_or(rest.len());
            return Some(quote.len()..quote.len() + end);
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else { return Some(0..line).filter(|span| !span.is_empty()) };
    let mut escaped = false;
    let close = text[1..line].find(|c: char| {
        let closes = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        closes
    });
    match close {
        // What follows the quote may still be a part of a secret that holds a quote.
        Some(end) if ends_value(&text[end + 2..line]) => Some(1..end + 1),
        _ => Some(1..line),
    }
}

fn ends_value(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with(['#', ',', '}', ']', '`', ')'])
}

fn key_before(text: &str) -> &str {
    let text = text.trim_end().trim_end_matches(['"', '\'']);
    let start =
        text.rfind(|c: char| !is_word(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    text[start..].trim_start_matches('-')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// Where a URL holds a password: in `user:password@`, or in a parameter that sounds like one.
pub fn secret_in_url(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    if let Some(at) = url[start..end].rfind('@')
        && let Some(colon) = url[start..start + at].find(':')
        && colon + 1 < at
    {
        return Some(start + colon + 1..start + at);
    }
    let query = url.find('?')? + 1;
    let mut offset = query;
    for pair in url[query..].split('&') {
        if let Some((key, value)) = pair.split_once('=')
            && !value.is_empty()
            && sounds_secret(key, &[])
        {
            let at = offset + key.len() + 1;
            return Some(at..at + value.len());
        }
        offset += pair.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Masked::new(text, &["key".to_owned()]).text
    }

    #[test]
    fn secrets_are_blotted_out() {
        for (text, expected) in [
            ("password = \"hunter2\"", "password = \"*******\""),
            ("pasword = 'hunter2' # c", "pasword = '*******' # c"),
            ("\"password\"=\"hunter2\"", "\"password\"=\"*******\""),
            ("a.b.password = \"h\\\"2\"", "a.b.password = \"****\""),
            ("password = \"hun\"ter2\"", "password = \"*********"),
            ("password = \"hunter2", "password = \"*******"),
            ("password = hunter2\nx = 1", "password = *******\nx = 1"),
            ("x = { password = \"hunter2\", y = 1 }", "x = { password = \"*******\", y = 1 }"),
            ("password = \"\"\"\nhunter2\n\"\"\"\nx = 1", "password = \"\"\"\n*******\n\"\"\"\nx = 1"),
            ("password = { file = \"/etc/x\" }", "password = { file = \"/etc/x\" }"),
            ("password = { literal = \"hunter2\" }", "password = { literal = \"*******\" }"),
            (
                "[a.password]\nvalue = \"hunter2\"\n[b]\nvalue = \"x\"",
                "[a.password]\nvalue = \"*******\"\n[b]\nvalue = \"x\"",
            ),
            ("url = \"mysql://u:hunter2@h/d\"", "url = \"mysql://u:*******@h/d\""),
            ("url = \"mysql://u:a/b@c d@h/d\"", "url = \"mysql://u:*******@h/d\""),
            ("url = \"mysql://h:3306/d\"", "url = \"mysql://h:3306/d\""),
            ("url = \"s3://b/p@q\"", "url = \"s3://b/p@q\""),
            ("command = [\"x\", \"--password=hunter2\"]", "command = [\"x\", \"--password=*********"),
            ("key = \"hunter2\"", "key = \"*******\""),
            ("keep = \"30d\"", "keep = \"30d\""),
            ("secret-key = \"größe\"", "secret-key = \"*****\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn places_after_a_secret_stay() {
        let text = "x = { password = \"größe\", y = 1 }\r\nz = \"ä\"";
        let masked = Masked::new(text, &[]);
        for mark in ["x =", "y =", "z =", "\"ä\""] {
            let at = text.find(mark).unwrap();
            assert_eq!(&masked.text[masked.map(&(at..at + mark.len()))], mark);
        }
        assert_eq!(masked.position(text.find("y =").unwrap()), (1, 27));
        assert_eq!(masked.position(text.find("\"ä\"").unwrap()), (2, 5));
        assert_eq!(masked.position(text.len()), (2, 8));
    }

    #[test]
    fn passwords_in_urls_are_found() {
        let found = |url: &str| secret_in_url(url).map(|span| url[span].to_owned());
        assert_eq!(found("mysql://u:hunter2@h/d").as_deref(), Some("hunter2"));
        assert_eq!(found("mysql://u:a@b@h").as_deref(), Some("a@b"));
        assert_eq!(found("mysql://u@h/d?ssl=x&password=hunter2").as_deref(), Some("hunter2"));
        for url in ["mysql://u@h:3306/d", "mysql://u:@h", "sqlite:/x", "s3://b/x:y@z", "rsync://h:873/a@b", "u:p@h"] {
            assert_eq!(found(url), None, "{url}");
        }
    }
}
