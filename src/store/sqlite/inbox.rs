//! Reading an inbox: a person's own rows and the broadcasts, merged.
//!
//! The usual page, newest first, reads no more rows than it shows; the totals of an inbox that is
//! not filtered come from the counters.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;
use uuid::Uuid;

use super::counts;
use super::types::broadcast_columns;
use super::types::count;
use super::types::int;
use super::types::notification;
use super::types::own_columns;
use crate::notification::Notification;
use crate::notification::Severity;
use crate::store::Direction;
use crate::store::OrderField;
use crate::store::Page;
use crate::store::Query;

/// See [`crate::store::Store::list`].
pub(super) fn list(from: &Connection, user: &str, query: &Query) -> rusqlite::Result<Page> {
    let mut filter = Filter::new(user, query);
    let total = match counted(from, user, query)? {
        Some(total) => total,
        None => {
            let sql = format!("select count(*) from ({})", filter.both());
            from.prepare_cached(&sql)?
                .query_row(params_from_iter(&filter.values), |row| count(row, 0))?
        }
    };
    if query.limit == Some(0) || total <= query.offset {
        return Ok(Page {
            total,
            notifications: Vec::new(),
        });
    }
    let (order, usual) = order(&query.order);
    let rows = filter.both();
    // As a compound of its own each side is read in order and only as far as needed; to sort by
    // anything else, it must be whole.
    let rows = if usual {
        rows
    } else {
        format!("select * from ({rows})")
    };
    filter
        .values
        .extend([query.limit.map_or(-1, int), int(query.offset)].map(Value::from));
    let sql = format!(
        "{rows} order by {order} limit ?{} offset ?{}",
        filter.values.len() - 1,
        filter.values.len()
    );
    let notifications = from
        .prepare_cached(&sql)?
        .query_map(params_from_iter(&filter.values), notification)?
        .collect::<Result<_, _>>()?;
    Ok(Page {
        total,
        notifications,
    })
}

/// How many rows match, where the counters say so.
fn counted(from: &Connection, user: &str, query: &Query) -> rusqlite::Result<Option<u64>> {
    let plain = Query {
        read: query.read,
        // Nothing is less severe, so it is no condition.
        minimum_severity: query.minimum_severity.filter(|one| *one == Severity::Low),
        limit: query.limit,
        offset: query.offset,
        order: query.order.clone(),
        ..Query::default()
    };
    if *query != plain {
        return Ok(None);
    }
    let counts = counts::of(from, user)?;
    Ok(Some(match query.read {
        None => counts.read + counts.unread,
        Some(true) => counts.read,
        Some(false) => counts.unread,
    }))
}

/// The order, with the id in the last field's direction to break ties; and whether it is the usual
/// one.
fn order(fields: &[(OrderField, Direction)]) -> (String, bool) {
    let usual = [(OrderField::Created, Direction::Descending)];
    let fields = if fields.is_empty() { &usual } else { fields };
    let id = fields
        .last()
        .map(|(_, direction)| (OrderField::Id, *direction));
    let terms: Vec<String> = fields
        .iter()
        .copied()
        .chain(id)
        .map(|(field, direction)| term(field, direction))
        .collect();
    (terms.join(", "), fields == usual)
}

/// One term of an order. What is absent counts as the largest, as in the peer on PostgreSQL.
fn term(field: OrderField, direction: Direction) -> String {
    let column = match field {
        OrderField::Severity => {
            // Alphabetically: critical, high, low, normal.
            "case severity when 0 then 0 when 1 then 1 when 3 then 2 else 3 end"
        }
        field => field.name(),
    };
    let may_be_absent = !matches!(
        field,
        OrderField::Id
            | OrderField::Title
            | OrderField::Severity
            | OrderField::Origin
            | OrderField::Created
    );
    let (word, absent) = match direction {
        Direction::Ascending => ("", " nulls last"),
        Direction::Descending => (" desc", " nulls first"),
    };
    let absent = if may_be_absent { absent } else { "" };
    format!("{column}{word}{absent}")
}

/// See [`crate::store::Store::get`].
pub(super) fn get(
    from: &Connection,
    user: &str,
    id: Uuid,
) -> rusqlite::Result<Option<Notification>> {
    let sql = concat!(
        "select ",
        own_columns!(),
        " from notification n where n.user = ?1 and n.id = ?2 union all select ",
        broadcast_columns!(),
        " from broadcast n left join broadcast_mark m on m.broadcast = n.id and m.user = ?1
         where n.id = ?2"
    );
    from.prepare_cached(sql)?
        .query_row(params![user, id], notification)
        .optional()
}

/// See [`crate::store::Store::topics`].
pub(super) fn topics(
    from: &Connection,
    user: &str,
    query: &Query,
) -> rusqlite::Result<Vec<String>> {
    let filter = Filter::new(user, query);
    let sql = format!(
        "select distinct topic from ({}) where topic is not null order by topic",
        filter.both()
    );
    from.prepare_cached(&sql)?
        .query_map(params_from_iter(&filter.values), |row| row.get(0))?
        .collect()
}

/// Which rows: conditions with their values, the first of which is the user.
struct Filter {
    /// `n` is the row, `mark` stands for where its marks are.
    conditions: String,
    values: Vec<Value>,
}

impl Filter {
    fn new(user: &str, query: &Query) -> Self {
        let mut filter = Self {
            conditions: String::new(),
            values: vec![user.to_owned().into()],
        };
        if let Some(search) = &query.search {
            // The pattern's own wildcards count. Source: contract 1.3.
            let pattern = format!("%{}%", search.to_lowercase());
            filter.and(
                "(lowercase(n.title) like ? or lowercase(n.description) like ?)",
                Some(pattern.into()),
            );
        }
        filter.is_set("read", query.read);
        filter.is_set("saved", query.saved);
        if let Some(after) = query.created_after {
            filter.and("n.created >= ?", Some(after.as_millis().into()));
        }
        if let Some(severity) = query.minimum_severity.filter(|one| *one != Severity::Low) {
            filter.and("n.severity <= ?", Some(i64::from(severity.rank()).into()));
        }
        if let Some(topic) = &query.topic {
            filter.and("n.topic = ?", Some(topic.clone().into()));
        }
        filter
    }

    fn is_set(&mut self, mark: &str, wanted: Option<bool>) {
        match wanted {
            Some(true) => self.and(&format!("mark.{mark} is not null"), None),
            Some(false) => self.and(&format!("mark.{mark} is null"), None),
            None => {}
        }
    }

    fn and(&mut self, condition: &str, value: Option<Value>) {
        self.values.extend(value);
        // Both sides of the union, and a condition that asks twice, share the number.
        let number = format!("?{}", self.values.len());
        let condition = condition.replace('?', &number);
        self.conditions.push_str(&format!(" and {condition}"));
    }

    /// The person's own rows and the broadcasts.
    fn both(&self) -> String {
        let own = self.conditions.replace("mark.", "n.");
        let broadcasts = self.conditions.replace("mark.", "m.");
        format!(
            "select {} from notification n where n.user = ?1{own} \
             union all select {} from broadcast n \
             left join broadcast_mark m on m.broadcast = n.id and m.user = ?1 \
             where true{broadcasts}",
            own_columns!(),
            broadcast_columns!()
        )
    }
}
