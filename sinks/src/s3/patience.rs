//! Requests that fail by accident are sent again: the one layer below a bucket that does.
//!
//! It lies under `object_store`, whose own retries are off: they leave out a conditional write whose reply was lost, and
//! a request that timed out after longer than it may be tried again. A caller that writes through it finds out what a refusal
//! means after a lost reply; see [`super::S3::arrived`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::header::{AUTHORIZATION, DATE, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use super::failure;

/// Growing pauses between tries, for so long after the first failure.
#[derive(Debug)]
pub(super) struct Pauses {
    growing: ExponentialBackoff,
    retry_for: Duration,
    until: Option<Instant>,
}

impl Pauses {
    pub(super) fn new(retry_for: Duration) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times()
            .with_jitter()
            .build();
        Self { growing: pauses, retry_for, until: None }
    }

    /// How long to wait after a failure; `None` when it is time to give up.
    pub(super) fn after_failure(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let until = *self.until.get_or_insert_with(|| now + self.retry_for);
        self.growing.next().filter(|pause| now + *pause <= until)
    }
}

/// Makes clients that send again, and notes how far the server's clock is ahead of ours.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    retry_for: Duration,
    ahead: Arc<Mutex<Option<i64>>>,
}

impl Patience {
    pub(super) fn new(retry_for: Duration) -> Self {
        Self { retry_for, ahead: Arc::default() }
    }

    pub(super) fn pauses(&self) -> Pauses {
        Pauses::new(self.retry_for)
    }

    /// Seconds, by the `Date` of the last answer.
    pub(super) fn clock_offset(&self) -> Option<i64> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_clock(&self, response: &HttpResponse) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
        if let Some(date) = date {
            let ahead = date.as_second() - jiff::Timestamp::now().as_second();
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

impl HttpConnector for Patience {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let http = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Patient { http, patience: self.clone() }))
    }
}

#[derive(Debug)]
struct Patient {
    http: HttpClient,
    patience: Patience,
}

#[async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut pauses = self.patience.pauses();
        loop {
            let tried = self.once(request.clone()).await;
            let (accident, what) = match &tried {
                Ok(response) => (is_accident(&request, response.status()), response.status().to_string()),
                Err(error) => (may_pass(error), failure::innermost(error)),
            };
            let Some(pause) = accident.then(|| pauses.after_failure()).flatten() else { return tried };
            tracing::info!("{} {}: {what}; trying again in {pause:.1?}", request.method(), request.uri().path());
            tokio::time::sleep(pause).await;
        }
    }
}

impl Patient {
    async fn once(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Only the store's answers are signed for: a service that gives credentials has a clock of its own.
        let of_store = request.headers().contains_key(AUTHORIZATION);
        let of_object = request.method() == Method::GET && request.uri().query().is_none();
        let response = self.http.execute(request).await?;
        if of_store {
            self.patience.note_clock(&response);
        }
        if of_object && response.status().is_success() {
            return Ok(response);
        }
        // What is not an object is an error or a page of a listing at most. Its end is waited for, so that it can be asked for
        // again.
        let (mut parts, body) = response.into_parts();
        let body = body.bytes().await?;
        // Some answers begin before the server knows how they end:
        // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
        if parts.status.is_success()
            && let Some(code) = failure::code_of_answer(&String::from_utf8_lossy(&body))
        {
            let passes = matches!(code.as_str(), "InternalError" | "SlowDown" | "ServiceUnavailable");
            parts.status = if passes { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// Whether another try may have another answer.
fn is_accident(request: &HttpRequest, status: StatusCode) -> bool {
    let is_conditional = || [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        // Somebody else was writing at that moment; next time it is clear who was first.
        StatusCode::CONFLICT => is_conditional(),
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED | StatusCode::INSUFFICIENT_STORAGE => {
            false
        }
        status => status.is_server_error(),
    }
}

/// Whether the way there may be open again a moment later.
fn may_pass(error: &HttpError) -> bool {
    error.kind() != HttpErrorKind::Decode && !failure::is_about_certificate(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_end_when_it_has_been_tried_for_long_enough() {
        assert_eq!(Pauses::new(Duration::ZERO).after_failure(), None);
        let mut pauses = Pauses::new(Duration::from_hours(1));
        let first: Vec<_> = std::iter::from_fn(|| pauses.after_failure()).take(12).collect();
        assert_eq!(first.len(), 12);
        assert!(first.iter().all(|pause| *pause <= Duration::from_secs(20)), "{first:?}");
        assert!(first[11] > first[0], "{first:?}");
    }

    #[test]
    fn only_accidents_are_tried_again() {
        let request = |name: &str| {
            let request = http::Request::put("http://x/y").header(name, "*");
            request.body(object_store::client::HttpRequestBody::empty()).unwrap()
        };
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_accident(&request("x"), StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 409, 412, 416, 501, 505, 507] {
            assert!(!is_accident(&request("x"), StatusCode::from_u16(status).unwrap()), "{status}");
        }
        assert!(is_accident(&request("if-match"), StatusCode::CONFLICT));
    }
}
