//! `[sink.NAME.s3]` in the pipeline file.

use std::path::PathBuf;
use std::sync::Arc;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::location::Location;
use cdrvault_plugin::options::{Age, ByteSize, FilePath, Problem, Secret, Section, schema_of};
use cdrvault_plugin::registry::{Around, BuildSink, Plugin};
use cdrvault_plugin::sink::Vault;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, RetryConfig};
use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use url::Url;

use super::patience::Patience;
use super::profile::{self, Profile};
use super::{Bucket, Deleting, S3};
use crate::vault::StoredVault;

/// See [`super`].
pub(crate) fn plugin() -> Plugin<dyn BuildSink> {
    Plugin {
        kind: "s3",
        about: "a vault in a bucket of AWS S3, or of a server that speaks its protocol",
        details: "Credentials come from these options, else from `profile`, else from the environment (AWS_ACCESS_KEY_ID and \
                  so on), else, with `instance-credentials = true`, from the cloud's metadata service. They need to list, read and write below the prefix; only \
                  `prune` deletes, and may have credentials of its own. Conditional writes are used where a probe shows that \
                  the bucket honours them. What was uploaded is checked by the SHA-256 that the server computed, or, where it \
                  computes none, by reading the object again. In a versioned bucket, a removed version becomes a noncurrent \
                  one, which the bucket's own lifecycle rules remove; what object lock holds stays.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// A vault in a bucket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    url: String,
    /// The server, as `https://s3.example.net`; AWS where it is not named.
    #[serde(default)]
    endpoint: Option<String>,
    /// The bucket's region; `us-east-1` where neither this nor the environment names one.
    #[serde(default)]
    region: Option<String>,
    /// The bucket's name in the path instead of the host name. By default it is, where `endpoint` names a server.
    #[serde(default)]
    path_style: Option<bool>,
    /// The id of the access key.
    #[serde(default)]
    access_key_id: Option<String>,
    /// The access key's secret: `{ file = "..." }`, `{ env = "..." }`, `{ credential = "..." }` or `{ command = [...] }`.
    #[serde(default)]
    secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    #[serde(default)]
    session_token: Option<Secret>,
    /// A profile of the AWS credentials file.
    #[serde(default)]
    profile: Option<String>,
    /// Asks the metadata service of the cloud for the credentials of the instance or the container, where there are none
    /// elsewhere. Without it no such address is asked.
    #[serde(default)]
    instance_credentials: bool,
    /// The id of another access key, which may delete, for pruning.
    #[serde(default)]
    prune_access_key_id: Option<String>,
    /// The secret of that key.
    #[serde(default)]
    prune_secret_access_key: Option<Secret>,
    /// PEM file of the authority that signed the server's certificate, besides the system's.
    #[serde(default)]
    tls_ca: Option<FilePath>,
    /// The storage class of live objects; the bucket's default where it is not named. Archives cannot be read back at once,
    /// and are refused.
    #[serde(default)]
    storage_class: Option<StorageClass>,
    /// Encryption by the server.
    #[serde(default)]
    encryption: Option<Encryption>,
    /// The key for `encryption = "aws:kms"`; the account's default key where it is not named.
    #[serde(default)]
    kms_key: Option<String>,
    /// At most so many bytes a second are uploaded, as `"4MiB"`.
    #[serde(default)]
    bandwidth: Option<ByteSize>,
    /// How long to wait for the server to take a connection.
    #[serde(default = "ten_seconds")]
    connect_timeout: Age,
    /// How long one request may take.
    #[serde(default = "five_minutes")]
    timeout: Age,
    /// For how long a request is tried again after 429, 5xx or a lost connection, with growing pauses.
    #[serde(default = "one_minute")]
    retry_for: Age,
}

/// Those whose objects can be read at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StorageClass {
    /// The usual one.
    Standard,
    /// Seldom read.
    StandardIa,
    /// Seldom read, in one zone.
    OnezoneIa,
    /// Moved by use.
    IntelligentTiering,
    /// An archive that answers at once.
    GlacierIr,
    /// Less copies.
    ReducedRedundancy,
}

impl StorageClass {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "STANDARD",
            Self::StandardIa => "STANDARD_IA",
            Self::OnezoneIa => "ONEZONE_IA",
            Self::IntelligentTiering => "INTELLIGENT_TIERING",
            Self::GlacierIr => "GLACIER_IR",
            Self::ReducedRedundancy => "REDUCED_REDUNDANCY",
        }
    }
}

/// Encryption by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Encryption {
    /// With keys of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms,
    /// Twice, with a key of the key management service.
    #[serde(rename = "aws:kms:dsse")]
    KmsDsse,
}

impl Encryption {
    fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsDsse => "aws:kms:dsse",
        }
    }
}

fn ten_seconds() -> Age {
    Age::seconds(10)
}

fn one_minute() -> Age {
    Age::seconds(60)
}

fn five_minutes() -> Age {
    Age::seconds(300)
}

#[derive(Clone)]
struct BuildS3 {
    bucket: String,
    prefix: Path,
    options: Arc<Options>,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSink>> {
    let options: Options = section.options()?;
    let url = bucket_and_prefix(&options.url);
    if let Err(why) = &url {
        section.problem(
            Problem::new(section.value("url"), why.clone())
                .help("write `s3://BUCKET/PREFIX`, as in \"s3://cdr-archive/asterisell\""),
        );
    }
    let mut sound = url.is_ok();
    let mut wrong = |key: &str, what: &str, help: &str| {
        section.problem(Problem::new(section.value(key), what.to_owned()).help(help.to_owned()));
        sound = false;
    };
    if let Some(endpoint) = &options.endpoint {
        match Url::parse(endpoint) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                wrong(
                    "endpoint",
                    "credentials do not belong into `endpoint`",
                    "write access-key-id and secret-access-key",
                );
            }
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/" => {}
            _ => wrong("endpoint", "this is not an endpoint", "write `https://HOST` or `https://HOST:PORT`"),
        }
    }
    let pairs = [
        ("access-key-id", options.access_key_id.is_some(), "secret-access-key", options.secret_access_key.is_some()),
        (
            "prune-access-key-id",
            options.prune_access_key_id.is_some(),
            "prune-secret-access-key",
            options.prune_secret_access_key.is_some(),
        ),
    ];
    for (id, has_id, secret, has_secret) in pairs {
        if has_id != has_secret {
            let (there, missing) = if has_id { (id, secret) } else { (secret, id) };
            wrong(there, &format!("`{there}` needs `{missing}`"), &format!("name its `{missing}` beside it"));
        }
    }
    if options.session_token.is_some() && options.access_key_id.is_none() {
        wrong("session-token", "`session-token` needs `access-key-id`", "add `access-key-id` and `secret-access-key`");
    }
    if options.profile.is_some() && options.access_key_id.is_some() {
        wrong("profile", "there are two sets of credentials", "write either `profile` or `access-key-id`");
    }
    if options.kms_key.is_some() && !matches!(options.encryption, Some(Encryption::Kms | Encryption::KmsDsse)) {
        wrong(
            "kms-key",
            "`kms-key` is for `encryption = \"aws:kms\"`",
            "add `encryption = \"aws:kms\"`, or remove the key",
        );
    }
    let (bucket, prefix) = url.ok().filter(|_| sound)?;
    Some(Box::new(BuildS3 { bucket, prefix, options: Arc::new(options) }))
}

/// Whether the environment has an access key, names a role and a token file for it, or asks for no signature at all.
fn environment_has_credentials() -> bool {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let both = |one: &str, other: &str| has(one) && has(other);
    both("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        || both("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
        || std::env::var("AWS_SKIP_SIGNATURE").is_ok_and(|value| value == "true")
}

fn bucket_and_prefix(text: &str) -> Result<(String, Path), String> {
    let rest = text.strip_prefix("s3://").ok_or("this is not the URL of a bucket")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err(format!("`{}` is not a bucket name", bucket.escape_debug()));
    }
    let prefix = prefix.trim_matches('/');
    let part_is_odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(part_is_odd) {
        return Err(format!("`{}` is not a prefix", prefix.escape_debug()));
    }
    let prefix = Path::parse(prefix).map_err(|_| format!("`{}` is not a prefix", prefix.escape_debug()))?;
    Ok((bucket.to_owned(), prefix))
}

impl BuildSink for BuildS3 {
    fn describe(&self) -> String {
        match self.prefix.as_ref() {
            "" => format!("s3://{}", self.bucket),
            prefix => format!("s3://{}/{prefix}", self.bucket),
        }
    }

    fn place(&self) -> Option<Location> {
        // By the server's name, not by the URL's form. All of AWS is one place: the name of a bucket is unique there.
        let server = match self.options.endpoint.as_deref().and_then(|endpoint| Url::parse(endpoint).ok()) {
            Some(url) if !url.host_str().is_some_and(|host| host.ends_with(".amazonaws.com")) => {
                format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
            }
            _ => "AWS".to_owned(),
        };
        Some(Location::elsewhere(format!("s3 {server} {}", self.bucket), self.prefix.as_ref()))
    }

    fn build(&self, _around: &Around) -> Result<Arc<dyn Vault>> {
        let options = &self.options;
        // Objects are sent again as single requests, instead of whole uploads above.
        let patience = Patience::new(options.retry_for.to_duration());
        let (id, secret) = (options.access_key_id.as_deref(), options.secret_access_key.as_ref());
        let writes = self.client(id, secret, options.session_token.as_ref(), &patience)?;
        let deleting = options.prune_access_key_id.clone().map(|id| -> Deleting {
            let (build, patience) = (self.clone(), patience.clone());
            Box::new(move || build.client(Some(&id), build.options.prune_secret_access_key.as_ref(), None, &patience))
        });
        let bucket = Bucket {
            name: self.bucket.clone(),
            shown: self.describe(),
            prefix: self.prefix.clone(),
            region: self.region()?,
            storage_class: options.storage_class.map(StorageClass::name),
            encryption: self.encryption(),
            bandwidth: options.bandwidth.map(ByteSize::as_u64),
        };
        Ok(Arc::new(StoredVault::new(S3::new(bucket, writes, deleting, patience, &self.client_options()?)?)))
    }
}

impl BuildS3 {
    fn profile(&self) -> Result<Option<Profile>> {
        self.options.profile.as_deref().map(profile::read).transpose()
    }

    fn region(&self) -> Result<String> {
        let of_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
        let of_profile = self.profile()?.and_then(|profile| profile.region);
        let named = self.options.region.clone().or(of_profile).or_else(of_environment);
        Ok(named.unwrap_or_else(|| "us-east-1".to_owned()))
    }

    fn client_options(&self) -> Result<ClientOptions> {
        let options = &self.options;
        let mut client = ClientOptions::new()
            .with_connect_timeout(options.connect_timeout.to_duration())
            .with_timeout(options.timeout.to_duration())
            .with_allow_http(options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")));
        if let Some(path) = &options.tls_ca {
            let path: PathBuf = path.clone().into_inner();
            let pem = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            let bundle = Certificate::from_pem_bundle(&pem).map_err(|error| {
                Error::new(Kind::Config, format!("{} holds no certificate in PEM form", path.display()))
                    .with_source(error)
            })?;
            if bundle.is_empty() {
                return Err(Error::new(Kind::Config, format!("{} holds no certificate in PEM form", path.display())));
            }
            client = bundle.into_iter().fold(client, ClientOptions::with_root_certificate);
        }
        Ok(client)
    }

    /// Headers of everything that is written.
    fn encryption(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(self.options.encryption.map(|e| ("x-amz-server-side-encryption", e.name().to_owned())));
        headers.extend(self.options.kms_key.clone().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key)));
        headers
    }

    fn client(
        &self,
        id: Option<&str>,
        secret: Option<&Secret>,
        token: Option<&Secret>,
        patience: &Patience,
    ) -> Result<AmazonS3> {
        let options = &self.options;
        let mut builder = match (id, self.profile()?) {
            (Some(id), _) => {
                let secret = secret.map(Secret::resolve).transpose()?;
                let builder = AmazonS3Builder::new()
                    .with_access_key_id(id)
                    .with_secret_access_key(secret.as_ref().map_or("", |secret| secret.expose_secret()));
                match token {
                    Some(token) => builder.with_token(token.resolve()?.expose_secret()),
                    None => builder,
                }
            }
            (None, Some(profile)) => {
                let builder = AmazonS3Builder::new()
                    .with_access_key_id(profile.access_key_id)
                    .with_secret_access_key(profile.secret_access_key.expose_secret());
                match &profile.session_token {
                    Some(token) => builder.with_token(token.expose_secret()),
                    None => builder,
                }
            }
            (None, None) if options.instance_credentials || environment_has_credentials() => {
                AmazonS3Builder::from_env()
            }
            // What is left would be to ask an address of the network, which may be anybody's.
            (None, None) => {
                let error = Error::new(Kind::Config, format!("{}: there are no credentials", self.describe()));
                return Err(error.hint(
                    "write `access-key-id` and `secret-access-key`, or `profile`, or set AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY; on an instance with a role, write `instance-credentials = true`",
                ));
            }
        };
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let path_style = options.path_style.unwrap_or(options.endpoint.is_some());
        // There is one layer that tries again, and it is ours.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        builder
            .with_bucket_name(&self.bucket)
            .with_region(self.region()?)
            .with_virtual_hosted_style_request(!path_style)
            .with_retry(retry)
            .with_http_connector(patience.clone())
            .with_client_options(self.client_options()?)
            .build()
            .map_err(|error| Error::new(Kind::Config, format!("cannot prepare {}", self.describe())).with_source(error))
    }
}
