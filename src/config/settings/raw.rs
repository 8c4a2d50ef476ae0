//! The keys under `tidings:` as they are written. A key that is not here is an error; what each
//! means stands in `keys.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CatalogSource;
use crate::config::duration::Bytes;
use crate::config::duration::Rate;
use crate::config::duration::Setting;
use crate::processor::Audience;
use crate::processor::Filter;
use crate::processor::Policy;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) listen: Option<String>,
    pub(super) ingest: Ingest,
    pub(super) inbox: Listener,
    pub(super) admin: Listener,
    pub(super) queue: Queue,
    pub(super) store: Store,
    pub(super) data: Option<PathBuf>,
    pub(super) retry: Option<Vec<Setting>>,
    pub(super) channels: BTreeMap<String, Channel>,
    pub(super) retention: Retention,
    pub(super) drain: Option<Setting>,
    pub(super) lease: Option<Setting>,
    /// Each item is read again on its own: it has the decorator's own keys.
    pub(super) decorators: Vec<IgnoredAny>,
    pub(super) catalog: Catalog,
    pub(super) backstage: Backstage,
    pub(super) senders: Vec<IgnoredAny>,
    pub(super) users: Users,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Ingest {
    pub(super) listen: Option<String>,
    pub(super) wait: Option<Setting>,
    pub(super) body_limit: Option<Bytes>,
    pub(super) deadline: Option<Setting>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) listen: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Queue {
    pub(super) url: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) origins: BTreeMap<String, String>,
    pub(super) limit: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    pub(super) url: Option<String>,
    pub(super) pool: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) retry: Option<Vec<Setting>>,
    pub(super) rate: Option<Rate>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) submissions: Option<Setting>,
    pub(super) dead_letters: Option<Setting>,
    pub(super) outbox: Option<usize>,
    pub(super) saved: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) source: Option<CatalogSource>,
    pub(super) ttl: Option<Setting>,
    pub(super) stale: Option<Setting>,
}

/// Read again by `backstage.rs`, which shows a fault at its place.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backstage {
    #[serde(rename = "token")]
    pub(super) _token: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Users {
    pub(super) jwks: Vec<Issuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) url: String,
}

/// An item of `tidings.decorators`, as far as it is the same for all.
#[derive(Deserialize)]
pub(super) struct Decorator {
    pub(super) name: String,
    #[serde(default)]
    pub(super) policy: Policy,
    pub(super) timeout: Option<Setting>,
    #[serde(default)]
    pub(super) queue: bool,
}

/// An item of `tidings.senders`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) channel: Option<String>,
    #[serde(default)]
    pub(super) audience: Audience,
    #[serde(default)]
    pub(super) filter: Filter,
    #[serde(default)]
    pub(super) annotations: Vec<String>,
    pub(super) timeout: Option<Setting>,
}

/// An item of `catalog.locations`. Source: Backstage.
#[derive(Deserialize)]
pub(super) struct Location {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) target: Option<PathBuf>,
}
