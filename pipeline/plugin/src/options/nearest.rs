//! What was probably meant.

/// The known name that is most like this one, if any is like it at all.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let name = plain(name);
    let tolerance = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate);
            let distance = strsim::osa_distance(&name, &other);
            // `compress` for `compression`, `Rome` for `Europe/Rome`
            let part = name.len() >= 4 && (other.starts_with(&name) || other.ends_with(&format!("/{name}")));
            (distance <= tolerance || part).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The help for a name that is not known: the nearest one, or all of them. `what` is their plural.
pub fn did_you_mean(name: &str, known: &[&str], what: &str) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => format!("there are no {what}"),
        None => format!("the {what} are {}", listed(known)),
    }
}

/// `a`, `b`, `c`
pub fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["timezone", "workers", "min-free", "compression", "Europe/Rome"];
        for (name, meant) in [
            ("timezome", Some("timezone")),
            ("time-zone", Some("timezone")),
            ("min_free", Some("min-free")),
            ("Workers", Some("workers")),
            ("compress", Some("compression")),
            ("Rome", Some("Europe/Rome")),
            ("keep", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
    }
}
