//! What the configuration says, typed: everything that is not a processor's own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use super::Config;
use super::duration::Bytes;
use super::duration::Setting;
use super::error::ConfigError;
use super::section::Section;
use crate::failure::RetrySchedule;
use crate::processor::Policy;
use crate::settings::Defaults;

mod access;
mod raw;
mod warnings;

pub use access::ExternalAccess;
use raw::Raw;
pub(super) use warnings::warnings;

/// Where people's browsers find the pages when nothing is configured, as in Backstage.
const APP_BASE_URL: &str = "http://localhost:3000";
/// The default of `tidings.listen`.
const LISTEN: &str = "127.0.0.1:7117";
/// The default of `tidings.ingest.listen`.
const INGEST_LISTEN: &str = "127.0.0.1:7118";
/// The default of `tidings.data`, below the working directory.
const DATA: &str = "tidings-data";
const BODY_LIMIT: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(25);
const KEEP: Duration = Duration::from_secs(30 * 86_400);
const OUTBOX: usize = 1000;
const DECORATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything typed that is not a processor's own.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `app.baseUrl`: what relative links are resolved against. Default `http://localhost:3000`.
    pub app_base_url: Url,
    /// `tidings.listen`: the address of `tidings up`. Default 127.0.0.1:7117.
    pub listen: SocketAddr,
    /// `tidings.inbox.listen`: the address of `tidings-inbox`. Default `tidings.listen`.
    pub inbox_listen: SocketAddr,
    /// `tidings.ingest.listen`: the address of `tidings-ingest`. Default 127.0.0.1:7118.
    pub ingest_listen: SocketAddr,
    /// `tidings.admin.listen`: health and metrics. Default: the first free port from 7119.
    pub admin_listen: Option<SocketAddr>,
    /// RabbitMQ; set exactly when `store` is.
    pub queue: Option<QueueSettings>,
    /// PostgreSQL; set exactly when `queue` is.
    pub store: Option<StoreSettings>,
    /// `tidings.data`: the database file, the outbox, generated keys. Default `tidings-data`.
    pub data: PathBuf,
    /// The endpoint for producers.
    pub ingest: IngestSettings,
    /// `tidings.retry`: the waits between attempts.
    pub retry: RetrySchedule,
    /// `tidings.channels`: what differs for a channel, by the sender's name.
    pub channels: BTreeMap<String, ChannelSettings>,
    /// How long things are kept.
    pub retention: RetentionSettings,
    /// `tidings.drain`: how long a stop waits for what is in hand. Default 25 s.
    pub drain: Duration,
    /// `backend.auth.externalAccess` of type `static`.
    pub external_access: Vec<ExternalAccess>,
    /// Where people and groups come from.
    pub catalog: CatalogSettings,
    /// `tidings.decorators`, in the order in which they run.
    pub decorators: Vec<DecoratorSettings>,
    /// `notifications.defaultSettings`.
    pub default_settings: Defaults,
    /// No configuration at all, on a loopback address: a demo user and a login link. Only then.
    pub development: bool,
}

/// `tidings.queue`.
#[derive(Clone)]
pub struct QueueSettings {
    /// The broker; may hold a password.
    pub url: String,
    /// What every name begins with. Default `tidings`.
    pub prefix: String,
    /// The origin of what a broker user sends, by user.
    pub origins: BTreeMap<String, String>,
    /// How many submissions may wait before producers are refused. Default: no limit of our own.
    pub limit: Option<u64>,
}

/// `tidings.store`.
#[derive(Clone)]
pub struct StoreSettings {
    /// The database; may hold a password.
    pub url: String,
    /// The most connections of one process. Default: the back end's own.
    pub pool: Option<usize>,
}

/// `tidings.ingest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestSettings {
    /// How long an answer waits for what was stored, when the caller does not say. Default 0.
    pub wait: Duration,
    /// The largest request in bytes. Default 1 MiB.
    pub body_limit: usize,
    /// How long the queue may take to confirm. Default 20 s.
    pub deadline: Duration,
}

/// `tidings.channels.<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSettings {
    /// The waits between attempts; absent: `tidings.retry`.
    pub retry: Option<RetrySchedule>,
}

/// `tidings.retention`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// The story of a submission. Default 30 days.
    pub submissions: Duration,
    /// Dead letters. Default 30 days.
    pub dead_letters: Duration,
    /// How many mails the outbox keeps. Default 1000.
    pub outbox: usize,
}

/// Where people and groups come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogSettings {
    /// `tidings.catalog.source`.
    pub source: CatalogSource,
    /// `catalog.locations` of type `file`, as paths.
    pub files: Vec<PathBuf>,
}

/// `tidings.catalog.source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogSource {
    /// The files in `catalog.locations`.
    #[default]
    File,
    /// The live catalog of a Backstage.
    Backstage,
}

/// An item of `tidings.decorators`.
#[derive(Clone, Debug)]
pub struct DecoratorSettings {
    /// Which decorator.
    pub name: String,
    /// The whole item, for the decorator's own keys: all but `name`, `policy` and `timeout`.
    pub section: Section,
    /// What its failure means. Default `skip`, as in the peer.
    pub policy: Policy,
    /// The longest it may take for one notification. Default 10 s.
    pub timeout: Duration,
}

impl Settings {
    /// The waits between attempts of a channel.
    pub fn retry_of(&self, channel: &str) -> &RetrySchedule {
        self.channels
            .get(channel)
            .and_then(|channel| channel.retry.as_ref())
            .unwrap_or(&self.retry)
    }

    /// Every distinct wait of every schedule, shortest first: one wait queue each.
    pub fn steps(&self) -> Vec<Duration> {
        let own = self.channels.values().filter_map(|one| one.retry.as_ref());
        let mut steps: Vec<Duration> = own
            .chain([&self.retry])
            .flat_map(RetrySchedule::steps)
            .collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }
}

/// The address without its password.
fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails only for addresses that cannot have a password.
            let _ = parsed.set_password(Some("****"));
            parsed.to_string()
        }
        Ok(parsed) => parsed.to_string(),
        Err(_) => "****".to_owned(),
    }
}

impl QueueSettings {
    /// The broker's address without its password.
    pub fn shown(&self) -> String {
        redacted(&self.url)
    }
}

impl StoreSettings {
    /// The database's address without its password.
    pub fn shown(&self) -> String {
        redacted(&self.url)
    }
}

impl fmt::Debug for QueueSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSettings")
            .field("url", &self.shown())
            .field("prefix", &self.prefix)
            .field("origins", &self.origins)
            .field("limit", &self.limit)
            .finish()
    }
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("url", &self.shown())
            .field("pool", &self.pool)
            .finish()
    }
}

/// Reads everything.
pub(super) fn read(config: &Config) -> Result<Settings, ConfigError> {
    let tidings = config.section("tidings");
    let raw: Raw = tidings.read()?;
    let listen = address(
        &tidings.get("listen"),
        raw.listen.as_deref().unwrap_or(LISTEN),
    )?;
    let inbox = tidings.get("inbox").get("listen");
    let ingest = tidings.get("ingest").get("listen");
    let admin = tidings.get("admin").get("listen");
    let (queue, store) = backend(&tidings, &raw)?;
    let ingest_listen = raw.ingest.listen.as_deref().unwrap_or(INGEST_LISTEN);
    let notifications = config.section("notifications");
    Ok(Settings {
        app_base_url: base_url(&config.section("app.baseUrl"))?,
        listen,
        inbox_listen: match &raw.inbox.listen {
            Some(text) => address(&inbox, text)?,
            None => listen,
        },
        ingest_listen: address(&ingest, ingest_listen)?,
        admin_listen: match &raw.admin.listen {
            Some(text) => Some(address(&admin, text)?),
            None => None,
        },
        queue,
        store,
        data: match &raw.data {
            Some(path) => tidings.get("data").resolve(path),
            None => PathBuf::from(DATA),
        },
        ingest: IngestSettings {
            wait: raw.ingest.wait.map_or(Duration::ZERO, |wait| wait.0),
            body_limit: raw
                .ingest
                .body_limit
                .map_or(BODY_LIMIT, |Bytes(limit)| limit),
            deadline: raw.ingest.deadline.map_or(DEADLINE, |limit| limit.0),
        },
        retry: schedule(&tidings.get("retry"), raw.retry.as_deref())?.unwrap_or_default(),
        channels: channels(&tidings.get("channels"), &raw)?,
        retention: RetentionSettings {
            submissions: raw.retention.submissions.map_or(KEEP, |keep| keep.0),
            dead_letters: raw.retention.dead_letters.map_or(KEEP, |keep| keep.0),
            outbox: raw.retention.outbox.unwrap_or(OUTBOX),
        },
        drain: raw.drain.map_or(DRAIN, |limit| limit.0),
        external_access: access::read(&config.section("backend.auth.externalAccess"))?,
        catalog: catalog(config, &tidings, &raw)?,
        decorators: decorators(&tidings.get("decorators"))?,
        default_settings: notifications
            .get("defaultSettings")
            .read_if_set()?
            .unwrap_or_default(),
        development: config.is_bare() && listen.ip().is_loopback(),
    })
}

/// The items of a list that may be absent.
fn list(section: &Section) -> Result<Vec<Section>, ConfigError> {
    section.read_if_set::<Vec<IgnoredAny>>()?;
    Ok(section.items())
}

fn address(section: &Section, text: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.trim();
    let local = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    local.as_deref().unwrap_or(text).parse().map_err(|_| {
        section.error(
            format!("`{}` must be an address and a port", section.key()),
            "write it as 127.0.0.1:7117, 0.0.0.0:7117 or [::]:7117",
        )
    })
}

fn base_url(section: &Section) -> Result<Url, ConfigError> {
    let text: Option<String> = section.read_if_set()?;
    let text = text.as_deref().unwrap_or(APP_BASE_URL);
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(section.error(
            format!("`{}` must be an http or https address", section.key()),
            "write it as https://backstage.example.com",
        )),
    }
}

/// The queue and the store: both or neither, since a half of each would lose what it promises.
fn backend(
    tidings: &Section,
    raw: &Raw,
) -> Result<(Option<QueueSettings>, Option<StoreSettings>), ConfigError> {
    let (queue, store) = (tidings.get("queue"), tidings.get("store"));
    let both = "set both for RabbitMQ and PostgreSQL, or neither for the file in `tidings.data`";
    match (&raw.queue.url, &raw.store.url) {
        (Some(_), None) => Err(queue.get("url").error(
            "`tidings.queue.url` is set and `tidings.store.url` is not",
            both,
        )),
        (None, Some(_)) => Err(store.get("url").error(
            "`tidings.store.url` is set and `tidings.queue.url` is not",
            both,
        )),
        (None, None) => Ok((None, None)),
        (Some(broker), Some(database)) => {
            let example = "write it as amqp://user:password@host:5672/vhost";
            scheme(&queue.get("url"), broker, &["amqp", "amqps"], example)?;
            let example = "write it as postgres://user:password@host:5432/tidings";
            scheme(
                &store.get("url"),
                database,
                &["postgres", "postgresql"],
                example,
            )?;
            let prefix = raw.queue.prefix.as_deref().unwrap_or("tidings");
            check_prefix(&queue.get("prefix"), prefix)?;
            let queue = QueueSettings {
                url: broker.clone(),
                prefix: prefix.to_owned(),
                origins: raw.queue.origins.clone(),
                limit: raw.queue.limit,
            };
            let store = StoreSettings {
                url: database.clone(),
                pool: raw.store.pool.map(usize::from),
            };
            Ok((Some(queue), Some(store)))
        }
    }
}

fn scheme(
    section: &Section,
    text: &str,
    schemes: &[&str],
    example: &str,
) -> Result<(), ConfigError> {
    match Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) => Ok(()),
        _ => Err(section.error(
            format!(
                "`{}` must be an {}:// address",
                section.key(),
                schemes.join(":// or ")
            ),
            example,
        )),
    }
}

fn check_prefix(section: &Section, prefix: &str) -> Result<(), ConfigError> {
    let fits = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'-' | b'_' | b'.');
    if !prefix.is_empty() && prefix.len() <= 64 && prefix.bytes().all(fits) {
        return Ok(());
    }
    Err(section.error(
        format!(
            "`{}` must be 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.`",
            section.key()
        ),
        "",
    ))
}

fn schedule(
    section: &Section,
    waits: Option<&[Setting]>,
) -> Result<Option<RetrySchedule>, ConfigError> {
    let Some(waits) = waits else {
        return Ok(None);
    };
    RetrySchedule::new(waits.iter().map(|wait| wait.0).collect())
        .map(Some)
        .map_err(|why| section.error(format!("`{}`: {why}", section.key()), ""))
}

fn channels(
    section: &Section,
    raw: &Raw,
) -> Result<BTreeMap<String, ChannelSettings>, ConfigError> {
    let channel = |(name, channel): (&String, &raw::Channel)| {
        let retry = schedule(&section.get(name).get("retry"), channel.retry.as_deref())?;
        Ok((name.clone(), ChannelSettings { retry }))
    };
    raw.channels.iter().map(channel).collect()
}

fn catalog(config: &Config, tidings: &Section, raw: &Raw) -> Result<CatalogSettings, ConfigError> {
    let source = raw.catalog.source.unwrap_or_default();
    if source == CatalogSource::Backstage {
        return Err(tidings.get("catalog").get("source").error(
            "a live Backstage catalog is not served yet",
            "use `file`, and name the files of users and groups in `catalog.locations`",
        ));
    }
    let mut files = Vec::new();
    for location in list(&config.section("catalog.locations"))? {
        let read: raw::Location = location.read()?;
        if read.kind != "file" {
            continue;
        }
        let one = read.target.map(|path| (location.get("target"), path));
        let more = list(&location.get("targets"))?;
        for target in more {
            files.push(target.resolve(&target.read::<PathBuf>()?));
        }
        files.extend(one.map(|(target, path)| target.resolve(&path)));
    }
    Ok(CatalogSettings { source, files })
}

fn decorators(section: &Section) -> Result<Vec<DecoratorSettings>, ConfigError> {
    let decorator = |item: &Section| {
        let read: raw::Decorator = item.read()?;
        Ok(DecoratorSettings {
            name: read.name,
            policy: read.policy,
            timeout: read.timeout.map_or(DECORATOR_TIMEOUT, |timeout| timeout.0),
            section: item.without(&["name", "policy", "timeout"]),
        })
    };
    list(section)?.iter().map(decorator).collect()
}
