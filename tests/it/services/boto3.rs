//! An S3 client that is not ours: boto3, in the Python environment that `./test` makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::python::python;

/// What a script finds when it starts. Nothing is tried twice: what a server says the first time is what counts.
const PRELUDE: &str = r#"
import sys
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
endpoint, region, key, secret = sys.argv[1:]
config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
s3 = boto3.client("s3", endpoint_url=endpoint, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret,
                  config=config)
"#;

/// Runs Python with the client `s3`; what it printed, or what it complained of.
pub(crate) fn run(endpoint: &str, region: &str, key: (&str, &str), script: &str) -> Result<String, String> {
    let done = Command::new(python())
        .args(["-c", &format!("{PRELUDE}{script}"), endpoint, region, key.0, key.1])
        .envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")])
        .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")])
        .env_remove("AWS_PROFILE")
        .stdin(Stdio::null())
        .output()
        .expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
}

/// Everything below the prefix `site/` of a bucket, in a new directory, by a client of [`run`].
pub(crate) fn download(client: impl Fn(&str) -> Result<String, String>, bucket: &str, into: &Path) -> PathBuf {
    let script = format!(
        r#"
import os
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="{bucket}", Prefix="site/")
for page in pages:
    for found in page.get("Contents", []):
        path = os.path.join("{}", found["Key"][len("site/"):])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        s3.download_file("{bucket}", found["Key"], path)
"#,
        into.display()
    );
    let _ = std::fs::remove_dir_all(into);
    std::fs::create_dir_all(into).unwrap();
    client(&script).unwrap();
    into.to_owned()
}
