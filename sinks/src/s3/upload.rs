//! An object in parts, sent or copied by the server, which is there when the last of them is, and a condition holds.

use bytes::Bytes;
use http::Method;
use object_store::path::Path;
use object_store::{Error, PutMode, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::escape::escape;
use serde::Deserialize;

use super::raw::{Ask, Raw, checksum, condition};

/// One that was begun.
pub(super) struct Upload<'a> {
    raw: &'a Raw,
    path: &'a Path,
    id: String,
}

/// What the end of an upload says of one of its parts.
pub(super) struct Part {
    number: String,
    tag: String,
    sha256: Option<String>,
}

/// What is copied.
pub(super) struct Source<'a> {
    pub(super) bucket: &'a str,
    pub(super) path: &'a Path,
    /// Only if it still is this.
    pub(super) tag: Option<&'a str>,
}

impl Source<'_> {
    // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html>
    fn headers(&self) -> Vec<(&'static str, String)> {
        const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let from = format!("{}/{}", self.bucket, utf8_percent_encode(self.path.as_ref(), IN_PATHS));
        let tag = self.tag.map(|tag| ("x-amz-copy-source-if-match", tag.to_owned()));
        [("x-amz-copy-source", from)].into_iter().chain(tag).collect()
    }

    /// Has the server copy all of it in one request, which copies 5 GB at most.
    pub(super) async fn copy_at_once(&self, raw: &Raw, to: &Path, encryption: &[(&'static str, String)]) -> Result<()> {
        let mut headers = self.headers();
        // That of no body. Where there is object lock, this request may be asked for it, too.
        headers.push(("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==".to_owned()));
        headers.extend(encryption.iter().cloned());
        raw.ask(Ask { headers: &headers, ..Ask::new(Method::PUT, to) }).await.map(drop)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Copied {
    #[serde(rename = "ETag")]
    tag: String,
}

impl<'a> Upload<'a> {
    pub(super) async fn begin(raw: &'a Raw, path: &'a Path, headers: &[(&str, String)]) -> Result<Self> {
        let ask = Ask { query: &[("uploads", "")], headers, ..Ask::new(Method::POST, path) };
        let Begun { upload_id } = raw.ask(ask).await?.xml()?;
        Ok(Self { raw, path, id: upload_id })
    }

    /// Sends a part; they count from 1. The upload was begun with `x-amz-checksum-algorithm: SHA256`.
    pub(super) async fn send(&self, number: usize, content: Bytes, sha256: &[u8]) -> Result<Part> {
        let (number, checksum) = (number.to_string(), checksum(sha256));
        let ask = Ask {
            query: &[("partNumber", &number), ("uploadId", &self.id)],
            headers: &checksum,
            body: content,
            ..Ask::new(Method::PUT, self.path)
        };
        let tag = self.raw.ask(ask).await?.header("etag").ok_or_else(|| untagged(&number))?;
        let [(_, sha256), _] = checksum;
        Ok(Part { number, tag, sha256: Some(sha256) })
    }

    /// Has the server copy a part from another object: the bytes from `first` to `last`, inclusive.
    pub(super) async fn copy(&self, number: usize, source: &Source<'_>, first: u64, last: u64) -> Result<Part> {
        let number = number.to_string();
        let mut headers = source.headers();
        headers.push(("x-amz-copy-source-range", format!("bytes={first}-{last}")));
        let ask = Ask {
            query: &[("partNumber", &number), ("uploadId", &self.id)],
            headers: &headers,
            ..Ask::new(Method::PUT, self.path)
        };
        let Copied { tag } = self.raw.ask(ask).await?.xml()?;
        Ok(Part { number, tag, sha256: None })
    }

    /// Makes the object of these parts, in their order.
    pub(super) async fn complete(&self, parts: &[Part], mode: &PutMode) -> Result<()> {
        let mut text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
        for part in parts {
            text.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>", part.number, escape(&part.tag)));
            if let Some(sha256) = &part.sha256 {
                text.push_str(&format!("<ChecksumSHA256>{sha256}</ChecksumSHA256>"));
            }
            text.push_str("</Part>");
        }
        text.push_str("</CompleteMultipartUpload>");
        let condition = condition(mode);
        let ask = Ask {
            query: &[("uploadId", &self.id)],
            headers: condition.as_slice(),
            body: text.into(),
            ..Ask::new(Method::POST, self.path)
        };
        self.raw.ask(ask).await.map(drop)
    }

    /// Gives it up. What it would leave behind costs money for ever; what this leaves, the next run aborts.
    pub(super) async fn abort(&self) {
        let ask = Ask { query: &[("uploadId", &self.id)], ..Ask::new(Method::DELETE, self.path) };
        if let Err(error) = self.raw.ask(ask).await {
            tracing::debug!("cannot abort the upload of {}: {error}", self.path);
        }
    }
}

fn untagged(number: &str) -> Error {
    Error::Generic { store: "S3", source: format!("the server gave part {number} no ETag").into() }
}
