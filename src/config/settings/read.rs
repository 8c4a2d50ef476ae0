//! Reading the keys into [`Settings`], with what no type can check.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::IgnoredAny;
use url::Url;

use super::BackstageSettings;
use super::CatalogSettings;
use super::CatalogSource;
use super::ChannelSettings;
use super::DecoratorSettings;
use super::InboxRetention;
use super::IngestSettings;
use super::QueueSettings;
use super::RetentionSettings;
use super::Settings;
use super::StoreSettings;
use super::access;
use super::backstage;
use super::cors;
use super::raw;
use super::raw::Raw;
use crate::config::Config;
use crate::config::duration::Bytes;
use crate::config::duration::Rate;
use crate::config::duration::Setting;
use crate::config::error::ConfigError;
use crate::config::keys;
use crate::config::section::Section;
use crate::failure::RetrySchedule;
use crate::processor::foreign::ForeignSender;
use crate::processor::is_name;

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
const LEASE: Duration = Duration::from_secs(60);
const KEEP: Duration = Duration::from_secs(30 * 86_400);
const OUTBOX: usize = 1000;
/// The default of `notifications.retention`, as in Backstage.
const KEEP_INBOX: Duration = Duration::from_secs(365 * 86_400);
const SENDER_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Who joins a group is to hear of things soon.
const CATALOG_TTL: Duration = Duration::from_secs(60);
/// As in the peer.
const PEOPLE_TTL: Duration = Duration::from_secs(3_600);
const STALE: Duration = Duration::from_secs(86_400);
const DECORATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads everything.
pub(in crate::config) fn read(config: &Config) -> Result<Settings, ConfigError> {
    read_with(config, true)
}

/// Reads everything, for a program that has no store.
#[cfg(feature = "rabbitmq")]
pub(in crate::config) fn read_for_worker(config: &Config) -> Result<Settings, ConfigError> {
    read_with(config, false)
}

fn read_with(config: &Config, needs_store: bool) -> Result<Settings, ConfigError> {
    let tidings = config.section("tidings");
    let raw: Raw = tidings.read()?;
    let listen = address(
        &tidings.get("listen"),
        raw.listen.as_deref().unwrap_or(LISTEN),
    )?;
    let inbox = tidings.get("inbox").get("listen");
    let ingest = tidings.get("ingest").get("listen");
    let admin = tidings.get("admin").get("listen");
    let (queue, store) = backend(&tidings, &raw, needs_store)?;
    let ingest_listen = raw.ingest.listen.as_deref().unwrap_or(INGEST_LISTEN);
    let notifications = config.section("notifications");
    let backstage = backstage::read(
        &config.section("backend.baseUrl"),
        &config.section("discovery.endpoints"),
        &tidings.get("backstage").get("token"),
    )?;
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
            inbox: InboxRetention {
                keep: keep(&notifications.get("retention"))?,
                saved: raw.retention.saved.unwrap_or(false),
            },
        },
        drain: raw.drain.map_or(DRAIN, |limit| limit.0),
        lease: raw.lease.map_or(LEASE, |limit| limit.0),
        // The section is the portal's: what cannot be read there is a warning, and admits nobody.
        cors: cors::read(&config.section("backend.cors")).unwrap_or_default(),
        external_access: access::read(&config.section("backend.auth"))?,
        catalog: catalog(config, &raw, &backstage)?,
        backstage,
        user_issuers: user_issuers(&tidings.get("users").get("jwks"), &raw)?,
        event_bus: config
            .section("events.useEventBus")
            .read_if_set()?
            .unwrap_or_default(),
        decorators: decorators(&tidings.get("decorators"))?,
        senders: senders(&tidings.get("senders"), raw.queue.url.is_some())?,
        default_settings: notifications
            .get("defaultSettings")
            .read_if_set()?
            .unwrap_or_default(),
        development: config.is_bare() && listen.ip().is_loopback(),
    })
}

/// How long notifications are kept: a duration, or `false` for ever.
fn keep(section: &Section) -> Result<Option<Duration>, ConfigError> {
    if !section.exists() {
        return Ok(Some(KEEP_INBOX));
    }
    match section.read::<bool>() {
        Ok(false) => Ok(None),
        Ok(true) => Err(section.error(
            format!("`{}` is a duration, or false", section.key()),
            "remove it for 1 year",
        )),
        Err(_) => section.read::<Setting>().map(|keep| Some(keep.0)),
    }
}

/// The items of a list that may be absent.
pub(super) fn list(section: &Section) -> Result<Vec<Section>, ConfigError> {
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
    web(section, text.as_deref().unwrap_or(APP_BASE_URL))
}

/// An address of the web.
pub(super) fn web(section: &Section, text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(section.error(
            format!("`{}` must be an http or https address", section.key()),
            "write it as https://backstage.example.com",
        )),
    }
}

/// Where public keys are, which needs no password: one would only come to light.
pub(super) fn key_set(section: &Section, text: &str) -> Result<Url, ConfigError> {
    let url = web(section, text)?;
    if url.password().is_some() || !url.username().is_empty() {
        return Err(section.error(
            format!("`{}` must be an address without a user", section.key()),
            "public keys are for everybody",
        ));
    }
    Ok(url)
}

/// Who signs user tokens.
fn user_issuers(section: &Section, raw: &Raw) -> Result<Vec<Url>, ConfigError> {
    if !raw.users.jwks.is_empty() && !cfg!(feature = "backstage") {
        return Err(section.error(
            format!(
                "this program was built without `backstage`, which `{}` needs",
                section.key()
            ),
            "build it with the feature backstage",
        ));
    }
    let items = section.items();
    let issuer = |(item, read): (&Section, &raw::Issuer)| key_set(&item.get("url"), &read.url);
    items.iter().zip(&raw.users.jwks).map(issuer).collect()
}

/// The queue and the store: both or neither, since a half of each would lose what it promises.
fn backend(
    tidings: &Section,
    raw: &Raw,
    needs_store: bool,
) -> Result<(Option<QueueSettings>, Option<StoreSettings>), ConfigError> {
    let (queue, store) = (tidings.get("queue"), tidings.get("store"));
    let both = "set both for RabbitMQ and PostgreSQL, or neither for the file in `tidings.data`";
    let queue_of = |broker: &str| {
        let example = "write it as amqp://user:password@host:5672/vhost";
        scheme(&queue.get("url"), broker, &["amqp", "amqps"], example)?;
        let prefix = raw.queue.prefix.as_deref().unwrap_or("tidings");
        check_prefix(&queue.get("prefix"), prefix)?;
        Ok(QueueSettings {
            url: broker.to_owned(),
            prefix: prefix.to_owned(),
            origins: raw.queue.origins.clone(),
            limit: raw.queue.limit,
        })
    };
    match (&raw.queue.url, &raw.store.url) {
        (Some(broker), None) if !needs_store => Ok((Some(queue_of(broker)?), None)),
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
            let queue = queue_of(broker)?;
            let example = "write it as postgres://user:password@host:5432/tidings";
            scheme(
                &store.get("url"),
                database,
                &["postgres", "postgresql"],
                example,
            )?;
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
        let rate = channel.rate.map(|Rate(gap)| gap);
        Ok((name.clone(), ChannelSettings { retry, rate }))
    };
    raw.channels.iter().map(channel).collect()
}

fn catalog(
    config: &Config,
    raw: &Raw,
    backstage: &BackstageSettings,
) -> Result<CatalogSettings, ConfigError> {
    let source = raw.catalog.source.unwrap_or_default();
    if source == CatalogSource::Backstage && !backstage.names("catalog") {
        return Err(config.section("tidings.catalog.source").error(
            "nothing says where the catalog of Backstage is",
            "set backend.baseUrl, or a target for the plugin `catalog` in discovery.endpoints",
        ));
    }
    let people = config.section("notifications.processors.email.cache.ttl");
    let people_ttl: Option<Setting> = people.read_if_set()?;
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
    Ok(CatalogSettings {
        source,
        files,
        ttl: raw.catalog.ttl.map_or(CATALOG_TTL, |ttl| ttl.0),
        people_ttl: people_ttl.map_or(PEOPLE_TTL, |ttl| ttl.0),
        stale: raw.catalog.stale.map_or(STALE, |stale| stale.0),
    })
}

/// Senders that are somebody else's workers.
fn senders(section: &Section, distributed: bool) -> Result<Vec<ForeignSender>, ConfigError> {
    let mut read: Vec<ForeignSender> = Vec::new();
    for item in list(section)? {
        let raw: raw::Sender = item.read()?;
        let name = item.get("name");
        let wrong = |message: String, help: &str| Err(name.error(message, help));
        if !is_name(&raw.name) {
            let message = format!("`{}` cannot be part of a queue's name", raw.name);
            return wrong(message, "use a-z, 0-9, `-` and `_`, as in pager");
        }
        if keys::PROCESSORS.contains(&raw.name.as_str()) {
            let message = format!("`{}` is built in", raw.name);
            return wrong(
                message,
                "configure it under notifications.processors, or choose another name",
            );
        }
        if read.iter().any(|one| one.name == raw.name) {
            let message = format!("there are two senders `{}`", raw.name);
            return wrong(message, "give each a name of its own");
        }
        if !distributed {
            let message = format!("the sender `{}` needs a queue that others reach", raw.name);
            return wrong(
                message,
                "set tidings.queue.url and tidings.store.url, or leave it out",
            );
        }
        read.push(ForeignSender {
            channel: raw.channel.unwrap_or_else(|| raw.name.clone()),
            name: raw.name,
            audience: raw.audience,
            filter: raw.filter,
            annotations: raw.annotations,
            timeout: raw.timeout.map_or(SENDER_TIMEOUT, |timeout| timeout.0),
        });
    }
    Ok(read)
}

fn decorators(section: &Section) -> Result<Vec<DecoratorSettings>, ConfigError> {
    let decorator = |item: &Section| {
        let read: raw::Decorator = item.read()?;
        Ok(DecoratorSettings {
            name: read.name,
            policy: read.policy,
            timeout: read.timeout.map_or(DECORATOR_TIMEOUT, |timeout| timeout.0),
            queue: read.queue,
            section: item.without(&["name", "policy", "timeout", "queue"]),
        })
    };
    list(section)?.iter().map(decorator).collect()
}
