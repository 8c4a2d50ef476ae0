//! How the connection is secured: `sslmode` and `sslrootcert` of the URL, as libpq means them.
//!
//! | `sslmode` | encrypted | chain checked | name checked |
//! |---|---|---|---|
//! | `disable` | no | | |
//! | `prefer` (default) | if the server can | with `sslrootcert` | no |
//! | `require` | yes | with `sslrootcert` | no |
//! | `verify-ca` | yes | yes | no |
//! | `verify-full` | yes | yes | yes |
//!
//! The roots are those of `sslrootcert`, or the system's where none is named or it is `system`.
//! Source: PostgreSQL, "SSL Support", table "SSL Mode Descriptions".

use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What the URL asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whether to encrypt.
    pub(super) mode: SslMode,
    /// Where the roots are; `None` is the system's.
    root_file: Option<String>,
    /// What is checked of the server's certificate.
    check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

impl Tls {
    /// Takes `sslmode` and `sslrootcert` out of a URL and returns what is left of it.
    ///
    /// # Errors
    /// Says which value is wrong and what would be right.
    pub(super) fn split(url: &str) -> Result<(String, Self), String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root) = (None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(decode(value)),
                Some(("sslrootcert", value)) => root = Some(decode(value)),
                _ => rest.push(pair),
            }
        }
        let tls = Self::new(mode.as_deref(), root)?;
        let query = rest.join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        Ok((format!("{base}{mark}{query}"), tls))
    }

    fn new(mode: Option<&str>, root: Option<String>) -> Result<Self, String> {
        // libpq: a named root turns `require` into `verify-ca`, and the system's roots are only
        // worth something together with the name.
        let named = match root.as_deref() {
            None => Check::Nothing,
            Some("system") => Check::ChainAndName,
            Some(_) => Check::Chain,
        };
        let (mode, check) = match mode {
            Some("disable") => (SslMode::Disable, Check::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, named),
            Some("require") => (SslMode::Require, named),
            Some("verify-ca") if named == Check::ChainAndName => (SslMode::Require, named),
            Some("verify-ca") => (SslMode::Require, Check::Chain),
            Some("verify-full") => (SslMode::Require, Check::ChainAndName),
            Some(other) => {
                return Err(format!(
                    "sslmode `{other}` is not one of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        Ok(Self {
            mode,
            root_file: root.filter(|root| root != "system"),
            check,
        })
    }

    /// The connector for it.
    ///
    /// # Errors
    /// Says which file cannot be read or holds no certificate.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        self.config().map(MakeRustlsConnect::new)
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        Ok(match self.check {
            Check::ChainAndName => builder
                .with_root_certificates(self.roots()?)
                .with_no_client_auth(),
            Check::Chain => {
                let inner = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(self.roots()?),
                    Arc::clone(&provider),
                )
                .build()
                .map_err(|error| format!("TLS: {error}"))?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Lenient {
                        provider,
                        chain: Some(inner),
                    }))
                    .with_no_client_auth()
            }
            Check::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient {
                    provider,
                    chain: None,
                }))
                .with_no_client_auth(),
        })
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let (certificates, place) = match &self.root_file {
            Some(file) => {
                let read = CertificateDer::pem_file_iter(file)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| format!("sslrootcert `{file}`: {error}"))?;
                (read, format!("sslrootcert `{file}`"))
            }
            None => (
                rustls_native_certs::load_native_certs().certs,
                "the system's certificate store".to_owned(),
            ),
        };
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(format!("{place} holds no certificate that can be used"));
        }
        Ok(roots)
    }
}

/// `%41` becomes `A`; `+` stays, as in a path.
fn decode(value: &str) -> String {
    let pair = format!("v={}", value.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// Checks less than the name: the chain alone, or nothing but that the server holds its key.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The name is looked at last, so everything else was in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(url: &str) -> (String, Tls) {
        Tls::split(url).unwrap()
    }

    #[test]
    fn the_url_says_how_the_connection_is_secured() {
        let (rest, tls) = split("postgres://u:p@h/db?sslmode=verify-full&application_name=x");
        assert_eq!(rest, "postgres://u:p@h/db?application_name=x");
        assert_eq!(
            (tls.mode, tls.check),
            (SslMode::Require, Check::ChainAndName)
        );
        let (rest, tls) = split("postgres://h/db?sslmode=require&sslrootcert=%2Fa%2Bb+c.pem");
        assert_eq!(rest, "postgres://h/db");
        assert_eq!(tls.check, Check::Chain);
        assert_eq!(tls.root_file.as_deref(), Some("/a+b+c.pem"));
        let (_, tls) = split("postgres://h/db?sslrootcert=system&sslmode=require");
        assert_eq!((tls.check, tls.root_file), (Check::ChainAndName, None));
        let (_, tls) = split("postgres://h/db");
        assert_eq!((tls.mode, tls.check), (SslMode::Prefer, Check::Nothing));
        assert!(
            Tls::split("postgres://h/db?sslmode=maybe")
                .unwrap_err()
                .contains("verify-full")
        );
    }

    /// A certificate for `name`, its own root, and a server that shows it.
    fn certificate(name: &str) -> (String, rustls::ServerConfig) {
        use rustls::pki_types::PrivateKeyDer;
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let server =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![issued.cert.der().clone()], key)
                .unwrap();
        (issued.cert.pem(), server)
    }

    /// Whether a client of this URL and the server come to terms, both in memory.
    fn shake_hands(url: &str, server: rustls::ServerConfig) -> Result<(), Error> {
        let config = Arc::new(split(url).1.config().unwrap());
        let name = ServerName::try_from("db.example").unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_certificate_is_checked_as_far_as_the_url_asks() {
        let dir = tempfile::TempDir::new().unwrap();
        let shake = |mode: &str, trusted: bool, name: &str| {
            let (pem, server) = certificate(name);
            let root = dir.path().join("root.pem");
            let pem = if trusted { pem } else { certificate(name).0 };
            std::fs::write(&root, pem).unwrap();
            let url = format!(
                "postgres://h/db?sslmode={mode}&sslrootcert={}",
                root.display()
            );
            shake_hands(&url, server)
        };
        let (right, wrong) = ("db.example", "other.example");
        assert!(shake_hands("postgres://h/db?sslmode=require", certificate(wrong).1).is_ok());
        assert!(shake("verify-ca", true, wrong).is_ok());
        assert!(shake("verify-ca", false, right).is_err());
        assert!(shake("require", false, right).is_err());
        assert!(shake("verify-full", true, right).is_ok());
        assert!(shake("verify-full", true, wrong).is_err());
        assert!(shake("verify-full", false, right).is_err());
    }

    #[test]
    fn a_root_file_that_is_not_there_is_named() {
        let (_, tls) = split("postgres://h/db?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem");
        let why = tls.connector().err().unwrap();
        assert!(why.contains("/nowhere/ca.pem"), "{why}");
        assert!(split("postgres://h/db").1.connector().is_ok());
    }
}
