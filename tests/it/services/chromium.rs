//! Debian's Chromium, without a window, led by its WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::{leftovers, places};

/// A browser with one page, which ends with this value.
pub struct Chromium {
    _daemon: Daemon,
    runtime: Runtime,
    client: reqwest::Client,
    session: String,
    directory: TempDir,
}

impl Chromium {
    pub fn start() -> Self {
        leftovers::sweep();
        let driver = places::program("chromedriver", "chromium-driver");
        let binary = places::program("chromium", "chromium");
        let directory = tempfile::Builder::new().prefix("cdrvault-chromium-").tempdir().expect("a temporary directory");
        let (daemon, port) = Daemon::on_free_port(|port| {
            let mut command = Command::new(&driver);
            command
                .arg(format!("--port={port}"))
                .arg(format!("--log-path={}", directory.path().join("driver").display()))
                .env("HOME", directory.path());
            Daemon::start(&mut command, directory.path(), "started successfully")
        });
        let runtime = Runtime::new().expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut started =
            Self { _daemon: daemon, runtime, client, session: format!("http://127.0.0.1:{port}/session"), directory };
        // Tests may be root's, whom Chromium's sandbox refuses; and a browser has much to tell its maker.
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", started.directory.path().join("profile").display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": binary, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let made = started.post("", &wanted);
        started.session = format!("{}/{}", started.session, made["sessionId"].as_str().expect("a session"));
        started
    }

    /// One command; its value.
    fn post(&self, command: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{command}", self.session));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let text = self.runtime.block_on(async { request.send().await?.text().await }).expect("chromedriver answers");
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{command}: {value}");
        value
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What the page looks like from now on: the width of the screen, and the media features.
    pub fn look(&self, width: u32, media: &str, scheme: &str) {
        let screen = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &screen);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"media": media, "features": features}));
    }

    pub fn open(&self, page: &Path) {
        self.post("/url", &json!({"url": format!("file://{}", page.display())}));
    }

    /// The value that a script returns.
    pub fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// What the console has been told since it was last asked for, and the addresses that were asked for.
    pub fn logs(&self) -> (Vec<String>, Vec<String>) {
        let of = |kind: &str| {
            let lines = self.post("/se/log", &json!({"type": kind}));
            let lines = lines.as_array().expect("a list").clone();
            lines.into_iter().map(|line| line["message"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
        };
        let requests = of("performance").into_iter().filter_map(|line| {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            let (method, parameters) = (&event["message"]["method"], &event["message"]["params"]);
            // The browser's own start page is another document.
            let own = parameters["documentURL"].as_str().is_some_and(|page| page.starts_with("chrome://"));
            let request = method == "Network.requestWillBeSent" && !own;
            request.then(|| parameters["request"]["url"].as_str().expect("an address").to_owned())
        });
        (of("browser"), requests.collect())
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&self, file: &Path) {
        let taken = self.devtools("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        save(&taken["data"], file);
    }

    /// The page as it is printed on A4, as PDF.
    pub fn print(&self, file: &Path) {
        let paper = json!({"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": false});
        save(&self.devtools("Page.printToPDF", &paper)["data"], file);
    }
}

fn save(base64: &Value, file: &Path) {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64.as_str().expect("data")).expect("base64");
    std::fs::write(file, bytes).expect("a writable directory");
}
