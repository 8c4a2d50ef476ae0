//! A look at the broker that makes nothing, for `tidings check`.

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::RabbitSettings;
use super::link::Target;
use super::link::within;
use super::topology::Topology;
use super::wire::short;
use crate::queue::QueueError;

/// What stands on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How many of the queues that a process needs are there.
    pub there: usize,
    /// The names of those that are not.
    pub missing: Vec<String>,
}

/// Signs in and looks which queues are there.
///
/// # Errors
/// That the broker does not answer, or refuses this user.
pub async fn probe(settings: &RabbitSettings) -> Result<Probe, QueueError> {
    settings.check().map_err(QueueError::Topology)?;
    let target = Target::new(&settings.url, settings.name.clone()).map_err(QueueError::Topology)?;
    let topology = Topology {
        prefix: settings.prefix.clone(),
        queues: settings.queues.clone(),
        steps: settings.steps.clone(),
    };
    let connection = target.connect().await?;
    let looked = look(&connection, &topology.queue_names()).await;
    // The broker need not answer: we are going anyway.
    let _ = within(connection.close(200, "looked".into())).await;
    looked
}

async fn look(connection: &Connection, names: &[String]) -> Result<Probe, QueueError> {
    let mut probe = Probe {
        there: 0,
        missing: Vec::new(),
    };
    let mut channel = within(connection.create_channel()).await?;
    for name in names {
        let options = QueueDeclareOptions::durable().passive();
        let asked = channel.queue_declare(short(name), options, FieldTable::default());
        match within(asked).await {
            Ok(_) => probe.there += 1,
            Err(QueueError::Topology(_)) => {
                probe.missing.push(name.clone());
                // A failed question closes its channel.
                channel = within(connection.create_channel()).await?;
            }
            Err(away) => return Err(away),
        }
    }
    Ok(probe)
}
