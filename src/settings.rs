//! Preferences: what people switched off, and the one decision whether a channel wants a
//! notification.
//!
//! The decorator asks it for every person and channel before anything is stored. Nothing here
//! reads or writes: stored rows and the configured defaults are arguments. Broadcasts ignore
//! preferences, so nobody asks for them. Source: contract 3.

mod board;
pub mod wire;

use serde::Deserialize;
use serde::Serialize;

pub use self::board::Switchboard;

/// The channel of the inbox itself.
pub const WEB: &str = "Web";

/// One stored preference of a person. Source: the peer's `user_settings`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// Whose.
    pub user: String,
    /// The channel's id: `Web`, `Email`, …
    pub channel: String,
    /// Which sender of notifications.
    pub origin: String,
    /// `None` is the whole origin.
    pub topic: Option<String>,
    /// On or off.
    pub enabled: bool,
}

/// What holds for people who chose nothing: `notifications.defaultSettings`, in the peer's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// By channel; ids are compared without case.
    #[serde(default)]
    pub channels: Vec<ChannelDefault>,
}

/// The default of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelDefault {
    /// The channel's id.
    pub id: String,
    /// For origins that are not listed; absent means on. `false` makes the channel opt-in, and
    /// then the listed origins do not count either: only a person's own choice does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// For these origins.
    #[serde(default)]
    pub origins: Vec<OriginDefault>,
}

/// The default of an origin on a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginDefault {
    /// The origin, exactly.
    pub id: String,
    /// For topics that are not listed.
    pub enabled: bool,
    /// For these topics.
    #[serde(default)]
    pub topics: Vec<TopicDefault>,
}

/// The default of a topic of an origin on a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDefault {
    /// The topic, exactly.
    pub id: String,
    /// On or off.
    pub enabled: bool,
}

impl Defaults {
    fn channel(&self, id: &str) -> Option<&ChannelDefault> {
        self.channels
            .iter()
            .find(|channel| channel.id.eq_ignore_ascii_case(id))
    }

    /// What the defaults say of a notification, for people who chose nothing about its origin.
    fn wants(&self, channel: &str, origin: &str, topic: Option<&str>) -> bool {
        let Some(channel) = self.channel(channel) else {
            return true;
        };
        if channel.enabled == Some(false) {
            return false;
        }
        let Some(origin) = channel.origins.iter().find(|one| one.id == origin) else {
            return true;
        };
        topic
            .and_then(|topic| origin.topics.iter().find(|one| one.id == topic))
            .map_or(origin.enabled, |topic| topic.enabled)
    }
}

/// The preferences of some people: their stored rows over the defaults.
#[derive(Clone, Debug)]
pub struct Preferences<'a> {
    defaults: &'a Defaults,
    /// Sorted, so that one person's choices about one origin of a channel stand together, the
    /// one about the whole origin first.
    stored: Vec<Setting>,
}

impl<'a> Preferences<'a> {
    /// The preferences of everybody whose rows are in `stored`; all others have the defaults.
    pub fn new(defaults: &'a Defaults, mut stored: Vec<Setting>) -> Self {
        stored.sort_unstable();
        Self { defaults, stored }
    }

    /// Whether `user` wants a notification of this origin and topic on `channel`.
    ///
    /// The user's choice about the topic counts, else the one about the origin (on, if only
    /// topics were chosen), else the defaults.
    pub fn wants(&self, user: &str, channel: &str, origin: &str, topic: Option<&str>) -> bool {
        let place = (user, channel, origin);
        fn of(row: &Setting) -> (&str, &str, &str) {
            (&row.user, &row.channel, &row.origin)
        }
        let first = self.stored.partition_point(|row| of(row) < place);
        let rows = &self.stored[first..];
        let rows = &rows[..rows.partition_point(|row| of(row) == place)];
        let Some(head) = rows.first() else {
            return self.defaults.wants(channel, origin, topic);
        };
        topic
            .and_then(|topic| {
                rows.iter()
                    .find(|row| row.topic.as_deref() == Some(topic))
                    .map(|row| row.enabled)
            })
            .unwrap_or(head.topic.is_some() || head.enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(yaml: &str) -> Defaults {
        serde_json::from_str(yaml).unwrap()
    }

    fn row(channel: &str, origin: &str, topic: Option<&str>, enabled: bool) -> Setting {
        Setting {
            user: "user:default/mock".into(),
            channel: channel.into(),
            origin: origin.into(),
            topic: topic.map(str::to_owned),
            enabled,
        }
    }

    fn wants(defaults: &Defaults, rows: &[Setting], origin: &str, topic: Option<&str>) -> bool {
        Preferences::new(defaults, rows.to_vec()).wants("user:default/mock", WEB, origin, topic)
    }

    #[test]
    fn everything_is_wanted_by_who_chose_nothing() {
        assert!(wants(&Defaults::default(), &[], "ci", None));
        let others = [row("Email", "ci", None, false), row(WEB, "cd", None, false)];
        assert!(wants(&Defaults::default(), &others, "ci", Some("t")));
        let somebody = Setting {
            user: "user:default/mock2".into(),
            ..row(WEB, "ci", None, false)
        };
        assert!(wants(&Defaults::default(), &[somebody], "ci", None));
    }

    #[test]
    fn a_topic_goes_before_its_origin_and_an_unlisted_one_follows_it() {
        let rows = [
            row(WEB, "ci", None, false),
            row(WEB, "ci", Some("deploy"), true),
        ];
        let none = Defaults::default();
        assert!(wants(&none, &rows, "ci", Some("deploy")));
        assert!(!wants(&none, &rows, "ci", Some("build")));
        assert!(!wants(&none, &rows, "ci", None));
    }

    #[test]
    fn a_choice_about_a_topic_alone_implies_that_its_origin_is_on() {
        let off = defaults(r#"{"channels":[{"id":"Web","enabled":false}]}"#);
        let rows = [row(WEB, "ci", Some("build"), false)];
        assert!(wants(&off, &rows, "ci", Some("deploy")));
        assert!(wants(&off, &rows, "ci", None));
        assert!(!wants(&off, &rows, "ci", Some("build")));
        assert!(!wants(&off, &rows, "cd", None));
    }

    #[test]
    fn default_origins_count_for_who_has_no_row_of_them() {
        let defaults = defaults(
            r#"{"channels":[{"id":"web","origins":[{"id":"ci","enabled":false,
                "topics":[{"id":"deploy","enabled":true}]}]}]}"#,
        );
        assert!(!wants(&defaults, &[], "ci", None));
        assert!(wants(&defaults, &[], "ci", Some("deploy")));
        assert!(wants(&defaults, &[], "CI", None), "origins are exact");
        let chosen = [row(WEB, "ci", None, true)];
        assert!(wants(&defaults, &chosen, "ci", Some("build")));
        let elsewhere = [row(WEB, "cd", None, true)];
        assert!(!wants(&defaults, &elsewhere, "ci", None));
    }

    #[test]
    fn an_opt_in_channel_ignores_default_origins_and_obeys_the_person() {
        let defaults = defaults(
            r#"{"channels":[{"id":"Web","enabled":false,"origins":[{"id":"ci","enabled":true}]}]}"#,
        );
        assert!(!wants(&defaults, &[], "ci", None));
        assert!(!wants(&defaults, &[], "cd", None));
        assert!(wants(&defaults, &[row(WEB, "ci", None, true)], "ci", None));
    }
}
