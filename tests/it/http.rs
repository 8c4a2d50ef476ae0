//! The HTTP side as its callers see it.

#[cfg(feature = "sqlite")]
pub(crate) mod house;
#[cfg(feature = "sqlite")]
mod inbox;
#[cfg(feature = "sqlite")]
mod ingest;
#[cfg(feature = "sqlite")]
mod signals;

use std::net::SocketAddr;
use std::sync::Once;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A client. Plain HTTP needs no TLS, but the library wants to know whose it would be.
pub(crate) fn client() -> reqwest::Client {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Routes that are served until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(tidings::http::serve(listener, app, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    /// An address of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Stops as at a shutdown; returns once what was in hand is answered.
    pub(crate) async fn drain(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}
