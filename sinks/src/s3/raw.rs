//! The requests that `object_store` does not know: the checksum that the server keeps, and unfinished uploads.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdrvault_pipeline::error::{Error, Result};
use http::{Method, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer as _;
use serde::Deserialize;
use url::Url;

use super::failure;

/// Sends requests of our own with the credentials of a client.
#[derive(Debug)]
pub(super) struct Raw {
    http: HttpClient,
    region: String,
}

/// What a HEAD tells of an object.
pub(super) struct Head {
    /// What the server computed while it was uploaded, in hex: SHA-256 of its bytes, or of the SHA-256 of its parts.
    pub(super) kept: Option<String>,
    /// The SHA-256 that we noted at the beginning of the upload.
    pub(super) noted: Option<String>,
    pub(super) tag: Option<String>,
}

/// Where we note the SHA-256 of an object that is uploaded in parts.
pub(super) const NOTE: &str = "cdrvault-sha256";

/// An upload that was never finished.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
}

#[derive(Debug, Deserialize)]
struct Uploads {
    #[serde(rename = "Upload", default)]
    uploads: Vec<Upload>,
}

impl Raw {
    pub(super) fn new(options: &ClientOptions, region: &str) -> Result<Self> {
        let http = ReqwestConnector::default()
            .connect(options)
            .map_err(|error| Error::failed("cannot prepare HTTP requests").with_source(error))?;
        Ok(Self { http, region: region.to_owned() })
    }

    /// What the server keeps of an object; `None` where there is none. Fails where the server does not like the question.
    pub(super) async fn head(&self, store: &AmazonS3, path: &Path) -> Result<Option<Head>> {
        let url = self.url(store, path).await?;
        let request = http::Request::head(url.as_str()).header("x-amz-checksum-mode", "ENABLED");
        let response = self.send(store, request).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => {
                return Err(Error::failed(format!("the server answered {status} when it was asked for a checksum")));
            }
            _ => {}
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        Ok(Some(Head {
            kept: header("x-amz-checksum-sha256").and_then(|text| kept(&text)),
            noted: header(&format!("x-amz-meta-{NOTE}")),
            tag: header("etag"),
        }))
    }

    /// The uploads below a prefix that were begun and neither finished nor aborted.
    pub(super) async fn unfinished(&self, store: &AmazonS3, prefix: &str) -> Result<Vec<Upload>> {
        let object = self.url(store, &Path::from("x")).await?;
        let mut url = object;
        let root = url.path().strip_suffix("/x").unwrap_or("").to_owned();
        url.set_path(if root.is_empty() { "/" } else { &root });
        url.query_pairs_mut().append_pair("prefix", prefix).append_pair("uploads", "");
        let response = self.send(store, http::Request::get(url.as_str())).await?;
        let status = response.status();
        let body = response.into_body().bytes().await;
        let body = body.map_err(|error| Error::failed("cannot list unfinished uploads").with_source(error))?;
        if !status.is_success() {
            return Err(Error::failed(format!(
                "the server answered {status} when it was asked for unfinished uploads"
            )));
        }
        let text = String::from_utf8_lossy(&body);
        let uploads: Uploads = quick_xml::de::from_str(&text)
            .map_err(|error| Error::failed("the list of unfinished uploads is no XML").with_source(error))?;
        Ok(uploads.uploads)
    }

    /// The address of an object, as the client would write it: that of a signed one, without its signature.
    async fn url(&self, store: &AmazonS3, path: &Path) -> Result<Url> {
        let signed = store.signed_url(Method::HEAD, path, Duration::from_mins(1)).await;
        let mut url = signed.map_err(|error| failure::told("find", path.as_ref(), error))?;
        url.set_query(None);
        Ok(url)
    }

    async fn send(
        &self,
        store: &AmazonS3,
        request: http::request::Builder,
    ) -> Result<http::Response<object_store::client::HttpResponseBody>> {
        let credential = store.credentials().get_credential().await;
        let credential = credential.map_err(|error| failure::told("get credentials for", "the bucket", error))?;
        let mut request: HttpRequest = request
            .body(HttpRequestBody::empty())
            .map_err(|error| Error::failed("cannot write an HTTP request").with_source(error))?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let sent = self.http.execute(request).await;
        sent.map_err(|error| Error::failed("the server did not answer").with_source(error))
    }
}

/// `BASE64` of an object that was sent at once, `BASE64-N` of one that was sent in N parts; some leave the `-N` out.
fn kept(text: &str) -> Option<String> {
    let digest = text.split_once('-').map_or(text, |(digest, _)| digest);
    STANDARD.decode(digest).ok().filter(|bytes| bytes.len() == 32).map(hex::encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_base64() {
        // SHA-256 of nothing.
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(kept(text).as_deref(), Some(hex));
        assert_eq!(kept(&format!("{text}-3")).as_deref(), Some(hex));
        for odd in ["", "AAAA", "nothing"] {
            assert_eq!(kept(odd), None, "{odd}");
        }
    }
}
