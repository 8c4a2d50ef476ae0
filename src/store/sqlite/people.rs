//! What people chose, and who may call.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::params;

use super::types::Json;
use crate::settings::wire::Known;
use crate::store::ORIGINS;
use crate::store::PluginKey;
use crate::store::SECRET_BYTES;
use crate::store::Setting;
use crate::store::Token;
use crate::time::Timestamp;

/// How exactly a token's last use is kept, so that a busy token is not written at each use.
const USE_EXACT_TO: Duration = Duration::from_secs(60);

/// See [`crate::store::Store::settings`].
pub(super) fn settings(from: &Connection, users: &[String]) -> rusqlite::Result<Vec<Setting>> {
    let mut statement = from.prepare_cached(
        "select user, channel, origin, topic, enabled from setting where user = ?1
         order by channel, origin, topic",
    )?;
    let mut all = Vec::new();
    for user in users {
        let rows = statement.query_map([user], |row| {
            Ok(Setting {
                user: row.get(0)?,
                channel: row.get(1)?,
                origin: row.get(2)?,
                topic: row.get(3)?,
                enabled: row.get(4)?,
            })
        })?;
        for setting in rows {
            all.push(setting?);
        }
    }
    Ok(all)
}

/// See [`crate::store::Store::origins`].
pub(super) fn origins(from: &Connection, user: &str) -> rusqlite::Result<Known> {
    let mut known = Known::new();
    let mut statement = from.prepare_cached(ORIGINS)?;
    let mut rows = statement.query([user])?;
    while let Some(row) = rows.next()? {
        let topics = known.entry(row.get(0)?).or_default();
        topics.extend(row.get::<_, Option<String>>(1)?);
    }
    Ok(known)
}

/// See [`crate::store::Store::save_settings`].
pub(super) fn save_settings(
    to: &Connection,
    user: &str,
    settings: &[Setting],
) -> rusqlite::Result<()> {
    to.prepare_cached("delete from setting where user = ?1")?
        .execute([user])?;
    let mut insert = to.prepare_cached(
        "insert into setting (user, channel, origin, topic, enabled) values (?1, ?2, ?3, ?4, ?5)",
    )?;
    for one in settings {
        insert.execute(params![
            user,
            one.channel,
            one.origin,
            one.topic,
            one.enabled
        ])?;
    }
    Ok(())
}

/// See [`crate::store::Store::tokens`].
pub(super) fn tokens(from: &Connection) -> rusqlite::Result<Vec<Token>> {
    from.prepare_cached(
        "select hash, subject, scopes, created, expires, last_used from token
         order by created, hash",
    )?
    .query_map([], |row| {
        let Json(scopes) = row.get(2)?;
        Ok(Token {
            hash: row.get(0)?,
            subject: row.get(1)?,
            scopes,
            created: row.get(3)?,
            expires: row.get(4)?,
            last_used: row.get(5)?,
        })
    })?
    .collect()
}

/// See [`crate::store::Store::add_token`].
pub(super) fn add_token(to: &Connection, token: &Token) -> rusqlite::Result<()> {
    to.prepare_cached(
        "insert into token (hash, subject, scopes, created, expires, last_used)
         values (?1, ?2, ?3, ?4, ?5, ?6)
         on conflict (hash) do update set subject = excluded.subject, scopes = excluded.scopes,
           expires = excluded.expires",
    )?
    .execute(params![
        token.hash,
        token.subject,
        Json(&token.scopes),
        token.created,
        token.expires,
        token.last_used,
    ])
    .map(|_| ())
}

/// See [`crate::store::Store::revoke_token`].
pub(super) fn revoke_token(to: &Connection, hash: &str) -> rusqlite::Result<u64> {
    let ended = to
        .prepare_cached("delete from token where ?1 <> '' and substr(hash, 1, length(?1)) = ?1")?
        .execute([hash])?;
    Ok(ended as u64)
}

/// See [`crate::store::Store::touch_tokens`].
pub(super) fn touch_tokens(to: &Connection, hashes: &[String]) -> rusqlite::Result<()> {
    let now = Timestamp::now();
    let mut update = to.prepare_cached(
        "update token set last_used = ?2 where hash = ?1 and ifnull(last_used <= ?3, true)",
    )?;
    for hash in hashes {
        update.execute(params![hash, now, now.minus(USE_EXACT_TO)])?;
    }
    Ok(())
}

/// See [`crate::store::Store::add_plugin_key`].
pub(super) fn add_plugin_key(to: &Connection, key: &PluginKey) -> rusqlite::Result<()> {
    to.prepare_cached("delete from plugin_key where ends < ?1")?
        .execute([Timestamp::now()])?;
    to.prepare_cached(
        "insert into plugin_key (kid, jwk, ends) values (?1, ?2, ?3)
         on conflict (kid) do update set ends = excluded.ends",
    )?
    .execute(params![key.kid, Json(&key.jwk), key.ends])
    .map(|_| ())
}

/// See [`crate::store::Store::plugin_keys`].
pub(super) fn plugin_keys(from: &Connection, limit: u32) -> rusqlite::Result<Vec<PluginKey>> {
    from.prepare_cached(
        "select kid, jwk, ends from plugin_key where ?1 <= ends order by ends desc, kid limit ?2",
    )?
    .query_map(params![Timestamp::now(), limit], |row| {
        let Json(jwk) = row.get(1)?;
        Ok(PluginKey {
            kid: row.get(0)?,
            jwk,
            ends: row.get(2)?,
        })
    })?
    .collect()
}

/// See [`crate::store::Store::secret`].
pub(super) fn secret(to: &Connection, name: &str) -> rusqlite::Result<Vec<u8>> {
    to.prepare_cached("insert into secret (name, value) values (?1, ?2) on conflict do nothing")?
        .execute(params![name, rand::random::<[u8; SECRET_BYTES]>()])?;
    to.prepare_cached("select value from secret where name = ?1")?
        .query_row([name], |row| row.get(0))
}
