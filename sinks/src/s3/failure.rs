//! What the server's answers mean.

use std::error::Error as StdError;

use cdrvault_format::error::{Error, Kind};
use object_store::Error as Store;

/// An error of the store, told so that somebody can act on it. The store's own retries are over: none of these is
/// transient any more.
pub(super) fn told(doing: &str, shown: &str, error: Store) -> Error {
    let chain = chain(&error);
    let code = between(&chain, "<Code>", "</Code>").map(str::to_owned);
    let said = between(&chain, "<Message>", "</Message>").map(str::to_owned);
    let code_is = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    let about_keys = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"];
    let (kind, hint) = if code_is(&["NoSuchBucket"]) {
        (Kind::NotFound, "make the bucket, or correct `url` and `endpoint`")
    } else if code_is(&about_keys)
        || said.as_ref().is_some_and(|said| said.contains("nvalid signature") || said.contains("No such key"))
    {
        (Kind::Denied, "correct `access-key-id` and `secret-access-key`")
    } else if code_is(&["RequestTimeTooSkewed"]) {
        (Kind::Denied, "set the clock of this machine")
    } else if code_is(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"])
        || chain.contains("incorrectly configured region")
        || said.as_ref().is_some_and(|said| said.contains("unexpected scope"))
    {
        (Kind::Config, "correct `region`: the bucket is in another one")
    } else if code_is(&["InvalidObjectState"]) {
        (Kind::Refused, "the object is in an archive: restore it there first, and keep live objects out of archives")
    } else if code_is(&["BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest", "XAmzContentSHA256Mismatch"]) {
        (Kind::Damaged, "the bytes changed on their way: check the network and the memory of this machine")
    } else if code_is(&["QuotaExceeded", "EntityTooLarge", "XMinioStorageFull"]) || chain.contains("507 ") {
        (Kind::NoSpace, "free some space there, or raise the quota")
    } else if matches!(error, Store::PermissionDenied { .. } | Store::Unauthenticated { .. }) {
        (Kind::Denied, "give these credentials the right to list, read and write below the prefix")
    } else if is_about_certificate(&error) {
        (Kind::Denied, "renew the server's certificate, correct `endpoint`, or name its authority in `tls-ca`")
    } else if matches!(error, Store::Precondition { .. } | Store::AlreadyExists { .. }) {
        (Kind::Conflict, "another run writes into this vault; see which, and let only one do it")
    } else if matches!(error, Store::NotFound { .. }) {
        (Kind::NotFound, "")
    } else {
        (Kind::Failed, "what is not delivered stays owed; the next run tries it again")
    };
    let message = match (code, said) {
        (Some(code), Some(said)) => format!("cannot {doing} {shown}: {said} ({code})"),
        (Some(code), None) => format!("cannot {doing} {shown}: {code}"),
        (None, _) => format!("cannot {doing} {shown}: {}", innermost(&error)),
    };
    let made = Error::new(kind, message);
    if hint.is_empty() { made } else { made.hint(hint) }
}

/// No other try has another outcome.
pub(super) fn is_about_certificate(error: &(dyn StdError + 'static)) -> bool {
    let text = chain(error).to_lowercase();
    ["certificate", "unknownissuer", "notvalidforname"].iter().any(|word| text.contains(word))
}

/// The innermost causes say most: `connection refused` rather than `error sending request`.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        cause = error.source();
        if cause.is_none() {
            texts.push(text);
        }
    }
    let text = texts.pop().unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The code of an answer that is nothing but an error.
pub(super) fn code_of_answer(text: &str) -> Option<String> {
    let text = text.trim_start();
    let text = if text.starts_with("<?") { text.split_once("?>")?.1.trim_start() } else { text };
    let is_error = text.starts_with("<Error>") || text.starts_with("<Error ");
    between(text, "<Code>", "</Code>").filter(|_| is_error).map(str::to_owned)
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_no_answer() {
        let source = "<Error><Code>InternalError</Code><Message>Oops: microscope/day</Message></Error>".into();
        let error = told("write", "s3://b/microscope", Store::Generic { store: "S3", source });
        assert_eq!(error.kind(), Kind::Failed);
        assert_eq!(error.message(), "cannot write s3://b/microscope: Oops: microscope/day (InternalError)");
    }

    #[test]
    fn an_answer_may_be_an_error_although_its_status_is_none() {
        let text = "\n<?xml version=\"1.0\"?>\n <Error><Code>SlowDown</Code></Error>";
        assert_eq!(code_of_answer(text).as_deref(), Some("SlowDown"));
        assert_eq!(code_of_answer("<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>"), None);
        assert_eq!(code_of_answer(""), None);
    }
}
