//! Configuration: YAML files in Backstage's keys and our own, the environment, and flags.
//!
//! [`Config`] is the merged tree, in which every value knows where it was written; [`Settings`] is
//! what it says; a processor reads its own [`Section`] into a struct of its own. Precedence: flag,
//! environment, last file. Reading has no other effect than reading, and no error shows a secret.

mod de;
pub mod duration;
mod environment;
mod error;
pub mod keys;
mod secret;
mod section;
mod settings;
mod source;
mod substitute;
mod tree;

use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

pub use self::environment::Environment;
pub use self::error::ConfigError;
pub use self::secret::Secret;
pub use self::section::Section;
pub use self::settings::AccessMeans;
pub use self::settings::BackstageSettings;
pub use self::settings::CatalogSettings;
pub use self::settings::CatalogSource;
pub use self::settings::ChannelSettings;
pub use self::settings::CorsSettings;
pub use self::settings::DecoratorSettings;
pub use self::settings::DiscoveryEndpoint;
pub use self::settings::EventBus;
pub use self::settings::ExternalAccess;
pub use self::settings::InboxRetention;
pub use self::settings::IngestSettings;
pub use self::settings::JwksAccess;
pub use self::settings::QueueSettings;
pub use self::settings::RetentionSettings;
pub use self::settings::Settings;
pub use self::settings::StoreSettings;
pub use self::source::Place;

#[cfg(feature = "backstage")]
pub(crate) use self::settings::with_plugin;
use self::source::At;
use self::tree::Data;
use self::tree::Node;

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "tidings.yaml";

/// The configuration as a merged tree.
#[derive(Clone, Debug)]
pub struct Config {
    root: Node,
    /// A file was read.
    files: bool,
    /// A variable `APP_CONFIG_…` was set.
    variables: bool,
}

impl Config {
    /// Reads these files, later ones overriding, then the environment, then `overrides` by dotted
    /// key, which come from flags.
    ///
    /// # Errors
    /// The first file that cannot be read, with the line where it has one.
    pub fn load(
        files: &[PathBuf],
        overrides: &[(String, Value)],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::empty();
        for path in files {
            let file = tree::read(path)?;
            let Some(file) = whole(file, path)? else {
                config.files = true;
                continue;
            };
            config.root.merge(substituted(file, "", environment));
            config.files = true;
        }
        for variable in environment.settings() {
            config.root.merge(variable);
            config.variables = true;
        }
        for (key, value) in overrides {
            let place = Place::new(At::Flag(key.clone()));
            let keys: Vec<&str> = key.split('.').collect();
            config
                .root
                .merge(Node::from_json(value.clone(), &place).under(&keys));
        }
        config.root.drop_nulls();
        Ok(config)
    }

    /// As [`Config::load`] with [`DEFAULT_FILE`], if it is there, when no file is named.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_default(
        files: &[PathBuf],
        overrides: &[(String, Value)],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        if files.is_empty() && default.is_file() {
            return Self::load(&[default.to_owned()], overrides, environment);
        }
        Self::load(files, overrides, environment)
    }

    /// No configuration at all.
    pub fn empty() -> Self {
        Self {
            root: Node::new(Data::Map(Vec::new()), Place::new(At::Absent(String::new()))),
            files: false,
            variables: false,
        }
    }

    /// A part of it, by dotted key, as in `notifications.processors.email`.
    pub fn section(&self, dotted: &str) -> Section {
        let mut keys = dotted.split('.');
        let first = keys.next().unwrap_or_default();
        let top = Section {
            key: first.to_owned(),
            node: self.root.get(first).cloned(),
            above: None,
        };
        keys.fold(top, |section, key| section.get(key))
    }

    /// What it says, typed.
    ///
    /// # Errors
    /// The first thing in it that cannot be.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        settings::read(self)
    }

    /// What it says, for a program that needs the queue and no store.
    ///
    /// # Errors
    /// As [`Config::settings`], but that a store is missing.
    #[cfg(feature = "rabbitmq")]
    pub fn worker_settings(&self) -> Result<Settings, ConfigError> {
        settings::read_for_worker(self)
    }

    /// What it says without what cannot be, and everything in it that cannot: for a check that
    /// tells all at once. No settings are left where a fault cannot be cut out.
    pub fn examine(&self) -> (Option<Settings>, Vec<ConfigError>) {
        let mut sound = self.clone();
        let mut faults = Vec::new();
        loop {
            match sound.settings() {
                Ok(settings) => return (Some(settings), faults),
                Err(fault) => {
                    let key = fault.key.clone();
                    faults.push(fault);
                    // Each turn takes something away, so there is an end.
                    if !key.is_some_and(|key| sound.root.cut(&key)) {
                        return (None, faults);
                    }
                }
            }
        }
    }

    /// What is probably not meant as it is written, though nothing keeps it from starting.
    pub fn warnings(&self) -> Vec<ConfigError> {
        settings::warnings(self)
    }

    /// Whether no file was read.
    pub fn is_empty(&self) -> bool {
        !self.files
    }

    /// Whether nothing was configured at all; flags do not count.
    fn is_bare(&self) -> bool {
        !self.files && !self.variables
    }
}

/// The tree of a file; `None` for an empty one.
fn whole(file: Node, path: &Path) -> Result<Option<Node>, ConfigError> {
    match file.data {
        Data::Map(_) => Ok(Some(file)),
        Data::Null => Ok(None),
        _ => Err(ConfigError::new(
            "a configuration file holds keys and values",
            Place::new(At::File(path.to_owned())),
            "as in `tidings: { listen: 127.0.0.1:7117 }`",
        )),
    }
}

/// Makes the substitutions under the keys that are read; `key` is where `node` stands.
fn substituted(node: Node, key: &str, environment: &Environment) -> Node {
    if keys::READ.contains(&key) || substitute::is_directive(&node) {
        return substitute::substitute(node, key, environment);
    }
    let Data::Map(entries) = node.data else {
        return node;
    };
    let below = |(name, node): (String, Node)| {
        let key = if key.is_empty() {
            name.clone()
        } else {
            format!("{key}.{name}")
        };
        let read = keys::READ.iter().any(|read| {
            let rest = read.strip_prefix(key.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let node = if read {
            substituted(node, &key, environment)
        } else {
            node
        };
        (name, node)
    };
    Node {
        data: Data::Map(entries.into_iter().map(below).collect()),
        ..node
    }
}
