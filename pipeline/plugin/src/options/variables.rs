//! Texts that other programs would expand, and that here would be taken as they are written.

use super::explained::Explained;

/// Why a text that stands for something else is refused, where it is one. Of patterns and commands, which have a use for
/// a `$`, nobody asks.
pub(super) fn in_text(text: &str) -> Option<Explained> {
    let refused = is_reference(text) || has_reference(text) || text.starts_with("sqlite:~");
    refused.then(|| Explained::new("variables and `~` are not expanded here", "write the value itself"))
}

/// The same of a path.
pub(super) fn in_path(text: &str) -> Option<Explained> {
    let home = text.strip_prefix('~').is_some_and(|rest| {
        let account = rest.split('/').next().unwrap_or_default();
        account.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    });
    if home {
        return Some(Explained::new(
            "`~` is not expanded here",
            "write the whole path: cron may run this as somebody else",
        ));
    }
    let first = text.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    (is_reference(first) || has_reference(text)).then(|| {
        Explained::new(
            "variables are not expanded here",
            "write the whole path, or one relative to the directory of this file",
        )
    })
}

/// The same of a secret, whose text is not repeated. One may well hold a `$`: only what is a reference as a whole is
/// refused, or stands in a URL.
pub(super) fn in_secret(text: &str) -> Option<Explained> {
    if is_reference(text) || (text.contains("://") && has_reference(text)) {
        return Some(Explained::new(
            "variables are not expanded here: this would be the secret itself",
            "write { env = \"NAME\" } for an environment variable, or { file = \"...\" }, { credential = \"...\" } or \
             { command = [\"...\"] }",
        ));
    }
    let place = text.starts_with("file:") || ["/run/", "/etc/", "/var/", "@/"].iter().any(|top| text.starts_with(top));
    place.then(|| {
        Explained::new("this is a path, and would be the secret itself", "write { file = \"...\" } around the path")
    })
}

/// All of it stands for something else: `$NAME`, `${NAME}`, `$(program)`, `%NAME%`, `{{ name }}`, `env:NAME`.
fn is_reference(text: &str) -> bool {
    let text = text.trim();
    let inside = |open: &str, close: &str| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    text.strip_prefix('$').is_some_and(is_name)
        || inside("%", "%").is_some_and(is_name)
        || ["env:", "ENV:", "env."].iter().any(|start| text.strip_prefix(start).is_some_and(is_name))
        || [("${", "}"), ("$(", ")"), ("`", "`"), ("{{", "}}"), ("<%", "%>")]
            .iter()
            .any(|(open, close)| inside(open, close).is_some_and(|name| !name.is_empty()))
}

/// `${NAME}` or `{{ name }}` stands somewhere in it.
fn has_reference(text: &str) -> bool {
    let braced = |open: &str, close: &str| {
        text.split(open).skip(1).any(|rest| {
            let name = rest.split_once(close).map(|(name, _)| name.trim().split(":-").next().unwrap_or_default());
            name.is_some_and(|name| {
                name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
            })
        })
    };
    braced("${", "}") || braced("{{", "}}")
}

/// As variables of the environment are called.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_programs_would_expand_is_known() {
        for text in [
            "$DB_PASSWORD",
            "${DB_PASSWORD}",
            "${db:-x}",
            "%DB_PASSWORD%",
            "$(pass show billing)",
            "`pass show billing`",
            "{{ db_password }}",
            "{{DB}}",
            "<%= ENV['DB'] %>",
            "env:DB_PASSWORD",
            "https://hc-ping.com/${ID}",
            "file:///run/secrets/db",
            "/run/secrets/db",
            "@/etc/secret",
        ] {
            assert!(in_secret(text).is_some(), "{text}");
        }
        for text in
            ["pa$$word", "$ecret", "$1$abc$def", "a${x}b", "100%", "%x", "{}", "a{{b}}c", "/base64+text==", "env"]
        {
            assert!(in_secret(text).is_none(), "{text}");
        }
        for text in
            ["~", "~/x", "~backup/x", "$HOME/x", "/${HOME}/x", "/srv/${NAME}.sqlite", "%APPDATA%/x", "{{ root }}/x"]
        {
            assert!(in_path(text).is_some(), "{text}");
        }
        for text in ["/srv/~x", "~Backup of X", "/mnt/$RECYCLE.BIN", "/srv/a$b", "/srv/{x}", "C:\\x", "/srv/100%"] {
            assert!(in_path(text).is_none(), "{text}");
        }
        for text in ["mysql://me@${HOST}/x", "$HOST", "s3://{{ bucket }}/x", "sqlite:~/x"] {
            assert!(in_text(text).is_some(), "{text}");
        }
        for text in ["mysql://me@host/x$y", "a{b}c", "s3://bucket/%20"] {
            assert!(in_text(text).is_none(), "{text}");
        }
    }
}
