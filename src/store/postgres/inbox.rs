//! Reading inboxes: own rows by index, merged with broadcasts and the reader's marks on them.

use std::fmt::Write as _;

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::counts;
use super::error::Fault;
use super::types::broadcast_columns;
use super::types::large;
use super::types::notification;
use super::types::own_columns;
use crate::notification::Notification;
use crate::notification::Severity;
use crate::store::Direction;
use crate::store::OrderField;
use crate::store::Page;
use crate::store::Query;

/// Own rows; `n` is the table, `$1` the person.
macro_rules! own {
    () => {
        r#" from notification n where n."user" = $1"#
    };
}

/// Broadcasts; `m` holds the person's marks.
macro_rules! broadcasts {
    () => {
        r#" from broadcast n left join broadcast_mark m on m.broadcast = n.id and m."user" = $1 where true"#
    };
}

/// The conditions of a query and what they compare with, written for both tables.
struct Filter<'a> {
    own: String,
    broadcast: String,
    params: Vec<&'a (dyn ToSql + Sync)>,
}

impl<'a> Filter<'a> {
    /// Adds a condition in which `?` stands for `value`, `n.` for the notification, and `m.` for
    /// what the person did with it.
    fn with(&mut self, condition: &str, value: &'a (dyn ToSql + Sync)) {
        self.params.push(value);
        self.plain(&condition.replace('?', &format!("${}", self.params.len())));
    }

    fn plain(&mut self, condition: &str) {
        self.broadcast.push_str(" and ");
        self.broadcast.push_str(condition);
        self.own.push_str(" and ");
        self.own.push_str(&condition.replace("m.", "n."));
    }

    /// `columns` of everything that matches, of both tables.
    fn both(&self, own: &str, broadcast: &str) -> String {
        format!(
            "(select {own}{}{}) union all (select {broadcast}{}{})",
            own!(),
            self.own,
            broadcasts!(),
            self.broadcast
        )
    }
}

/// What the query compares with, in the database's types.
struct Values {
    search: Option<String>,
    severity: Option<i16>,
}

impl Values {
    fn of(query: &Query) -> Self {
        Self {
            search: query.search.as_ref().map(|text| format!("%{text}%")),
            // Nothing is less severe than `low`, so it is no condition.
            severity: query
                .minimum_severity
                .filter(|severity| *severity != Severity::Low)
                .map(Severity::rank),
        }
    }

    fn filter<'a>(&'a self, user: &'a &'a str, query: &'a Query) -> Filter<'a> {
        let mut filter = Filter {
            own: String::new(),
            broadcast: String::new(),
            params: vec![user],
        };
        if let Some(read) = query.read {
            filter.plain(if read {
                "m.read is not null"
            } else {
                "m.read is null"
            });
        }
        if let Some(saved) = query.saved {
            filter.plain(if saved {
                "m.saved is not null"
            } else {
                "m.saved is null"
            });
        }
        if let Some(search) = &self.search {
            // As in the peer, `%` and `_` are wildcards; nothing escapes them.
            filter.with(
                "(n.title ilike ? escape '' or n.description ilike ? escape '')",
                search,
            );
        }
        if let Some(after) = &query.created_after {
            filter.with("n.created >= ?", after);
        }
        if let Some(severity) = &self.severity {
            filter.with("n.severity <= ?", severity);
        }
        if let Some(topic) = &query.topic {
            filter.with("n.topic = ?", topic);
        }
        filter
    }

    /// Whether the counters know how many match: nothing is asked for but read or unread.
    fn are_counted(&self, query: &Query) -> bool {
        self.search.is_none()
            && self.severity.is_none()
            && query.saved.is_none()
            && query.created_after.is_none()
            && query.topic.is_none()
    }
}

/// See [`crate::store::Store::list`].
pub(super) async fn list(client: &Client, user: &str, query: &Query) -> Result<Page, Fault> {
    let (total, notifications) =
        futures::try_join!(total(client, user, query), page(client, user, query))?;
    Ok(Page {
        total,
        notifications,
    })
}

async fn total(client: &Client, user: &str, query: &Query) -> Result<u64, Fault> {
    let values = Values::of(query);
    if values.are_counted(query) {
        let counts = counts::read(client, user).await?;
        return Ok(match query.read {
            None => counts.read + counts.unread,
            Some(true) => counts.read,
            Some(false) => counts.unread,
        });
    }
    let filter = values.filter(&user, query);
    let sql = format!("select count(*) from ({}) x", filter.both("n.id", "n.id"));
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_one(&statement, &filter.params).await?;
    Ok(large(row.try_get(0)?))
}

async fn page(client: &Client, user: &str, query: &Query) -> Result<Vec<Notification>, Fault> {
    if query.limit == Some(0) {
        return Ok(Vec::new());
    }
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let limit = query.limit.map(whole);
    let offset = whole(query.offset);
    let top = limit.map(|limit| limit.saturating_add(offset));
    let values = Values::of(query);
    let mut filter = values.filter(&user, query);
    filter
        .params
        .extend([&top as &(dyn ToSql + Sync), &limit, &offset]);
    let last = filter.params.len();
    let top = format!("limit ${}", last - 2);
    let sql = format!(
        "select * from ((select {}{}{} order by {} {top}) union all (select {}{}{} order by {} {top})) x
 order by {} limit ${} offset ${last}",
        own_columns!(),
        own!(),
        filter.own,
        order(query, "n", "n"),
        broadcast_columns!(),
        broadcasts!(),
        filter.broadcast,
        order(query, "n", "m"),
        order(query, "x", "x"),
        last - 1,
    );
    let rows = if query.order.len() <= 1 {
        let statement = client.prepare_cached(&sql).await?;
        client.query(&statement, &filter.params).await?
    } else {
        // There are more compound orders than are worth keeping statements for.
        client.query(&sql, &filter.params).await?
    };
    rows.iter().map(|row| notification(row, 0)).collect()
}

/// The order of a query, newest first by default. Ties are broken by the id, in the direction of
/// the last field. Text is ordered by its bytes, so that every database says the same; what is
/// missing comes last in ascending order.
fn order(query: &Query, content: &str, marks: &str) -> String {
    const NEWEST: [(OrderField, Direction); 1] = [(OrderField::Created, Direction::Descending)];
    let fields = if query.order.is_empty() {
        &NEWEST[..]
    } else {
        &query.order[..]
    };
    let mut text = String::new();
    let mut last = "desc";
    for (field, direction) in fields {
        last = match direction {
            Direction::Ascending => "asc",
            Direction::Descending => "desc",
        };
        let _ = write!(text, "{} {last}, ", expression(*field, content, marks));
    }
    let _ = write!(text, "{content}.id {last}");
    text
}

fn expression(field: OrderField, content: &str, marks: &str) -> String {
    let name = field.name();
    match field {
        OrderField::Read | OrderField::Saved => format!("{marks}.{name}"),
        // A broadcast is nobody's.
        OrderField::User if content != marks => "null::text".to_owned(),
        OrderField::User => format!("{content}.\"user\""),
        // critical, high, low, normal.
        OrderField::Severity => format!(
            "case {content}.severity when 3 then 2 when 2 then 3 else {content}.severity end"
        ),
        OrderField::Title | OrderField::Description | OrderField::Link | OrderField::Icon => {
            format!("{content}.{name} collate \"C\"")
        }
        OrderField::Metadata => format!("{content}.metadata::text collate \"C\""),
        OrderField::Id
        | OrderField::Origin
        | OrderField::Scope
        | OrderField::Topic
        | OrderField::Created
        | OrderField::Updated => format!("{content}.{name}"),
    }
}

/// Those of these notifications that the person can see, newest first.
pub(super) const VISIBLE: &str = concat!(
    "(select ",
    own_columns!(),
    own!(),
    " and n.id = any($2)) union all (select ",
    broadcast_columns!(),
    broadcasts!(),
    " and n.id = any($2)) order by created desc, id desc"
);

/// See [`crate::store::Store::get`].
pub(super) async fn get(
    client: &Client,
    user: &str,
    id: Uuid,
) -> Result<Option<Notification>, Fault> {
    let statement = client.prepare_cached(VISIBLE).await?;
    let row = client
        .query_opt(&statement, &[&user, &[id].as_slice()])
        .await?;
    row.map(|row| notification(&row, 0)).transpose()
}

/// See [`crate::store::Store::topics`].
pub(super) async fn topics(
    client: &Client,
    user: &str,
    query: &Query,
) -> Result<Vec<String>, Fault> {
    let values = Values::of(query);
    let filter = values.filter(&user, query);
    let sql = format!(
        "select distinct topic from ({}) x where topic is not null order by topic",
        filter.both("n.topic", "n.topic")
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &filter.params).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_for_both_tables_with_one_parameter() {
        let query = Query {
            read: Some(false),
            search: Some("a".into()),
            topic: Some("t".into()),
            ..Query::default()
        };
        let values = Values::of(&query);
        let filter = values.filter(&"user:a", &query);
        assert!(
            filter
                .own
                .starts_with(" and n.read is null and (n.title ilike $2")
        );
        assert!(filter.broadcast.starts_with(" and m.read is null"));
        assert!(filter.own.ends_with(" and n.topic = $3"));
        assert_eq!(filter.params.len(), 3);
    }

    #[test]
    fn the_inbox_is_counted_by_its_counters_unless_it_is_filtered() {
        let counted = |query: Query| Values::of(&query).are_counted(&query);
        assert!(counted(Query {
            read: Some(false),
            minimum_severity: Some(Severity::Low),
            ..Query::default()
        }));
        assert!(!counted(Query {
            minimum_severity: Some(Severity::Normal),
            ..Query::default()
        }));
    }
}
