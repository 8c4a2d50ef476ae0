//! Reading the tables of Backstage's own notifications backend, to move over from it.
//!
//! One transaction sees one state of them, and changes nothing. What an older version has not got
//! yet (`icon`, `metadata`, `topic` of a setting) is read as absent. Source of the tables: the
//! migrations of `@backstage/plugin-notifications-backend` 0.6.11.

use std::fmt;

use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::describe;
use super::passfile;
use super::pool;
use super::tls::Tls;
use super::types::large;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::store::ImportMark;
use crate::store::ImportPart;
use crate::store::ImportRows;
use crate::store::Setting;
use crate::store::StoreError;

/// The database that Backstage makes for the plugin, unless it is told otherwise.
const DATABASE: &str = "backstage_plugin_notifications";

/// The schema that it uses where all plugins share a database.
const SCHEMA: &str = "notifications";

/// The database of a Backstage, as of one moment.
pub struct Peer {
    client: Client,
    place: String,
    tables: Tables,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Rows of it.
#[derive(Debug)]
pub struct PeerBatch {
    /// What they are here.
    pub rows: ImportRows,
    /// The key of the last one.
    pub last: Vec<String>,
    /// How many rows there they are.
    pub read: u64,
    /// What could not be taken as it stood, one sentence each.
    pub odd: Vec<String>,
}

impl Peer {
    /// Connects. `url` is as `tidings.store.url`, with the same parameters. Without a database it
    /// is that of the plugin; without a password, that of `PGPASSWORD` or of libpq's password file.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it; that nobody answers; that these tables are
    /// not there or may not be read.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let wrong = |why: String| {
            StoreError::Schema(format!(
                "{why}; expected postgres://user@host:5432/{DATABASE}"
            ))
        };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("not a PostgreSQL URL".to_owned()));
        }
        let (url, tls) = Tls::split(url).map_err(wrong)?;
        let mut config: Config = url.parse().map_err(|error| wrong(describe(&error)))?;
        config.ssl_mode(tls.mode);
        pool::settle(&mut config);
        let server = pool::place(&config).ok_or_else(|| wrong("it names no host".to_owned()))?;
        if config.get_dbname().is_none_or(str::is_empty) {
            config.dbname(DATABASE);
        }
        if config.get_password().is_none()
            && let Some(password) = passfile::password(&config)
        {
            config.password(password);
        }
        let place = format!("{server}/{}", config.get_dbname().unwrap_or(DATABASE));
        let connector = tls.connector().map_err(wrong)?;
        let away = |error| Self::fault(&place, &error);
        let (client, connection) = config.connect(connector).await.map_err(away)?;
        tokio::spawn(connection);
        client
            .batch_execute("begin isolation level repeatable read read only")
            .await
            .map_err(away)?;
        let tables = Tables::find(&client).await.map_err(away)?;
        let tables = tables.ok_or_else(|| {
            StoreError::Schema(format!(
                "{place} has no tables of Backstage's notifications; name the plugin's database, by default {DATABASE}"
            ))
        })?;
        Ok(Self {
            client,
            place,
            tables,
        })
    }

    /// Host, port and database.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// That they cannot be read.
    pub async fn count(&self, part: ImportPart) -> Result<u64, StoreError> {
        let sql = format!("select count(*) from {}", self.tables.of(part));
        let row = self.client.query_one(&sql, &[]).await;
        let row = row.map_err(|error| Self::fault(&self.place, &error))?;
        let count = row.try_get(0);
        Ok(large(
            count.map_err(|error| Self::fault(&self.place, &error))?,
        ))
    }

    /// Up to `limit` rows after the one with that key, in the order of their keys; `None` after the
    /// last one.
    ///
    /// # Errors
    /// That they cannot be read.
    pub async fn read(
        &self,
        part: ImportPart,
        after: &[String],
        limit: u32,
    ) -> Result<Option<PeerBatch>, StoreError> {
        let rows = self.rows(part, after, limit).await;
        let rows = rows.map_err(|error| Self::fault(&self.place, &error))?;
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = match part {
            ImportPart::Broadcasts | ImportPart::Notifications => notifications(part, &rows),
            ImportPart::Marks => marks(&rows),
            ImportPart::Settings => settings(&rows),
        };
        let batch = batch.map_err(|error| Self::fault(&self.place, &error))?;
        Ok(Some(batch))
    }

    async fn rows(
        &self,
        part: ImportPart,
        after: &[String],
        limit: u32,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let limit = i64::from(limit);
        let key = |at: usize| after.get(at).map_or("", String::as_str);
        // The nil UUID is before every other one, and no row's.
        let id = Uuid::parse_str(key(0)).unwrap_or_default();
        let (first, second, third, fourth) = (key(0), key(1), key(2), key(3));
        let params: &[&(dyn ToSql + Sync)] = match part {
            ImportPart::Broadcasts | ImportPart::Notifications => &[&limit, &id],
            ImportPart::Marks => &[&limit, &id, &second],
            ImportPart::Settings => &[&limit, &first, &second, &third, &fourth],
        };
        let sql = self.tables.select(part);
        self.client.query(&sql, params).await
    }

    fn fault(place: &str, error: &tokio_postgres::Error) -> StoreError {
        StoreError::Unavailable(format!("PostgreSQL at {place}: {}", describe(error)))
    }
}

/// Where the tables are and what they have.
#[derive(Debug, PartialEq, Eq)]
struct Tables {
    /// `schema.`, or nothing where they are found without.
    schema: String,
    icon: bool,
    metadata: bool,
    topic: bool,
}

impl Tables {
    async fn find(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        const FOUND: &str = "select bool_and(to_regclass($1 || t) is not null)
            from unnest('{notification,broadcast,broadcast_user_status,user_settings}'::text[]) t";
        const HAS: &str = "select exists (select from pg_attribute
            where attrelid = to_regclass($1) and attname = $2 and not attisdropped)";
        for schema in [String::new(), format!("{SCHEMA}.")] {
            if !client
                .query_one(FOUND, &[&schema])
                .await?
                .try_get::<_, bool>(0)?
            {
                continue;
            }
            let has = async |table: &str, column: &str| {
                let table = format!("{schema}{table}");
                client
                    .query_one(HAS, &[&table, &column])
                    .await?
                    .try_get::<_, bool>(0)
            };
            return Ok(Some(Self {
                icon: has("notification", "icon").await?,
                metadata: has("notification", "metadata").await?,
                topic: has("user_settings", "topic").await?,
                schema,
            }));
        }
        Ok(None)
    }

    fn of(&self, part: ImportPart) -> String {
        let table = match part {
            ImportPart::Broadcasts => "broadcast",
            ImportPart::Marks => "broadcast_user_status",
            ImportPart::Notifications => "notification",
            ImportPart::Settings => "user_settings",
        };
        format!("{}{table}", self.schema)
    }

    /// `$1` is how many at most, then comes the key of the last one, which an index orders.
    fn select(&self, part: ImportPart) -> String {
        let from = self.of(part);
        let column = |there: bool, name: &str| {
            if there {
                name.to_owned()
            } else {
                format!("null::text as {name}")
            }
        };
        let (icon, metadata) = (column(self.icon, "icon"), column(self.metadata, "metadata"));
        let own = match part {
            ImportPart::Notifications => r#""user", read, saved"#,
            _ => r#"null::text as "user", null::timestamptz as read, null::timestamptz as saved"#,
        };
        match part {
            ImportPart::Broadcasts | ImportPart::Notifications => format!(
                "select id, origin, scope, topic, title, description, severity, link, {icon}, \
                 {metadata}, created, updated, {own} from {from} where id > $2 order by id limit $1"
            ),
            ImportPart::Marks => format!(
                r#"select broadcast_id, "user", read, saved from {from} where (broadcast_id, "user") > ($2, $3) order by broadcast_id, "user" limit $1"#
            ),
            // Nothing there forbids the same key twice, by another hash; then off wins.
            ImportPart::Settings => {
                let topic = if self.topic {
                    "coalesce(topic, '')"
                } else {
                    "''::text"
                };
                format!(
                    r#"select "user", channel, origin, {topic} as topic, bool_and(enabled), count(*) from {from} where "user" >= $2 and ("user", channel, origin, {topic}) > ($2, $3, $4, $5) group by 1, 2, 3, 4 order by 1, 2, 3, 4 limit $1"#
                )
            }
        }
    }
}

fn notifications(part: ImportPart, rows: &[Row]) -> Result<PeerBatch, tokio_postgres::Error> {
    let mut odd = Vec::new();
    let mut made = Vec::with_capacity(rows.len());
    for row in rows {
        let id: Uuid = row.try_get(0)?;
        let severity: &str = row.try_get(6)?;
        let severity = severity.parse().unwrap_or_else(|_| {
            odd.push(format!(
                "{id}: its severity is not known and becomes normal"
            ));
            Severity::default()
        });
        let metadata: Option<&str> = row.try_get(9)?;
        let metadata = metadata.and_then(|text| {
            let read = object(text);
            if read.is_none() {
                odd.push(format!(
                    "{id}: its metadata is not a JSON object and is left out"
                ));
            }
            read
        });
        made.push(Notification {
            id,
            user: row.try_get(12)?,
            origin: row.try_get(1)?,
            created: row.try_get(10)?,
            updated: row.try_get(11)?,
            read: row.try_get(13)?,
            saved: row.try_get(14)?,
            payload: Payload {
                scope: row.try_get(2)?,
                topic: row.try_get(3)?,
                title: row.try_get(4)?,
                description: row.try_get(5)?,
                severity: Some(severity),
                link: row.try_get(7)?,
                icon: row.try_get(8)?,
                metadata,
                extra: Map::new(),
            },
            submission: id,
        });
    }
    let last = made.last().map(|row| row.id.to_string());
    Ok(PeerBatch {
        read: made.len() as u64,
        rows: match part {
            ImportPart::Broadcasts => ImportRows::Broadcasts(made),
            _ => ImportRows::Notifications(made),
        },
        last: Vec::from_iter(last),
        odd,
    })
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

fn marks(rows: &[Row]) -> Result<PeerBatch, tokio_postgres::Error> {
    let made = rows.iter().map(|row| {
        Ok(ImportMark {
            broadcast: row.try_get(0)?,
            user: row.try_get(1)?,
            read: row.try_get(2)?,
            saved: row.try_get(3)?,
        })
    });
    let made: Vec<ImportMark> = made.collect::<Result<_, tokio_postgres::Error>>()?;
    let last = made.last();
    let last = last.map(|row| vec![row.broadcast.to_string(), row.user.clone()]);
    Ok(PeerBatch {
        read: made.len() as u64,
        last: last.unwrap_or_default(),
        rows: ImportRows::Marks(made),
        odd: Vec::new(),
    })
}

fn settings(rows: &[Row]) -> Result<PeerBatch, tokio_postgres::Error> {
    let mut made = Vec::with_capacity(rows.len());
    let mut odd = Vec::new();
    let (mut read, mut last) = (0, Vec::new());
    for row in rows {
        let (user, channel): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (origin, topic): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let there = large(row.try_get(5)?);
        if there > 1 {
            odd.push(format!(
                "{user}: the setting of {channel} for {origin} is there {there} times; off wins"
            ));
        }
        read += there;
        last = vec![user.clone(), channel.clone(), origin.clone(), topic.clone()];
        made.push(Setting {
            user,
            channel,
            origin,
            topic: Some(topic).filter(|topic| !topic.is_empty()),
            enabled: row.try_get(4)?,
        });
    }
    Ok(PeerBatch {
        rows: ImportRows::Settings(made),
        last,
        read,
        odd,
    })
}
