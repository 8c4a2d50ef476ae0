//! What the address of the page says is to be seen: which notifications, which page of them.

use std::collections::BTreeMap;

use http::Uri;
use url::form_urlencoded;

use crate::store::Query;

/// Notifications on one page.
pub(super) const PER_PAGE: u64 = 25;

/// Furthest page that is asked for, so that an offset stays a sane number.
const PAGE_MAX: u64 = 1_000_000;

/// Which notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Which {
    #[default]
    Unread,
    All,
    Saved,
}

impl Which {
    pub(super) const ALL: [Self; 3] = [Self::Unread, Self::All, Self::Saved];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::All => "all",
            Self::Saved => "saved",
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Unread => "Unread",
            Self::All => "All",
            Self::Saved => "Saved",
        }
    }
}

/// What the address says is to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) which: Which,
    pub(super) search: Option<String>,
    pub(super) topic: Option<String>,
    /// From 1.
    pub(super) page: u64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            which: Which::default(),
            search: None,
            topic: None,
            page: 1,
        }
    }
}

impl View {
    /// Reads an address; what it does not understand it leaves out, since people edit addresses.
    pub(super) fn read(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or("").as_bytes();
        let mut params: BTreeMap<_, _> = form_urlencoded::parse(query).into_owned().collect();
        let mut text = |name: &str| {
            params
                .remove(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty() && !text.contains('\0'))
        };
        let view = text("view");
        let page = text("page").and_then(|page| page.parse().ok());
        Self {
            which: Which::ALL
                .into_iter()
                .find(|which| view.as_deref() == Some(which.word()))
                .unwrap_or_default(),
            search: text("q"),
            topic: text("topic"),
            page: page.unwrap_or(1).clamp(1, PAGE_MAX),
        }
    }

    /// The address that says the same.
    pub(super) fn href(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if self.which != Which::default() {
            query.append_pair("view", self.which.word());
        }
        for (name, value) in [("q", &self.search), ("topic", &self.topic)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// What the store is asked for.
    pub(super) fn query(&self) -> Query {
        Query {
            limit: Some(PER_PAGE),
            offset: (self.page - 1) * PER_PAGE,
            read: (self.which == Which::Unread).then_some(false),
            saved: (self.which == Which::Saved).then_some(true),
            search: self.search.clone(),
            topic: self.topic.clone(),
            ..Query::default()
        }
    }

    /// The last page of so many notifications.
    pub(super) fn last_page(&self, total: u64) -> u64 {
        total.div_ceil(PER_PAGE).max(1)
    }

    /// Another page of the same.
    pub(super) fn at_page(&self, page: u64) -> Self {
        Self {
            page,
            ..self.clone()
        }
    }

    pub(super) fn of(&self, which: Which) -> Self {
        Self {
            which,
            page: 1,
            ..self.clone()
        }
    }

    pub(super) fn about(&self, topic: Option<String>) -> Self {
        Self {
            topic,
            page: 1,
            ..self.clone()
        }
    }

    pub(super) fn searching(&self, search: Option<String>) -> Self {
        Self {
            search,
            page: 1,
            ..self.clone()
        }
    }

    pub(super) fn is_narrowed(&self) -> bool {
        self.search.is_some() || self.topic.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_back() {
        let at = |text: &str| View::read(&text.parse().unwrap()).href();
        assert_eq!(at("/"), "/");
        assert_eq!(at("/?view=unread&page=1&q="), "/");
        assert_eq!(
            at("/?page=3&view=all&q=a%26b&topic=x%20y&evil=1"),
            "/?view=all&q=a%26b&topic=x+y&page=3"
        );
        assert_eq!(at("/?page=-1&view=none"), "/");
        assert_eq!(at("https://evil.example/?view=saved"), "/?view=saved");
        let far = View::read(&"/?page=99999999999999999".parse().unwrap());
        assert_eq!(far.page, PAGE_MAX);
    }
}
