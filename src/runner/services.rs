//! What the roles of a process share: the catalog and the processors, built from the
//! configuration.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Roles;
use super::StartError;
use super::calls;
use super::calls::Calls;
use crate::catalog::Catalog;
use crate::catalog::file::FileCatalog;
use crate::config::CatalogSource;
use crate::config::Config;
use crate::config::Settings;
use crate::decorator::Chain;
use crate::inbox::Processor;
use crate::processor::Audience;
use crate::processor::Policy;
use crate::processor::Sender;
use crate::processor::Stage;
use crate::processor::Step;
use crate::processor::foreign::ForeignSender;
use crate::processor::registry;
use crate::processor::switchboard;
use crate::settings::Switchboard;
use crate::topology;
use crate::topology::QueueSpec;

/// The demo user of development mode.
pub const GUEST: &str = "user:development/guest";

/// The catalog of development mode, as it is first written: an example to edit.
const PEOPLE: &str = "\
# The people Tidings knows, as Backstage catalog entities. Read again when you save it.
apiVersion: backstage.io/v1alpha1
kind: User
metadata:
  name: guest
  namespace: development
spec:
  profile:
    displayName: Guest
    email: guest@example.com
";

/// The catalog and the processors.
#[derive(Clone)]
pub struct Services {
    /// Who belongs to whom.
    pub catalog: Arc<dyn Catalog>,
    /// Where the catalog's entities come from, if from files.
    pub people: Vec<PathBuf>,
    /// The Backstage that Tidings calls, where it is said where one is.
    pub backstage: Option<Calls>,
    /// The decorators, in configured order.
    pub chain: Chain,
    /// The senders that are configured.
    pub senders: Vec<Arc<dyn Sender>>,
    /// The senders that are somebody else's workers.
    pub foreign: Vec<Arc<ForeignSender>>,
}

impl Services {
    /// Builds them.
    ///
    /// # Errors
    /// What cannot be made as configured, and where.
    pub fn build(config: &Config, settings: &Settings, roles: &Roles) -> Result<Self, StartError> {
        let backstage = Calls::of(settings)?;
        let (catalog, people): (Arc<dyn Catalog>, _) = match settings.catalog.source {
            CatalogSource::File => {
                let people = people(settings)?;
                (Arc::new(open_catalog(people.clone())?), people)
            }
            CatalogSource::Backstage => (calls::catalog(settings, backstage.as_ref())?, Vec::new()),
        };
        let given = given(settings, Arc::clone(&catalog));
        let senders = registry::senders(config, &given)?;
        let chain = Chain(registry::decorators(settings, &given)?);
        for name in &roles.senders {
            if !senders.iter().any(|sender| sender.name() == name) {
                return Err(StartError::new(
                    format!("there is nothing to send `{name}` with"),
                    format!("notifications.processors.{name}"),
                    "configure it there: for email, a transportConfig and a sender",
                ));
            }
        }
        Ok(Self {
            catalog,
            people,
            backstage,
            chain,
            senders,
            foreign: settings.senders.iter().cloned().map(Arc::new).collect(),
        })
    }

    /// Who might want a delivery: the senders of ours, then those of others.
    pub fn routes(&self) -> Vec<Arc<dyn Sender>> {
        let foreign = self
            .foreign
            .iter()
            .map(|one| Arc::clone(one) as Arc<dyn Sender>);
        self.senders.iter().cloned().chain(foreign).collect()
    }

    /// What people may switch on and off: the inbox and each sender that asks them.
    pub fn board(&self, settings: &Settings) -> Switchboard {
        switchboard(&self.routes(), settings.default_settings.clone())
    }

    /// Every work queue that this configuration needs.
    pub fn queues(&self) -> Vec<QueueSpec> {
        queues(&self.routes(), &self.chain.0)
    }

    /// Where the live catalog is, if there is one.
    pub fn live_catalog(&self) -> String {
        calls::place(self.backstage.as_ref())
    }

    /// What is configured, in the order in which it runs.
    pub fn processors(&self) -> Vec<Processor> {
        let decorators = self.chain.0.iter().map(|step| match step {
            Step::Here(link) => Processor {
                name: link.decorator.name().to_owned(),
                kind: "decorator",
                place: "here",
                detail: format!(
                    "once per {}, {}",
                    match link.decorator.stage() {
                        Stage::PerSubmission => "submission",
                        Stage::PerPerson => "person",
                    },
                    on_failure(link.policy, link.timeout)
                ),
                channel: None,
            },
            Step::Queue(step) => Processor {
                name: step.name.clone(),
                kind: "decorator",
                place: "queue",
                detail: format!("once per chunk, {}", on_failure(step.policy, step.timeout)),
                channel: None,
            },
        });
        let foreign: Vec<&str> = self.foreign.iter().map(|one| one.name.as_str()).collect();
        let routes = self.routes();
        let senders = routes.iter().map(|sender| Processor {
            name: sender.name().to_owned(),
            kind: "sender",
            place: if foreign.contains(&sender.name()) {
                "queue"
            } else {
                "here"
            },
            detail: match sender.audience() {
                Audience::PerPerson => "to each person",
                Audience::PerSubmission => "once per submission",
                Audience::NamedAndSubmission => "to people who are named, and once for the rest",
            }
            .to_owned(),
            channel: Some(sender.channel().to_owned()),
        });
        decorators.chain(senders).collect()
    }

    /// The names of the senders of ours.
    pub fn sender_names(&self) -> Vec<String> {
        self.senders
            .iter()
            .map(|sender| sender.name().to_owned())
            .collect()
    }
}

fn on_failure(policy: Policy, timeout: Duration) -> String {
    let word = match policy {
        Policy::Skip => "skipped",
        Policy::Retry => "tried again",
    };
    format!("{word} when it fails or takes {} ms", timeout.as_millis())
}

/// Every work queue for these senders and steps.
pub(super) fn queues(senders: &[Arc<dyn Sender>], steps: &[Step]) -> Vec<QueueSpec> {
    let names: Vec<String> = senders.iter().map(|one| one.name().to_owned()).collect();
    let foreign = steps.iter().filter_map(|step| match step {
        Step::Here(_) => None,
        Step::Queue(step) => Some(step.name.as_str()),
    });
    let mut all = topology::queues(&names);
    all.extend(topology::decorate_queues(foreign));
    all
}

/// What processors are given.
pub(super) fn given(settings: &Settings, catalog: Arc<dyn Catalog>) -> registry::Services {
    registry::Services {
        catalog,
        app_base_url: settings.app_base_url.clone(),
        data: settings.data.clone(),
        development: settings.development,
        embedded: settings.store.is_none(),
        outbox: settings.retention.outbox,
    }
}

/// Reads the catalog files.
pub(super) fn open_catalog(files: Vec<PathBuf>) -> Result<FileCatalog, StartError> {
    FileCatalog::open(files).map_err(|error| StartError {
        code: 3,
        ..StartError::new(
            error.to_string(),
            error.at(),
            "a catalog file holds Backstage entities of kind User and Group; for the catalog of a running Backstage set tidings.catalog.source: backstage",
        )
    })
}

/// In development mode, where our own catalog file is, or will be.
pub(super) fn development_people(settings: &Settings) -> Option<PathBuf> {
    settings
        .development
        .then(|| settings.data.join("people.yaml"))
}

/// The catalog files; in development mode one of our own, which is made if it is not there.
fn people(settings: &Settings) -> Result<Vec<PathBuf>, StartError> {
    let Some(path) = development_people(settings) else {
        return Ok(settings.catalog.files.clone());
    };
    let made = std::fs::create_dir_all(&settings.data).and_then(|()| write_once(&path));
    made.map_err(|error| {
        StartError::new(
            format!("cannot write {}: {error}", path.display()),
            "tidings.data",
            "make the data directory writable, or choose another with tidings.data",
        )
    })?;
    Ok(vec![path])
}

fn write_once(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    std::fs::write(path, PEOPLE)
}
