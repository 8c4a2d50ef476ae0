//! Calls to a Backstage, as the configuration has them.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::auth::Plugin;
use crate::auth::PluginKeys;
use crate::backstage::Backstage;
use crate::backstage::Discovery;
use crate::backstage::FixedToken;
use crate::backstage::LaterTokens;
use crate::backstage::PluginTokens;
use crate::catalog::Catalog;
use crate::catalog::backstage::BackstageCatalog;
use crate::config::EventBus;
use crate::config::Settings;
use crate::failure::Failure;

/// The longest that a look at it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Backstage of the configuration, and how Tidings signs in there.
#[derive(Clone, Debug)]
pub struct Calls {
    /// What calls it.
    pub backstage: Backstage,
    /// Wants the keys of this process, once there are any; absent: it signs in with a static
    /// token.
    pub signed: Option<Arc<LaterTokens>>,
}

impl Calls {
    /// `None` where nothing says where a Backstage is.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>, StartError> {
        let settings = &settings.backstage;
        if settings.base_url.is_none() && settings.endpoints.is_empty() {
            return Ok(None);
        }
        let discovery = Discovery::new(settings);
        let (tokens, signed): (Arc<dyn PluginTokens>, _) = match &settings.token {
            Some(token) => (Arc::new(FixedToken::new(token)), None),
            None => {
                let later = Arc::new(LaterTokens::default());
                (Arc::clone(&later) as _, Some(later))
            }
        };
        let backstage = Backstage::new(discovery, tokens).map_err(|failure| {
            let help = "is this machine able to make TLS connections?";
            StartError::new(failure.detail, "backend.baseUrl", help)
        })?;
        Ok(Some(Self { backstage, signed }))
    }
}

/// The events bus of a Backstage, for the plugin `signals`; `None` where there is none or it is
/// not to be used.
pub(super) fn events(settings: &Settings, keys: &PluginKeys) -> Result<Option<Backstage>, Failure> {
    let discovery = Discovery::new(&settings.backstage);
    if settings.event_bus == EventBus::Never || discovery.internal("events").is_none() {
        return Ok(None);
    }
    let tokens: Arc<dyn PluginTokens> = match &settings.backstage.token {
        Some(token) => Arc::new(FixedToken::new(token)),
        None => Arc::new(keys.speaking_as(Plugin::Signals)),
    };
    Backstage::new(discovery, tokens).map(Some)
}

/// The live catalog.
pub(super) fn catalog(
    settings: &Settings,
    calls: Option<&Calls>,
) -> Result<Arc<dyn Catalog>, StartError> {
    // The configuration is refused before where nothing says where it is.
    let calls = calls.ok_or_else(|| {
        let help = "set backend.baseUrl or discovery.endpoints";
        StartError::new("Backstage is nowhere", "tidings.catalog.source", help)
    })?;
    let backstage = calls.backstage.clone();
    let catalog = BackstageCatalog::new(backstage, &settings.catalog);
    Ok(Arc::new(catalog))
}

/// Where the live catalog is.
pub(super) fn place(calls: Option<&Calls>) -> String {
    let root = calls.and_then(|calls| calls.backstage.discovery().internal("catalog"));
    root.map_or_else(String::new, String::from)
}

/// Asks the live catalog who is in it; where only a process that runs may sign in, whether it is
/// there.
pub(super) async fn ask(
    calls: Option<&Calls>,
    catalog: &Arc<dyn Catalog>,
) -> Result<String, Failure> {
    match calls {
        Some(calls) if calls.signed.is_some() => {
            calls.backstage.finds("catalog", PATIENCE).await?;
            Ok(
                "it answers; whether it takes what Tidings signs is seen when Tidings runs, in \
                 `tidings status`"
                    .to_owned(),
            )
        }
        _ => catalog.describe().await,
    }
}
