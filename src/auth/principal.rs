//! Who may be calling, whose API it is, and why a caller is turned away.

use std::time::Duration;

/// Whose API is called. To Backstage we are two plugins: the audience of a plugin's token and the
/// name in `accessRestrictions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// `/api/notifications`, and what is ours under `/api/tidings`.
    Notifications,
    /// `/api/signals`.
    Signals,
}

impl Plugin {
    /// Its id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::Signals => "signals",
        }
    }

    /// How long a caller of it waits while keys are fetched. A page gives up on its socket after a
    /// second and comes back; a producer that is turned away may have nothing to try again with.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Notifications => Duration::from_secs(4),
            Self::Signals => Duration::from_millis(450),
        }
    }
}

/// What a service may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Send notifications, and see what became of those it sent.
    pub send: bool,
    /// Everything an operator does; sending included.
    pub operate: bool,
}

impl Scopes {
    /// To send.
    pub const SEND: Self = Self {
        send: true,
        operate: false,
    };
    /// To send and to operate.
    pub const OPERATE: Self = Self {
        send: true,
        operate: true,
    };

    /// Reads the words of a stored token; unknown ones give no right.
    pub fn of(words: &[String]) -> Self {
        let has = |wanted: &str| words.iter().any(|word| word == wanted);
        Self {
            send: has("send") || has("operate"),
            operate: has("operate"),
        }
    }
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A person.
    User {
        /// Their ref, as their token says it.
        reference: String,
    },
    /// A producer or an operator.
    Service {
        /// The origin of what it sends.
        subject: String,
        /// What it may do.
        scopes: Scopes,
        /// The hash of its token, if that is in the store's table.
        token: Option<String>,
    },
}

/// Why a caller is turned away. The words are the peer's (contract 8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token at all.
    #[error("Missing credentials")]
    Missing,
    /// A token that nobody knows, or one that has ended.
    #[error("Illegal token")]
    Illegal,
    /// A user token with a wrong signature, or one that has ended.
    #[error("Failed user token verification; caused by {0}")]
    UserToken(&'static str),
    /// A token of a Backstage plugin that cannot be verified.
    #[error("Failed plugin token verification; caused by {0}")]
    PluginToken(&'static str),
    /// A token of a Backstage plugin that shows no keys.
    #[error(
        "Failed plugin token verification; caused by the plugin '{0}' having no keys to verify it \
         with; it needs to be migrated to Backstage's new backend system"
    )]
    NotMigrated(String),
    /// A token that is made for cookies alone.
    #[error("Illegal limited user token")]
    LimitedUserToken,
    /// The configuration restricts the token to other plugins.
    #[error("This token's access is restricted to plugin(s) {0}")]
    Restricted(String),
    /// Whoever issued it cannot be asked for keys: nothing is known of the token.
    #[error("the keys to verify this token with cannot be fetched now; try again")]
    Unavailable,
}

impl AuthError {
    /// Whether the caller is known and not allowed (403), rather than unknown (401).
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::Restricted(_))
    }

    /// Whether it may be known a moment later (503).
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }
}
