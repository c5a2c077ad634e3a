//! Text that others wrote, made fit for terminals, logs and mails.
//!
//! A server's message, the name of a column or of a file may hold anything: escape sequences that move the cursor or change the
//! title of a window, line ends that begin what looks like a message of ours, and marks that turn the direction of
//! writing. Such characters are shown as escapes of Rust, as `\n` and `\u{1b}`.

use std::borrow::Cow;

/// On one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_odd)
}

/// With its line ends and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| is_odd(letter) && !matches!(letter, '\n' | '\t'))
}

fn escaped(text: &str, is_odd: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_odd(letter) { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    Cow::Owned(out)
}

/// Control characters, separators of lines, and what turns the direction of writing.
/// <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>
fn is_odd(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_text_is_left() {
        assert!(matches!(line("Übertragung `x` 日本 \u{1f600}"), Cow::Borrowed(_)));
        assert_eq!(
            line("a\u{1b}[2J\r\nerror: b\t\u{9b}31m\0\u{7f}"),
            "a\\u{1b}[2J\\r\\nerror: b\\t\\u{9b}31m\\u{0}\\u{7f}"
        );
        assert_eq!(line("x\u{202e}y\u{2028}z"), "x\\u{202e}y\\u{2028}z");
        assert_eq!(lines("a\n\tb\u{1b}c\r\n"), "a\n\tb\\u{1b}c\\r\n");
    }
}
