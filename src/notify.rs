//! Those who want to hear how a run went hear it: by a ping, a webhook, or a program. None of them can make a run fail.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use cdrvault_engine::config::{Notify, NotifyOn, Pipeline};
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::options::{Command, Secret};
use cdrvault_plugin::program::Program;
use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::globals::Globals;
use crate::output;

/// What a webhook and a command are told.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Message<'a, T> {
    event: NotifyOn,
    pipeline: &'a str,
    host: String,
    at: jiff::Timestamp,
    /// One human-readable line.
    summary: &'a str,
    #[serde(flatten)]
    details: &'a T,
}

/// Tells everybody whom the pipeline names. What goes wrong is a warning.
pub(crate) async fn tell<T: Serialize>(
    pipeline: &Pipeline,
    event: NotifyOn,
    summary: &str,
    details: &T,
    globals: &Globals,
) {
    tell_and_ping(pipeline, event, Some(event), summary, details, globals).await;
}

/// The same, where the ping says something else, or nothing: that a run went well does not end an alarm.
pub(crate) async fn tell_and_ping<T: Serialize>(
    pipeline: &Pipeline,
    event: NotifyOn,
    pinged: Option<NotifyOn>,
    summary: &str,
    details: &T,
    globals: &Globals,
) {
    let Some(notify) = &pipeline.notify else { return };
    let told = async {
        let message = Message {
            event,
            pipeline: &pipeline.name,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            at: jiff::Timestamp::now(),
            summary,
            details,
        };
        let json = output::json_line(&message)?;
        let wanted = notify.on.contains(&event);
        let ping = async {
            match notify.ping.as_ref().zip(pinged) {
                Some((url, pinged)) => ping(notify, url, pinged, summary).await.map_err(|error| error.at("ping")),
                None => Ok(()),
            }
        };
        let webhook = async {
            match notify.webhook.as_ref().filter(|_| wanted) {
                Some(url) => post(notify, url, "", JSON, json.clone()).await.map_err(|error| error.at("webhook")),
                None => Ok(()),
            }
        };
        let command = async {
            match notify.command.as_ref().filter(|_| wanted) {
                Some(command) => run(command, &json, notify.timeout).await.map_err(|error| error.at("command")),
                None => Ok(()),
            }
        };
        let (ping, webhook, command) = tokio::join!(ping, webhook, command);
        // Other events do not say that a run succeeded.
        let unharmed = if event == NotifyOn::Success { "; the run itself succeeded" } else { "" };
        for error in [ping.err(), webhook.err(), command.err()].into_iter().flatten() {
            output::warning(globals, &format!("the notification could not be sent: {}{unharmed}", error.one_line()));
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = told.await {
        output::warning(globals, &error.one_line());
    }
}

const JSON: &str = "application/json";

/// As healthchecks.io and its like want it: the path says what happened, and the body is kept for a person to read.
async fn ping(notify: &Notify, url: &Secret, event: NotifyOn, summary: &str) -> Result<()> {
    let path = match event {
        NotifyOn::Start => "/start",
        NotifyOn::Success => "",
        NotifyOn::Partial | NotifyOn::Failure | NotifyOn::Overdue | NotifyOn::Damage | NotifyOn::Data => "/fail",
    };
    post(notify, url, path, "text/plain; charset=utf-8", summary.to_owned()).await
}

/// How often a request is made again when the network or the server fails, within the time that it has.
const AGAIN: usize = 3;

async fn post(notify: &Notify, url: &Secret, path: &str, kind: &str, body: String) -> Result<()> {
    let secret = url.clone();
    let base = tokio::task::spawn_blocking(move || secret.resolve())
        .await
        .map_err(|error| Error::failed("cannot look its URL up").with_source(error))??;
    // No error may show the URL: it is all that somebody needs to send pings in our name.
    let unfit = |error: reqwest::Error| Error::failed("the request failed").with_source(error.without_url());
    let client = Client::builder()
        .user_agent(concat!("cdrvault/", env!("CARGO_PKG_VERSION")))
        .timeout(notify.timeout)
        .build()
        .map_err(unfit)?;
    let mut target = target(&base)?;
    if !path.is_empty() {
        target.set_path(&format!("{}{path}", target.path().trim_end_matches('/')));
    }
    let send = || async {
        let request = client.request(Method::POST, target.clone()).header("content-type", kind).body(body.clone());
        request.send().await?.error_for_status()
    };
    let passing =
        |error: &reqwest::Error| error.status().is_none_or(|status| status.is_server_error() || status.as_u16() == 429);
    let trying = send.retry(ExponentialBuilder::default().with_max_times(AGAIN).with_jitter()).when(passing);
    match tokio::time::timeout(notify.timeout, trying).await {
        Ok(sent) => sent.map(drop).map_err(unfit),
        Err(_) => Err(too_slow(notify.timeout)),
    }
}

/// The URL that a secret holds.
pub(crate) fn target(secret: &SecretString) -> Result<reqwest::Url> {
    reqwest::Url::parse(secret.expose_secret())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| Error::failed("its secret is not a URL of http or https"))
}

fn too_slow(timeout: Duration) -> Error {
    Error::failed(format!("it took longer than {} s", timeout.as_secs()))
}

async fn run(command: &Command, json: &str, timeout: Duration) -> Result<()> {
    let mut program = Program::new(&command.program).args(&command.arguments).input(json.as_bytes().to_vec());
    if output::speaks_json() {
        // Where every line is JSON, those of others have no place.
        program = program.with_complaints();
    }
    // It is told that a run was stopped, too: so being asked to stop does not end it.
    let never = CancellationToken::new();
    let outcome = program.at_most(0).limit(timeout).leaves_children().run_unless(&never).await?;
    if outcome.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("{command} ended with {}", outcome.status)))
}
