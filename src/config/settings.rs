//! What the configuration says, typed: everything that is not a processor's own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::section::Section;
use crate::failure::RetrySchedule;
use crate::processor::Policy;
use crate::processor::foreign::ForeignSender;
use crate::settings::Defaults;

mod access;
mod backstage;
mod cors;
mod raw;
mod read;
mod warnings;

pub use access::AccessMeans;
pub use access::ExternalAccess;
pub use access::JwksAccess;
pub use backstage::BackstageSettings;
pub use backstage::DiscoveryEndpoint;
#[cfg(feature = "backstage")]
pub(crate) use backstage::with_plugin;
pub use cors::CorsSettings;
pub(super) use read::read;
#[cfg(feature = "rabbitmq")]
pub(super) use read::read_for_worker;
pub(super) use warnings::warnings;

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
    /// `tidings.lease`: how long a sender may hold a delivery, and so how long the deliveries of
    /// one that vanished wait for another. Default 60 s.
    pub lease: Duration,
    /// `backend.cors`; `None`: no page of another origin may call.
    pub cors: Option<CorsSettings>,
    /// `backend.auth.externalAccess`, and the older `backend.auth.keys`.
    pub external_access: Vec<ExternalAccess>,
    /// Where people and groups come from.
    pub catalog: CatalogSettings,
    /// Where the parts of a Backstage are, and how to sign in there.
    pub backstage: BackstageSettings,
    /// `tidings.users.jwks`: where the public keys of those who sign user tokens are.
    pub user_issuers: Vec<Url>,
    /// `events.useEventBus`: whether pages hear what other plugins of a Backstage tell them.
    pub event_bus: EventBus,
    /// `tidings.decorators`, in the order in which they run.
    pub decorators: Vec<DecoratorSettings>,
    /// `tidings.senders`: those that are somebody else's workers.
    pub senders: Vec<ForeignSender>,
    /// `notifications.defaultSettings`.
    pub default_settings: Defaults,
    /// No configuration at all, on a loopback address: a demo user and a login link. Only then.
    pub development: bool,
}

/// `events.useEventBus`. Source: Backstage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventBus {
    /// Where there is one.
    #[default]
    Auto,
    /// And it is a fault when there is none.
    Always,
    /// Not at all.
    Never,
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
    /// The time between the beginnings of two sends, over all processes; absent: no limit.
    pub rate: Option<Duration>,
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
    /// Notifications in inboxes.
    pub inbox: InboxRetention,
}

/// How long notifications are kept after their last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRetention {
    /// `notifications.retention`; `None` where it is `false`: for ever. Default 1 year.
    pub keep: Option<Duration>,
    /// `tidings.retention.saved`: those that somebody has saved are deleted as well. Default no.
    pub saved: bool,
}

/// Where people and groups come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogSettings {
    /// `tidings.catalog.source`.
    pub source: CatalogSource,
    /// `catalog.locations` of type `file`, as paths.
    pub files: Vec<PathBuf>,
    /// `tidings.catalog.ttl`: how long what a live catalog says of groups is believed. Default
    /// 1 min.
    pub ttl: Duration,
    /// `notifications.processors.email.cache.ttl`: the same for people and their addresses.
    /// Default 1 h.
    pub people_ttl: Duration,
    /// `tidings.catalog.stale`: how old an answer may be that serves while the live catalog is
    /// away. Default 24 h.
    pub stale: Duration,
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
    /// The whole item, for the decorator's own keys: all but `name`, `policy`, `timeout`
    /// and `queue`.
    pub section: Section,
    /// What its failure means. Default `skip`, as in the peer.
    pub policy: Policy,
    /// The longest it may take for one notification. Default 10 s.
    pub timeout: Duration,
    /// A worker of somebody else's, on the queue `decorate.<name>`.
    pub queue: bool,
}

impl Settings {
    /// The waits between attempts of a channel.
    pub fn retry_of(&self, channel: &str) -> &RetrySchedule {
        self.channels
            .get(channel)
            .and_then(|channel| channel.retry.as_ref())
            .unwrap_or(&self.retry)
    }

    /// The time between the beginnings of two sends of a channel, if it has a rate.
    pub fn rate_of(&self, channel: &str) -> Option<Duration> {
        self.channels.get(channel)?.rate
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
