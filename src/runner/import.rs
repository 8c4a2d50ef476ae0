//! Moving over from Backstage's own notifications backend: what its tables hold is put into the
//! store that the configuration names, in batches, each of which is remembered with its rows.

use crate::config::Settings;
use crate::runner::StartError;
use crate::runner::backend;
use crate::store::ImportPart;
use crate::store::ImportRows;
use crate::store::ImportStand;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::postgres::peer::Peer;

/// Rows read and written at once.
const BATCH: u32 = 5_000;

/// What happens meanwhile, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportEvent {
    /// A part begins, after so many rows that an earlier run had done.
    Begins {
        /// Which.
        part: ImportPart,
        /// Rows there.
        there: u64,
        /// Of them done before.
        done: u64,
    },
    /// So many rows of the part are done.
    Done(u64),
    /// Something could not be taken as it stood.
    Odd(String),
}

/// What an import did, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Host, port and database.
    pub source: String,
    /// Each part, in order.
    pub parts: Vec<PartReport>,
    /// How much could not be taken as it stood.
    pub odd: u64,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// Which.
    pub part: ImportPart,
    /// Rows there.
    pub there: u64,
    /// Of them done by an earlier run that was cut off.
    pub before: u64,
    /// Rows that this run read.
    pub read: u64,
    /// Rows that are new here.
    pub new: u64,
}

/// Moves over from the database at `from`; `dry` reads everything and writes nothing. It may be
/// cut off at any moment and goes on there the next time.
///
/// # Errors
/// What keeps either database from being read or written.
pub async fn import(
    settings: &Settings,
    from: &str,
    dry: bool,
    told: &(dyn Fn(ImportEvent) + Send + Sync),
) -> Result<ImportReport, StartError> {
    let peer = Peer::connect(from).await.map_err(|error| {
        let help = "name the database of Backstage, and a role that may read it";
        StartError::new(error.to_string(), "--from", help)
    })?;
    if dry {
        return Import {
            peer,
            store: None,
            told,
        }
        .run(None)
        .await;
    }
    let place = match &settings.store {
        Some(store) => store.shown(),
        None => settings.data.display().to_string(),
    };
    let here = |error: StoreError| {
        StartError::new(
            error.to_string(),
            place.clone(),
            "mend it and run this again: it goes on where it stopped",
        )
    };
    let store = backend::prepared(settings).await?;
    let stand = store.import_stand(peer.place()).await.map_err(here)?;
    let target = Target {
        store: store.as_ref(),
        fault: &here,
    };
    let import = Import {
        peer,
        store: Some(target),
        told,
    };
    import.run(stand).await
}

/// Where rows go.
struct Target<'a> {
    store: &'a dyn Store,
    fault: &'a (dyn Fn(StoreError) -> StartError + Send + Sync),
}

struct Import<'a> {
    peer: Peer,
    store: Option<Target<'a>>,
    told: &'a (dyn Fn(ImportEvent) + Send + Sync),
}

impl Import<'_> {
    async fn run(self, stand: Option<ImportStand>) -> Result<ImportReport, StartError> {
        let mut report = ImportReport {
            source: self.peer.place().to_owned(),
            parts: Vec::new(),
            odd: 0,
        };
        for part in ImportPart::ALL {
            let there = self.peer.count(part).await.map_err(from_there)?;
            let begin = match &stand {
                Some(stand) if part < stand.part => None,
                Some(stand) if part == stand.part => Some(stand.clone()),
                _ => Some(ImportStand {
                    part,
                    after: Vec::new(),
                    rows: 0,
                }),
            };
            let before = begin.as_ref().map_or(there, |begin| begin.rows);
            let mut done = PartReport {
                part,
                there,
                before,
                read: 0,
                new: 0,
            };
            (self.told)(ImportEvent::Begins {
                part,
                there,
                done: before,
            });
            if let Some(begin) = begin {
                report.odd += self.part(begin, &mut done).await?;
            }
            report.parts.push(done);
        }
        self.write(&ImportRows::Settings(Vec::new()), None).await?;
        Ok(report)
    }

    /// While rows are written, the next are read. Says how much was odd.
    async fn part(&self, mut stand: ImportStand, done: &mut PartReport) -> Result<u64, StartError> {
        let mut odd = 0;
        let mut next = self.read(&stand).await?;
        while let Some(batch) = next {
            stand.after = batch.last;
            stand.rows += batch.read;
            for sentence in batch.odd {
                odd += 1;
                (self.told)(ImportEvent::Odd(sentence));
            }
            let (new, following) =
                tokio::try_join!(self.write(&batch.rows, Some(&stand)), self.read(&stand))?;
            done.read += batch.read;
            done.new += new;
            (self.told)(ImportEvent::Done(done.before + done.read));
            next = following;
        }
        Ok(odd)
    }

    async fn read(
        &self,
        stand: &ImportStand,
    ) -> Result<Option<crate::store::postgres::peer::PeerBatch>, StartError> {
        let read = self.peer.read(stand.part, &stand.after, BATCH).await;
        read.map_err(from_there)
    }

    async fn write(
        &self,
        rows: &ImportRows,
        stand: Option<&ImportStand>,
    ) -> Result<u64, StartError> {
        let Some(target) = &self.store else {
            return Ok(0);
        };
        let written = target.store.import(self.peer.place(), rows, stand).await;
        written.map_err(target.fault)
    }
}

fn from_there(error: StoreError) -> StartError {
    let help = "run this again: it goes on where it stopped";
    StartError::new(error.to_string(), "--from", help)
}
