//! The requests that `object_store` does not know, or not as buckets with object lock want them: everything that is
//! written or removed, the checksum that the server keeps, and unfinished uploads.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{Error, PutMode, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

/// Sends requests of our own with the credentials of a client.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) http: HttpClient,
    pub(super) store: AmazonS3,
    pub(super) region: String,
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a Path,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'a str, String)],
    pub(super) body: Bytes,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, path: &'a Path) -> Self {
        Self { method, path, query: &[], headers: &[], body: Bytes::new() }
    }
}

/// The answer to one that was granted.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// The SHA-256 that the server computed of what it now holds, if it is one of all bytes.
    pub(super) fn kept(&self) -> Option<String> {
        self.header(KEPT).and_then(|text| kept(&text)).filter(|kept| !kept.of_parts).map(|kept| kept.sha256)
    }

    pub(super) fn xml<T: DeserializeOwned>(&self) -> Result<T> {
        quick_xml::de::from_str(&String::from_utf8_lossy(&self.body)).map_err(failed)
    }
}

/// Headers that have the server check what it gets. A bucket with object lock wants the second one:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>
pub(super) fn checksum(sha256: &[u8]) -> [(&'static str, String); 2] {
    [(KEPT, STANDARD.encode(sha256)), ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned())]
}

/// The header under whose condition something is written.
pub(super) fn condition(mode: &PutMode) -> Option<(&'static str, String)> {
    match mode {
        PutMode::Overwrite => None,
        PutMode::Create => Some(("if-none-match", "*".to_owned())),
        PutMode::Update(version) => version.e_tag.clone().map(|tag| ("if-match", tag)),
    }
}

/// What a HEAD tells of an object.
pub(super) struct Head {
    kept: Option<Kept>,
    /// The SHA-256 of its bytes, and of the SHA-256 of its parts, that we noted at the beginning of the upload.
    noted: Option<String>,
    noted_of_parts: Option<String>,
    pub(super) tag: Option<String>,
}

/// The SHA-256 that the server computed while an object was uploaded, in hex.
struct Kept {
    sha256: String,
    /// It is that of the SHA-256 of its parts.
    of_parts: bool,
}

impl Head {
    /// What the server computed, whatever of.
    pub(super) fn kept(&self) -> Option<&str> {
        self.kept.as_ref().map(|kept| kept.sha256.as_str())
    }

    /// The SHA-256 of the bytes, if the server vouches for it. A note alone does not count: it was written before the bytes.
    pub(super) fn sha256(&self) -> Option<&str> {
        let kept = self.kept.as_ref()?;
        match &self.noted {
            Some(noted) if *noted == kept.sha256 || self.noted_of_parts.as_ref() == Some(&kept.sha256) => Some(noted),
            Some(_) => None,
            None if kept.of_parts => None,
            None => Some(&kept.sha256),
        }
    }
}

/// What the server is to compute and compare when it gets something, and what it tells afterwards.
const KEPT: &str = "x-amz-checksum-sha256";

/// Where we note what an object that is uploaded in parts will be.
pub(super) const NOTE: &str = "x-amz-meta-cdrvault-sha256";
pub(super) const NOTE_OF_PARTS: &str = "x-amz-meta-cdrvault-sha256-of-parts";

/// An upload that was never finished.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Unfinished {
    pub(super) key: String,
    pub(super) upload_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(rename = "Upload", default)]
    found: Vec<Unfinished>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

impl Raw {
    /// What the server keeps of an object; `None` where there is none. Fails where the server does not like the question.
    pub(super) async fn head(&self, path: &Path) -> Result<Option<Head>> {
        let headers = [("x-amz-checksum-mode", "ENABLED".to_owned())];
        let answer = match self.ask(Ask { headers: &headers, ..Ask::new(Method::HEAD, path) }).await {
            Ok(answer) => answer,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Head {
            kept: answer.header(KEPT).and_then(|text| kept(&text)),
            noted: answer.header(NOTE),
            noted_of_parts: answer.header(NOTE_OF_PARTS),
            tag: answer.header("etag"),
        }))
    }

    /// The uploads below a prefix that were begun and neither finished nor aborted.
    pub(super) async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut url = self.url(&Path::from("x")).await?;
            let root = url.path().strip_suffix("/x").unwrap_or("").to_owned();
            url.set_path(if root.is_empty() { "/" } else { &root });
            if let Some((key, upload)) = &marker {
                url.query_pairs_mut().append_pair("key-marker", key);
                url.query_pairs_mut().append_pair("upload-id-marker", upload);
            }
            url.query_pairs_mut().append_pair("prefix", prefix).append_pair("uploads", "");
            let page: Uploads = self.send(Method::GET, &url, &[], Bytes::new()).await?.xml()?;
            found.extend(page.found);
            let next = (page.next_key_marker, page.next_upload_id_marker);
            // A server that gives the same page for ever is not listened to for ever.
            if !page.is_truncated || next.0.is_empty() || marker.as_ref() == Some(&next) {
                return Ok(found);
            }
            marker = Some(next);
        }
    }

    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer> {
        let mut url = self.url(ask.path).await?;
        for (name, value) in ask.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        self.send(ask.method, &url, ask.headers, ask.body).await
    }

    /// The address of an object, as the client would write it: that of a signed one, without its signature.
    async fn url(&self, path: &Path) -> Result<Url> {
        let mut url = self.store.signed_url(Method::HEAD, path, Duration::from_mins(1)).await?;
        url.set_query(None);
        Ok(url)
    }

    async fn send(&self, method: Method, url: &Url, headers: &[(&str, String)], body: Bytes) -> Result<Answer> {
        let credential = self.store.credentials().get_credential().await?;
        let mut request = http::Request::builder().method(method).uri(url.as_str());
        request = request.header(http::header::CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request: HttpRequest = request.body(body.into()).map_err(failed)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let response = self.http.execute(request).await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().bytes().await.map_err(failed)?;
        if status.is_success() { Ok(Answer { headers, body }) } else { Err(refused(status, url, &body)) }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "S3", source: Box::new(error) }
}

/// The error that `object_store` would make of this answer.
fn refused(status: StatusCode, url: &Url, body: &[u8]) -> Error {
    let said = String::from_utf8_lossy(body);
    let source = if said.trim().is_empty() { status.to_string() } else { said.into_owned() }.into();
    let path = url.path().to_owned();
    match status {
        StatusCode::NOT_FOUND => Error::NotFound { path, source },
        StatusCode::PRECONDITION_FAILED => Error::Precondition { path, source },
        StatusCode::CONFLICT => Error::AlreadyExists { path, source },
        StatusCode::FORBIDDEN => Error::PermissionDenied { path, source },
        StatusCode::UNAUTHORIZED => Error::Unauthenticated { path, source },
        StatusCode::NOT_IMPLEMENTED => {
            Error::NotImplemented { operation: source.to_string(), implementer: "the server".to_owned() }
        }
        _ => Error::Generic { store: "S3", source },
    }
}

/// `BASE64` of an object that was sent at once, `BASE64-N` of one that was sent in N parts; some leave the `-N` out.
fn kept(text: &str) -> Option<Kept> {
    let (digest, of_parts) = text.split_once('-').map_or((text, false), |(digest, _)| (digest, true));
    let bytes = STANDARD.decode(digest).ok().filter(|bytes| bytes.len() == 32)?;
    Some(Kept { sha256: hex::encode(bytes), of_parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_base64() {
        // SHA-256 of nothing.
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(kept(text).map(|kept| (kept.sha256, kept.of_parts)), Some((hex.to_owned(), false)));
        assert_eq!(kept(&format!("{text}-3")).map(|kept| (kept.sha256, kept.of_parts)), Some((hex.to_owned(), true)));
        for odd in ["", "AAAA", "nothing"] {
            assert!(kept(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn a_note_is_believed_only_with_the_checksum_of_the_same_upload() {
        let head = |kept: Option<(&str, bool)>, noted: Option<&str>, noted_of_parts: Option<&str>| Head {
            kept: kept.map(|(sha256, of_parts)| Kept { sha256: sha256.to_owned(), of_parts }),
            noted: noted.map(str::to_owned),
            noted_of_parts: noted_of_parts.map(str::to_owned),
            tag: None,
        };
        let parts = Some(("parts", true));
        for (head, sha256) in [
            (head(Some(("whole", false)), None, None), Some("whole")),
            (head(parts, Some("whole"), Some("parts")), Some("whole")),
            (head(Some(("parts", false)), Some("whole"), Some("parts")), Some("whole")),
            // A copy at once of what was sent in parts has the checksum of the whole.
            (head(Some(("whole", false)), Some("whole"), Some("parts")), Some("whole")),
            (head(Some(("others", true)), Some("whole"), Some("parts")), None),
            (head(parts, Some("whole"), None), None),
            (head(parts, None, None), None),
            (head(None, Some("whole"), Some("parts")), None),
        ] {
            assert_eq!(head.sha256(), sha256);
        }
    }
}
