//! Which part of an inbox, and how it is answered.

use serde::Deserialize;
use serde::Serialize;

use crate::notification::Notification;
use crate::notification::Severity;
use crate::time::Timestamp;

/// Which notifications of an inbox, and how many. Source: the peer's query (contract 1.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// At most so many; `None` is all.
    pub limit: Option<u64>,
    /// After so many.
    pub offset: u64,
    /// Order, most significant first; empty is `created` descending. The id breaks ties, in the
    /// last field's direction; what is absent counts as the largest.
    pub order: Vec<(OrderField, Direction)>,
    /// Substring of title or description, without case; `%` and `_` are wildcards.
    pub search: Option<String>,
    /// Read or unread alone.
    pub read: Option<bool>,
    /// Saved or unsaved alone.
    pub saved: Option<bool>,
    /// Created at or after.
    pub created_after: Option<Timestamp>,
    /// This severe or more.
    pub minimum_severity: Option<Severity>,
    /// This topic alone.
    pub topic: Option<String>,
}

/// What an inbox can be ordered by: the peer's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderField {
    /// The id.
    Id,
    /// The title.
    Title,
    /// The description.
    Description,
    /// The severity, alphabetically, as in the peer.
    Severity,
    /// The link.
    Link,
    /// Who sent it.
    Origin,
    /// The scope.
    Scope,
    /// The topic.
    Topic,
    /// The icon.
    Icon,
    /// When it became visible.
    Created,
    /// When it was updated.
    Updated,
    /// The user.
    User,
    /// When it was read.
    Read,
    /// When it was saved.
    Saved,
    /// The metadata, as text.
    Metadata,
}

impl OrderField {
    /// Every field and its name on the wire, which is also the column's name.
    pub const ALL: [(&'static str, Self); 15] = [
        ("id", Self::Id),
        ("title", Self::Title),
        ("description", Self::Description),
        ("severity", Self::Severity),
        ("link", Self::Link),
        ("origin", Self::Origin),
        ("scope", Self::Scope),
        ("topic", Self::Topic),
        ("icon", Self::Icon),
        ("created", Self::Created),
        ("updated", Self::Updated),
        ("user", Self::User),
        ("read", Self::Read),
        ("saved", Self::Saved),
        ("metadata", Self::Metadata),
    ];

    /// The field of a wire name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(one, _)| *one == name)
            .map(|(_, field)| field)
    }

    /// The wire name, which is also the column's.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, field)| *field == self)
            .map_or("created", |(name, _)| name)
    }
}

/// Which way an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A page of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// How many match, whatever limit and offset.
    pub total: u64,
    /// The rows asked for: the user's own and broadcasts, with the user's marks.
    pub notifications: Vec<Notification>,
}

/// How many notifications a person has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Not read, broadcasts included.
    pub unread: u64,
    /// Read, broadcasts included.
    pub read: u64,
}

/// A mark to set or clear on notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Set or clear the read date.
    pub read: Option<bool>,
    /// Set or clear the saved date.
    pub saved: Option<bool>,
}

/// The origins of a person's own notifications with their topics, and each origin once without
/// one. It steps through the index from one to the next, so it costs as much as there are pairs,
/// not as there are rows. Both databases read it.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const ORIGINS: &str = r#"with recursive origins (origin) as (
 select (select min(origin) from notification where "user" = $1)
 union all
 select (select min(n.origin) from notification n where n."user" = $1 and n.origin > o.origin)
 from origins o where o.origin is not null
), topics (origin, topic) as (
 select o.origin,
  (select min(n.topic) from notification n where n."user" = $1 and n.origin = o.origin)
 from origins o where o.origin is not null
 union all
 select t.origin, (select min(n.topic) from notification n
  where n."user" = $1 and n.origin = t.origin and n.topic > t.topic)
 from topics t where t.topic is not null
)
select origin, topic from topics"#;
