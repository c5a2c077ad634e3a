//! What rsync prints, a file a line.

use std::time::SystemTime;

/// The file of a line of `--itemize-changes`, if its bytes travel: `<f+++++++++ ar_cdr/day=2026-01-15/...`
pub(super) fn transferred(line: &str) -> Option<&str> {
    let (change, name) = line.split_once(' ')?;
    (change.starts_with(['<', '>']) && change.as_bytes().get(1) == Some(&b'f')).then_some(name)
}

/// Whether the bytes of a file differ, when it was written, and its name:
/// `.f..t...... 2026/01/15-03:00:00 .cdrvault/manifests/ar_cdr/2026-01-15/g0001.json`
pub(super) fn dated(line: &str) -> Option<(bool, SystemTime, &str)> {
    let (change, rest) = line.split_at_checked(11)?;
    let (time, name) = rest.strip_prefix(' ')?.split_once(' ')?;
    let time = jiff::civil::DateTime::strptime("%Y/%m/%d-%H:%M:%S", time).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    (change.as_bytes().get(1) == Some(&b'f')).then(|| (change.starts_with(['<', '>']), time.into(), name))
}

/// `-rw-------          9,123 2026/01/15 03:00:00 ar_cdr/day=2026-01-15/ar_cdr-2026-01-15.parquet`
pub(super) fn listed(line: &str) -> Option<(String, Option<u64>)> {
    let mut rest = line.strip_prefix('-')?;
    let mut word = || {
        rest = rest.trim_start();
        let (word, after) = rest.split_once(' ')?;
        rest = after;
        Some(word)
    };
    let _mode = word()?;
    let length: String = word()?.chars().filter(char::is_ascii_digit).collect();
    let (_date, _time) = (word()?, word()?);
    Some((rest.to_owned(), length.parse().ok()))
}

/// What rsync writes before it renames it: `.NAME.XXXXXX`. One that was killed leaves it.
pub(super) fn is_leftover(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let Some((stem, end)) = file.strip_prefix('.').and_then(|file| file.rsplit_once('.')) else { return false };
    end.len() == 6 && end.bytes().all(|byte| byte.is_ascii_alphanumeric()) && stem.contains('.')
        || end.len() == 6 && end.bytes().all(|byte| byte.is_ascii_alphanumeric()) && stem.len() == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_comparison_are_dated() {
        let at = |second| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
        let same = dated(".f..t...... 2026/01/15-03:00:00 a/g0001.json");
        assert_eq!(same, Some((false, at(1_768_446_000), "a/g0001.json")));
        assert_eq!(
            dated(".f          2026/01/15-03:00:00 a b").map(|(differs, _, name)| (differs, name)),
            Some((false, "a b"))
        );
        assert_eq!(dated(">fcst...... 2026/01/15-03:00:00 x").map(|(differs, ..)| differs), Some(true));
        assert_eq!(dated("cd+++++++++ 2026/01/15-03:00:00 a/"), None);
        assert_eq!(transferred("<f+++++++++ a/b c"), Some("a/b c"));
        assert_eq!(transferred(".f..t...... a"), None);
    }

    #[test]
    fn lines_of_a_listing_are_files() {
        let line = "-rw-r--r--      1,234,567 2026/01/15 03:00:00 ar_cdr/day=2026-01-15/ar_cdr-2026-01-15.parquet";
        let name = "ar_cdr/day=2026-01-15/ar_cdr-2026-01-15.parquet".to_owned();
        assert_eq!(listed(line), Some((name, Some(1_234_567))));
        assert_eq!(listed("drwxr-xr-x          4,096 2026/01/15 03:00:00 ar_cdr"), None);
    }

    #[test]
    fn temporary_files_of_rsync_are_known() {
        let sha = "ab".repeat(32);
        for name in ["a/.ar_cdr-2026-01-15.parquet.Xy12Zb", ".cdrvault/.vault.json.abcdef"] {
            assert!(is_leftover(name), "{name}");
        }
        assert!(is_leftover(&format!(".cdrvault/objects/ab/.{sha}.abcdef")));
        for name in ["a/ar_cdr-2026-01-15.parquet", ".cdrvault/vault.json", ".cdrvault/lock", "a/.profile"] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
