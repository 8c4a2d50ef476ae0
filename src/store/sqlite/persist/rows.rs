//! The inbox rows of a chunk: inserted, or updated where a scope meets an older submission.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use serde_json::Map;
use uuid::Uuid;

use super::Sheet;
use super::metadata;
use super::moved;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::store::Change;
use crate::store::Row;
use crate::store::RowStored;
use crate::store::sqlite::counts;
use crate::store::sqlite::types::broadcast_columns;
use crate::store::sqlite::types::notification;
use crate::store::sqlite::types::own_columns;
use crate::time::Timestamp;

/// Inserts a row, or updates the one of the same scope.
pub(super) fn write(
    to: &Connection,
    sheet: &Sheet,
    row: &Row,
    now: Timestamp,
) -> rusqlite::Result<RowStored> {
    let own = row.payload.as_ref();
    let metadata = match own {
        Some(own) => metadata(own),
        None => sheet.metadata.clone(),
    };
    let fields = Fields {
        sheet,
        row,
        payload: own.unwrap_or(&sheet.chunk.payload),
        metadata,
        now,
    };
    if let Some(scope) = fields.payload.scope() {
        let origin = &sheet.chunk.header.origin;
        moved::adopt(to, row.id, row.user.as_deref(), origin, scope)?;
    }
    if fields.insert(to)? {
        return Ok(RowStored {
            notification: fields.inserted(),
            change: Change::New,
        });
    }
    let is_broadcast = row.user.is_none();
    let held = to
        .prepare_cached(if is_broadcast {
            "select accepted_at, submission, 0 from broadcast where id = ?1"
        } else {
            "select accepted_at, submission, read is not null from notification where id = ?1"
        })?
        .query_row([row.id], |held| {
            let applied: (Timestamp, Uuid) = (held.get(0)?, held.get(1)?);
            Ok((applied, held.get::<_, bool>(2)?))
        })?;
    let header = &sheet.chunk.header;
    let change = match (header.accepted_at, header.id).cmp(&held.0) {
        std::cmp::Ordering::Greater => Change::Updated,
        std::cmp::Ordering::Equal => Change::Same,
        std::cmp::Ordering::Less => Change::Superseded,
    };
    if change == Change::Updated {
        fields.update(to)?;
        if let (Some(user), true) = (&row.user, held.1) {
            let unread = counts::Change {
                unread: 1,
                ..counts::Change::default()
            };
            counts::add(to, user, unread)?;
        }
    }
    let notification = stands(to, row.id, is_broadcast)?.ok_or(MISSING)?;
    Ok(RowStored {
        notification,
        change,
    })
}

/// A row that was there a moment ago, in this very transaction.
const MISSING: rusqlite::Error = rusqlite::Error::QueryReturnedNoRows;

/// What is written of a row.
struct Fields<'a> {
    sheet: &'a Sheet,
    row: &'a Row,
    payload: &'a Payload,
    metadata: Option<String>,
    now: Timestamp,
}

impl Fields<'_> {
    /// Inserts the row unless its id is there; says whether it did.
    fn insert(&self, to: &Connection) -> rusqlite::Result<bool> {
        const OWN: &str = "insert into notification
             (id, user, origin, scope, topic, title, description, severity, link, icon, metadata,
              created, submission, accepted_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             on conflict (id) do nothing";
        const BROADCAST: &str = "insert into broadcast
             (id, origin, scope, topic, title, description, severity, link, icon, metadata,
              created, submission, accepted_at)
             values (?1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             on conflict (id) do nothing";
        let user = self.row.user.as_deref();
        let sql = if user.is_some() { OWN } else { BROADCAST };
        let (header, payload) = (&self.sheet.chunk.header, self.payload);
        let made = to.prepare_cached(sql)?.execute(params![
            self.row.id,
            user,
            header.origin,
            payload.scope,
            payload.topic,
            payload.title,
            payload.description,
            payload.severity(),
            payload.link,
            payload.icon,
            self.metadata,
            self.now,
            header.id,
            header.accepted_at,
        ])?;
        if made == 0 {
            return Ok(false);
        }
        let change = counts::Change {
            unread: i64::from(user.is_some()),
            total: 1,
            broadcasts_read: 0,
        };
        counts::add(to, user.unwrap_or(counts::EVERYBODY), change)?;
        Ok(true)
    }

    /// The row as it was just inserted.
    fn inserted(&self) -> Notification {
        let header = &self.sheet.chunk.header;
        Notification {
            id: self.row.id,
            user: self.row.user.clone(),
            origin: header.origin.clone(),
            created: self.now,
            updated: None,
            read: None,
            saved: None,
            payload: Payload {
                severity: Some(self.payload.severity()),
                extra: Map::new(),
                ..self.payload.clone()
            },
            submission: header.id,
        }
    }

    /// Title, severity and metadata are replaced; description, link and topic only if given; icon
    /// never. It becomes unread; of a broadcast, the marks stay. Source: contract 2.1.
    fn update(&self, to: &Connection) -> rusqlite::Result<()> {
        const OWN: &str = "update notification set
             title = ?2, severity = ?3, metadata = ?4, description = ifnull(?5, description),
             link = ifnull(?6, link), topic = ifnull(?7, topic), updated = ?8, submission = ?9,
             accepted_at = ?10, read = null
             where id = ?1";
        const BROADCAST: &str = "update broadcast set
             title = ?2, severity = ?3, metadata = ?4, description = ifnull(?5, description),
             link = ifnull(?6, link), topic = ifnull(?7, topic), updated = ?8, submission = ?9,
             accepted_at = ?10
             where id = ?1";
        let sql = if self.row.user.is_some() {
            OWN
        } else {
            BROADCAST
        };
        let (header, payload) = (&self.sheet.chunk.header, self.payload);
        to.prepare_cached(sql)?
            .execute(params![
                self.row.id,
                payload.title,
                payload.severity(),
                self.metadata,
                payload.description,
                payload.link,
                payload.topic,
                self.now,
                header.id,
                header.accepted_at,
            ])
            .map(|_| ())
    }
}

/// A row as it stands; of a broadcast, without anybody's marks.
pub(super) fn stands(
    from: &Connection,
    id: Uuid,
    is_broadcast: bool,
) -> rusqlite::Result<Option<Notification>> {
    let own = concat!(
        "select ",
        own_columns!(),
        " from notification n where n.id = ?1"
    );
    let broadcast = concat!(
        "select ",
        broadcast_columns!(),
        " from broadcast n left join broadcast_mark m on false where n.id = ?1"
    );
    from.prepare_cached(if is_broadcast { broadcast } else { own })?
        .query_row([id], notification)
        .optional()
}
