//! A look at everything that the configuration names, for `tidings check`: signs in and asks,
//! starts nothing, makes nothing, sends nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;
use tokio::time::timeout;

use super::StartError;
use super::backend;
use super::calls;
use super::calls::Calls;
use super::services;
use crate::catalog::Catalog;
use crate::config::CatalogSource;
use crate::config::Config;
use crate::config::Settings;
use crate::processor::Sender;
use crate::processor::registry;

/// The longest one thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and is probably not meant so.
    Warn,
    /// It does not work.
    Error,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How well it is.
    pub level: Level,
    /// `queue`, `store`, `data`, `catalog`, a sender's name, or a key.
    pub what: String,
    /// Its address, without a password, or its path.
    pub place: String,
    /// One sentence.
    pub detail: String,
}

impl Finding {
    pub(super) fn new(what: &str, place: impl Into<String>, asked: Result<String, String>) -> Self {
        let (level, detail) = match asked {
            Ok(detail) => (Level::Ok, detail),
            Err(detail) => (Level::Error, detail),
        };
        Self {
            level,
            what: what.to_owned(),
            place: place.into(),
            detail,
        }
    }
}

/// What was found out about everything, and what of the configuration keeps a process from
/// starting though every key of it can be read.
#[derive(Debug, Default)]
pub struct Findings {
    /// In a fixed order.
    pub findings: Vec<Finding>,
    /// A catalog file or a processor's section that cannot be.
    pub faults: Vec<StartError>,
}

/// Looks at everything.
pub async fn look(config: &Config, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let (catalog, calls) = match open_catalog(settings) {
        Ok(opened) => opened,
        Err(fault) => {
            found.faults.push(fault);
            return found;
        }
    };
    let given = services::given(settings, Arc::clone(&catalog));
    let senders = registry::senders(config, &given).unwrap_or_else(|fault| {
        found.faults.push(fault.into());
        Vec::new()
    });
    let steps = registry::decorators(settings, &given).unwrap_or_else(|fault| {
        found.faults.push(fault.into());
        Vec::new()
    });
    let foreign = settings.senders.iter().cloned();
    let foreign = foreign.map(|one| Arc::new(one) as Arc<dyn Sender>);
    let routes: Vec<_> = senders.iter().cloned().chain(foreign).collect();
    found.findings = backend::look(settings, services::queues(&routes, &steps)).await;
    let senders = stream::iter(&senders).then(look_at_sender);
    found.findings.extend(senders.collect::<Vec<_>>().await);
    found
        .findings
        .push(look_at_catalog(settings, &catalog, calls.as_ref()).await);
    found
}

/// The files of people and groups, in development mode only if they were made; or the live one.
fn open_catalog(settings: &Settings) -> Result<(Arc<dyn Catalog>, Option<Calls>), StartError> {
    let calls = Calls::of(settings)?;
    if settings.catalog.source == CatalogSource::Backstage {
        return Ok((calls::catalog(settings, calls.as_ref())?, calls));
    }
    let files = match services::development_people(settings) {
        Some(file) if file.exists() => vec![file],
        Some(_) => Vec::new(),
        None => settings.catalog.files.clone(),
    };
    Ok((Arc::new(services::open_catalog(files)?), calls))
}

async fn look_at_sender(sender: &Arc<dyn Sender>) -> Finding {
    let asked = within(sender.probe()).await;
    Finding::new("sender", sender.name(), asked)
}

async fn look_at_catalog(
    settings: &Settings,
    catalog: &Arc<dyn Catalog>,
    calls: Option<&Calls>,
) -> Finding {
    if settings.catalog.source == CatalogSource::Backstage {
        let asked = within(calls::ask(calls, catalog)).await;
        return Finding::new("catalog", calls::place(calls), asked);
    }
    let unmade = services::development_people(settings).is_some_and(|file| !file.exists());
    let asked = if unmade {
        Ok("made at the first start".to_owned())
    } else {
        within(catalog.describe()).await
    };
    let files = settings
        .catalog
        .files
        .iter()
        .map(|file| file.display().to_string());
    let place = match services::development_people(settings) {
        Some(file) => file.display().to_string(),
        None => files.collect::<Vec<_>>().join(", "),
    };
    if place.is_empty() {
        return Finding {
            level: Level::Warn,
            ..Finding::new(
                "catalog",
                "–",
                Ok("no people: name their files in `catalog.locations`".to_owned()),
            )
        };
    }
    Finding::new("catalog", place, asked)
}

/// Waits for an answer, but not for ever.
pub(super) async fn within<T, E: std::fmt::Display>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
