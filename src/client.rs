//! The one way in which Tidings calls other services over HTTP.

use std::time::Duration;

/// The longest a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What every HTTP client of Tidings begins as: TLS by ring, no redirects (a service that moves is
/// a matter of configuration, and a redirect could lead inside), and a name of our own. Set the
/// time limit of a whole request on what is built.
pub fn builder() -> reqwest::ClientBuilder {
    // Fails only when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
}
