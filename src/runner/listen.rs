//! Listening: the sockets, who may come in, and the routes behind them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::Backend;
use super::Roles;
use super::Running;
use super::Services;
use super::StartError;
use crate::auth::Auth;
use crate::auth::Trust;
use crate::auth::UserKey;
use crate::auth::new_token;
#[cfg(feature = "backstage")]
use crate::backstage::Discovery;
#[cfg(feature = "backstage")]
use crate::config::CatalogSource;
use crate::config::Config;
#[cfg(feature = "backstage")]
use crate::config::EventBus;
use crate::config::Settings;
use crate::console;
use crate::console::ConsoleParts;
use crate::http;
use crate::http::admin_routes;
#[cfg(feature = "backstage")]
use crate::http::key_routes;
use crate::inbox;
use crate::inbox::InboxParts;
use crate::ingest;
use crate::ingest::IngestParts;
use crate::ingest::Waiter;
use crate::signals;
use crate::signals::Hub;
use crate::telemetry::metrics_handle;
use crate::time::Timestamp;

/// Where health and metrics go when no address is configured: the first free port of these, so
/// that many processes of one configuration share a host.
const ADMIN_PORTS: std::ops::Range<u16> = 7119..7200;

/// The origin of what is sent with the first token.
const FIRST_SUBJECT: &str = "external:cli";

/// The bound sockets of a process.
pub struct Listeners {
    /// The public routes of ingest or inbox.
    public: Option<TcpListener>,
    /// Health and metrics; absent when the public socket serves them too.
    admin: Option<TcpListener>,
}

impl Listeners {
    /// Where the process can be reached.
    pub(super) fn address(&self) -> SocketAddr {
        let socket = self.public.as_ref().or(self.admin.as_ref());
        let bound = socket.and_then(|socket| socket.local_addr().ok());
        bound.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where its health is.
    pub(super) fn admin_address(&self) -> SocketAddr {
        let admin = self
            .admin
            .as_ref()
            .and_then(|socket| socket.local_addr().ok());
        admin.unwrap_or_else(|| self.address())
    }
}

/// Binds what these roles need.
pub(super) async fn bind(
    config: &Config,
    settings: &Settings,
    roles: &Roles,
) -> Result<Listeners, StartError> {
    let command = if roles.is_everything() {
        "tidings up --listen"
    } else {
        "--listen"
    };
    let public = |address, key| bind_one(address, written(config, key), command);
    let public = if roles.is_everything() {
        Some(public(settings.listen, "tidings.listen").await?)
    } else if roles.inbox {
        let own = config.section("tidings.inbox.listen").exists();
        let key = if own {
            "tidings.inbox.listen"
        } else {
            "tidings.listen"
        };
        Some(public(settings.inbox_listen, key).await?)
    } else if roles.ingest {
        Some(public(settings.ingest_listen, "tidings.ingest.listen").await?)
    } else {
        None
    };
    // One process that does everything is asked at one address.
    let admin = match settings.admin_listen {
        None if roles.is_everything() => None,
        _ => Some(bind_admin(config, settings).await?),
    };
    Ok(Listeners { public, admin })
}

/// Binds the socket of health and metrics.
pub(super) async fn bind_admin(
    config: &Config,
    settings: &Settings,
) -> Result<TcpListener, StartError> {
    match settings.admin_listen {
        Some(address) => {
            let place = written(config, "tidings.admin.listen");
            bind_one(address, place, "--admin-listen").await
        }
        None => bind_first_free().await,
    }
}

/// Where the value of a key was written.
fn written(config: &Config, key: &str) -> String {
    let section = config.section(key);
    if section.exists() {
        section.place()
    } else {
        format!("{key} (default)")
    }
}

/// Binds a socket; `command` is what takes another address.
async fn bind_one(
    address: SocketAddr,
    place: String,
    command: &str,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        let mut other = address;
        other.set_port(address.port().saturating_add(100));
        let (why, first) = match error.kind() {
            std::io::ErrorKind::AddrInUse => (
                "address already in use".to_owned(),
                "if that is another Tidings, stop it; or ",
            ),
            std::io::ErrorKind::PermissionDenied => ("permission denied".to_owned(), ""),
            std::io::ErrorKind::AddrNotAvailable => {
                other = SocketAddr::from(([127, 0, 0, 1], address.port()));
                ("no such address on this machine".to_owned(), "")
            }
            _ => (error.to_string(), ""),
        };
        StartError::new(
            format!("cannot listen on {address}: {why}"),
            place,
            format!("{first}choose: {command} {other}"),
        )
    })
}

async fn bind_first_free() -> Result<TcpListener, StartError> {
    for port in ADMIN_PORTS {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(StartError::new(
        format!(
            "no free port from {} to {} for health and metrics",
            ADMIN_PORTS.start,
            ADMIN_PORTS.end - 1
        ),
        "tidings.admin.listen",
        "choose one: --admin-listen 127.0.0.1:0 takes any that is free",
    ))
}

/// Who may come in.
pub(super) fn auth(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
) -> Result<Auth, StartError> {
    let key = if roles.inbox || roles.ingest {
        let data = &settings.data;
        let opened = std::fs::create_dir_all(data).and_then(|()| UserKey::open(data));
        Some(opened.map_err(|error| {
            StartError::new(
                format!("cannot use the data directory: {error}"),
                format!("tidings.data: {}", data.display()),
                "make it writable, or choose another with tidings.data",
            )
        })?)
    } else {
        None
    };
    Ok(Auth::trusting(Vec::new(), key, &trust(settings, services)?))
}

/// Whom else to believe.
fn trust(settings: &Settings, services: &Services) -> Result<Trust, StartError> {
    #[cfg(feature = "backstage")]
    let client = crate::client::builder().build().map_err(|error| {
        StartError::new(
            format!("no keys can be fetched: {error}"),
            "TLS",
            "install the certificates of the authorities that this machine trusts",
        )
    })?;
    Ok(Trust {
        #[cfg(feature = "backstage")]
        client: Some(client),
        external: settings.external_access.clone(),
        #[cfg(feature = "backstage")]
        user_issuers: settings.user_issuers.clone(),
        #[cfg(feature = "backstage")]
        discovery: Some(Discovery::new(&settings.backstage)),
        #[cfg(feature = "backstage")]
        backstage_users: settings.catalog.source == CatalogSource::Backstage,
        catalog: Some(Arc::clone(&services.catalog)),
    })
}

/// Makes the first API token, if there is none yet: its secret goes into `<data>/token`, its hash
/// into the store. Says whether that is settled.
pub(super) async fn first_token(data: &Path, backend: &Backend, auth: &Auth) -> bool {
    let path = data.join("token");
    if path.exists() {
        return true;
    }
    let scopes = vec!["operate".to_owned()];
    let (secret, token) = new_token(FIRST_SUBJECT, scopes, None, Timestamp::now());
    if let Err(error) = backend.store.add_token(&token).await {
        tracing::debug!(%error, "the first token is made when the store is back");
        return false;
    }
    if let Err(error) = write_secret(&path, &secret) {
        tracing::error!(%error, file = %path.display(), "the first token was not kept");
        return true;
    }
    super::health::refresh_tokens(backend, auth).await;
    true
}

fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()
}

impl Running {
    /// Mounts the routes of the roles and serves them.
    pub(super) async fn serve(
        &mut self,
        settings: &Settings,
        services: &Services,
        roles: &Roles,
        listeners: Listeners,
    ) {
        let admin = admin_routes(self.readiness.clone(), metrics_handle());
        let ingest = roles.ingest.then(|| self.ingest(settings, services));
        let public = match (roles.inbox, ingest) {
            (true, ingest) => Some(self.inbox(settings, services, ingest)),
            (false, Some(parts)) => Some(ingest::routes(parts)),
            (false, None) => None,
        };
        // A Backstage that is told to find the plugin `notifications` at any of them finds the keys.
        #[cfg(feature = "backstage")]
        let public = public.map(|routes| routes.merge(key_routes(self.plugin_keys.clone())));
        let public = public.map(|routes| http::app(routes, &self.auth));
        let public = match (&settings.cors, public) {
            (Some(cors), Some(routes)) => Some(http::with_cors(routes, cors)),
            (_, public) => public,
        };
        if let (Some(socket), Some(routes)) = (listeners.public, public) {
            self.spawn_server(socket, routes.merge(admin.clone()));
        }
        if let Some(socket) = listeners.admin {
            self.spawn_server(socket, admin);
        }
    }

    fn spawn_server(&mut self, socket: TcpListener, routes: Router) {
        let stop = self.stop.clone();
        self.rest.spawn(async move {
            if let Err(error) = http::serve(socket, routes, stop).await {
                tracing::error!(%error, "the listener failed");
            }
        });
    }

    fn inbox(
        &mut self,
        settings: &Settings,
        services: &Services,
        ingest: Option<IngestParts>,
    ) -> Router {
        let hub = Hub::default();
        let queue = Arc::clone(&self.backend.queue);
        self.rest.spawn(hub.clone().run(queue, self.stop.clone()));
        #[cfg(feature = "backstage")]
        self.start_bus(settings, &hub);
        let board = services.board(settings);
        let parts = InboxParts {
            store: Arc::clone(&self.backend.store),
            queue: Arc::clone(&self.backend.queue),
            catalog: Arc::clone(&services.catalog),
            auth: self.auth.clone(),
            readiness: self.readiness.clone(),
            board: board.clone(),
            processors: Arc::new(services.processors()),
            backup: self.backend.backup.clone(),
        };
        let page = ConsoleParts {
            store: Arc::clone(&self.backend.store),
            queue: Arc::clone(&self.backend.queue),
            auth: self.auth.clone(),
            hub: hub.clone(),
            board,
            base_url: settings.app_base_url.clone(),
        };
        let mut routes = inbox::routes(parts)
            .merge(signals::routes(hub, self.auth.clone()))
            .merge(console::routes(page));
        if let Some(parts) = ingest {
            routes = routes.merge(ingest::routes(parts));
        }
        routes
    }

    /// Hears what other plugins of a Backstage tell open pages, where there is one.
    #[cfg(feature = "backstage")]
    fn start_bus(&mut self, settings: &Settings, hub: &Hub) {
        let backstage = match super::calls::events(settings, &self.plugin_keys) {
            Ok(Some(backstage)) => backstage,
            Ok(None) => return,
            Err(failure) => return self.readiness.note("events bus", &failure.detail),
        };
        let bus = signals::Bus {
            backstage,
            hub: hub.clone(),
            readiness: self.readiness.clone(),
            required: settings.event_bus == EventBus::Always,
        };
        self.rest.spawn(bus.run(self.stop.clone()));
    }

    fn ingest(&mut self, settings: &Settings, services: &Services) -> IngestParts {
        let waiter = Waiter::default();
        let queue = Arc::clone(&self.backend.queue);
        self.rest
            .spawn(waiter.clone().run(queue, self.stop.clone()));
        IngestParts {
            queue: Arc::clone(&self.backend.queue),
            waiter,
            events: self.events.clone(),
            base_url: settings.app_base_url.clone(),
            body_limit: settings.ingest.body_limit,
            wait: settings.ingest.wait,
            deadline: settings.ingest.deadline,
            defer_content: services.chain.decorates_whole(),
        }
    }
}
