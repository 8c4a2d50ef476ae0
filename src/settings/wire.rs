//! Preferences as people see and save them: the peer's `/settings`, without its transport.
//!
//! What is shown differs a little from what is decided (contract 3): on an opt-in channel the
//! default origins are shown as they are configured, though only a person's own choice counts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::ChannelDefault;
use super::Defaults;
use super::OriginDefault;
use super::Setting;
use crate::submission::Fault;
use crate::submission::Invalid;
use crate::submission::TEXT_CHARS_MAX;

/// The switches of a person, in the peer's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// By channel.
    pub channels: Vec<ChannelSwitch>,
}

/// The switches of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSwitch {
    /// The channel's id.
    pub id: String,
    /// The configured default, where there is one. Taken from a person, never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// By origin.
    pub origins: Vec<OriginSwitch>,
}

/// The switches of an origin on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginSwitch {
    /// The origin.
    pub id: String,
    /// On or off.
    pub enabled: bool,
    /// By topic.
    #[serde(default)]
    pub topics: Vec<TopicSwitch>,
}

/// The switch of a topic of an origin on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSwitch {
    /// The topic.
    pub id: String,
    /// On or off.
    pub enabled: bool,
}

/// Origins and topics that a person had notifications of.
pub type Known = BTreeMap<String, BTreeSet<String>>;

impl Switches {
    /// What a person is shown: `channels` (the inbox first, then one for each sender), then those
    /// that only the defaults name; on each, the origins and topics that the person has had, then
    /// those that only the defaults name.
    pub fn show(channels: &[&str], defaults: &Defaults, stored: &[Setting], known: &Known) -> Self {
        let only_default = defaults
            .channels
            .iter()
            .map(|channel| channel.id.as_str())
            .filter(|id| !channels.iter().any(|one| same(one, id)));
        let all = channels.iter().copied().chain(only_default);
        Self {
            channels: all
                .map(|id| show_channel(id, defaults.channel(id), stored, known))
                .collect(),
        }
    }

    /// Reads what a person saves.
    ///
    /// # Errors
    /// [`Invalid`] where the shape is wrong.
    pub fn parse(body: &Value) -> Result<Self, Invalid> {
        serde_path_to_error::deserialize(body)
            .map_err(|error| Invalid::at(&pointer(error.path()), &error.inner().to_string()))
    }

    /// Takes what a person saves if it can be: a channel that is there twice, as one with two
    /// senders is shown, counts once if it says the same twice.
    ///
    /// # Errors
    /// [`Invalid`] where a channel is none of `channels` (compared exactly), or something is chosen
    /// twice.
    pub fn checked(mut self, channels: &[&str]) -> Result<Self, Invalid> {
        for (at, channel) in self.channels.iter().enumerate() {
            if !channels.contains(&channel.id.as_str()) {
                return Err(Invalid {
                    message: "Invalid channel".to_owned(),
                    faults: vec![Fault {
                        pointer: format!("#/channels/{at}/id"),
                        message: format!("must be one of {}", channels.join(", ")),
                    }],
                });
            }
        }
        let mut once: Vec<ChannelSwitch> = Vec::with_capacity(self.channels.len());
        for channel in self.channels {
            if !once.contains(&channel) {
                once.push(channel);
            }
        }
        self.channels = once;
        self.check_ids()?;
        Ok(self)
    }

    /// The rows to store for `user` in place of all that were stored: a topic is on only if its
    /// origin is, too.
    pub fn rows(&self, user: &str) -> Vec<Setting> {
        let mut rows = Vec::new();
        for channel in &self.channels {
            for origin in &channel.origins {
                let row = |topic: Option<&TopicSwitch>| Setting {
                    user: user.to_owned(),
                    channel: channel.id.clone(),
                    origin: origin.id.clone(),
                    topic: topic.map(|topic| topic.id.clone()),
                    enabled: origin.enabled && topic.is_none_or(|topic| topic.enabled),
                };
                rows.push(row(None));
                rows.extend(origin.topics.iter().map(|topic| row(Some(topic))));
            }
        }
        rows
    }

    /// Every origin of a channel once, every topic of an origin once, all short enough to store.
    fn check_ids(&self) -> Result<(), Invalid> {
        let mut seen = BTreeSet::new();
        let mut check = |place: String, key: (String, String, Option<String>)| {
            let id = key.2.as_ref().unwrap_or(&key.1);
            if id.contains('\0') || id.chars().count() > TEXT_CHARS_MAX {
                let why =
                    format!("must have at most {TEXT_CHARS_MAX} characters, none of them U+0000");
                return Err(Invalid::at(&place, &why));
            }
            if !seen.insert(key) {
                return Err(Invalid::at(&place, "is there twice"));
            }
            Ok(())
        };
        for (c, channel) in self.channels.iter().enumerate() {
            for (o, origin) in channel.origins.iter().enumerate() {
                let place = format!("#/channels/{c}/origins/{o}");
                check(
                    format!("{place}/id"),
                    (channel.id.clone(), origin.id.clone(), None),
                )?;
                for (t, topic) in origin.topics.iter().enumerate() {
                    let topic = Some(topic.id.clone());
                    check(
                        format!("{place}/topics/{t}/id"),
                        (channel.id.clone(), origin.id.clone(), topic),
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn show_channel(
    id: &str,
    default: Option<&ChannelDefault>,
    stored: &[Setting],
    known: &Known,
) -> ChannelSwitch {
    let mut origins = known.clone();
    let mut order: Vec<String> = known.keys().cloned().collect();
    for origin in default.iter().flat_map(|channel| &channel.origins) {
        let name = match order.iter().find(|one| same(one, &origin.id)) {
            Some(name) => name.clone(),
            None => {
                order.push(origin.id.clone());
                origin.id.clone()
            }
        };
        let topics = origins.entry(name).or_default();
        for topic in &origin.topics {
            if !topics.iter().any(|one| same(one, &topic.id)) {
                topics.insert(topic.id.clone());
            }
        }
    }
    let enabled = default.and_then(|channel| channel.enabled);
    let chosen: Vec<&Setting> = stored.iter().filter(|row| row.channel == id).collect();
    let show = |name: String| {
        let topics = origins.remove(&name).unwrap_or_default();
        let default = default
            .iter()
            .flat_map(|channel| &channel.origins)
            .find(|origin| same(&origin.id, &name));
        show_origin(name, enabled, default, &chosen, topics)
    };
    ChannelSwitch {
        id: id.to_owned(),
        enabled,
        origins: order.into_iter().map(show).collect(),
    }
}

fn show_origin(
    name: String,
    channel: Option<bool>,
    default: Option<&OriginDefault>,
    stored: &[&Setting],
    topics: BTreeSet<String>,
) -> OriginSwitch {
    let chosen: Vec<&&Setting> = stored.iter().filter(|row| row.origin == name).collect();
    let enabled = match chosen.iter().find(|row| row.topic.is_none()) {
        Some(row) => row.enabled,
        None if !chosen.is_empty() => true,
        None => default.map_or(channel.unwrap_or(true), |origin| origin.enabled),
    };
    let topic = |id: String| {
        let own = chosen
            .iter()
            .find(|row| row.topic.as_ref() == Some(&id))
            .map(|row| row.enabled);
        let configured = || {
            let topics = default.iter().flat_map(|origin| &origin.topics);
            topics
                .into_iter()
                .find(|topic| same(&topic.id, &id))
                .map(|topic| topic.enabled)
        };
        let enabled = own
            .or_else(configured)
            .unwrap_or_else(|| channel.unwrap_or(enabled));
        TopicSwitch { id, enabled }
    };
    OriginSwitch {
        id: name,
        enabled,
        topics: topics.into_iter().map(topic).collect(),
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// A path of `serde_path_to_error` as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segments = path.iter().map(|segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{key}"),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    });
    format!("#{}", segments.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::WEB;
    use super::*;
    use serde_json::json;

    const USER: &str = "user:default/mock";

    fn defaults(value: Value) -> Defaults {
        serde_json::from_value(json!({"channels": value})).unwrap()
    }

    fn known(pairs: &[(&str, &[&str])]) -> Known {
        pairs
            .iter()
            .map(|(origin, topics)| {
                let topics = topics.iter().map(|topic| (*topic).to_owned());
                ((*origin).to_owned(), topics.collect())
            })
            .collect()
    }

    fn parse(body: &Value, channels: &[&str]) -> Result<Switches, Invalid> {
        Switches::parse(body)?.checked(channels)
    }

    /// What is shown after `saved` was saved.
    fn after(channels: &[&str], defaults: &Defaults, saved: Value, known: &Known) -> Value {
        let rows = parse(&saved, channels).unwrap().rows(USER);
        shown(channels, defaults, &rows, known)
    }

    fn shown(channels: &[&str], defaults: &Defaults, rows: &[Setting], known: &Known) -> Value {
        serde_json::to_value(Switches::show(channels, defaults, rows, known)).unwrap()
    }

    #[test]
    fn who_chose_nothing_sees_every_channel_and_what_the_defaults_name() {
        let none = Defaults::default();
        assert_eq!(
            shown(&[WEB], &none, &[], &known(&[])),
            json!({"channels": [{"id": "Web", "origins": []}]})
        );
        assert_eq!(
            shown(&[WEB, "Email"], &none, &[], &known(&[("ci", &[])])),
            json!({"channels": [
                {"id": "Web", "origins": [{"id": "ci", "enabled": true, "topics": []}]},
                {"id": "Email", "origins": [{"id": "ci", "enabled": true, "topics": []}]}]})
        );
        let pager = defaults(json!([{"id": "Pager", "enabled": false}]));
        assert_eq!(
            shown(&[WEB], &pager, &[], &known(&[])),
            json!({"channels": [{"id": "Web", "origins": []},
                {"id": "Pager", "origins": [], "enabled": false}]})
        );
    }

    #[test]
    fn an_opt_in_channel_shows_its_default_origins_as_configured() {
        let opt_in = defaults(json!([{"id": "web", "enabled": false,
            "origins": [{"id": "ok", "enabled": true}]}]));
        assert_eq!(
            shown(
                &[WEB],
                &opt_in,
                &[],
                &known(&[("ci", &["t"]), ("ok", &["t"])])
            ),
            json!({"channels": [{"id": "Web", "enabled": false, "origins": [
                {"id": "ci", "enabled": false, "topics": [{"id": "t", "enabled": false}]},
                {"id": "ok", "enabled": true, "topics": [{"id": "t", "enabled": false}]}]}]})
        );
    }

    #[test]
    fn what_is_saved_is_shown_and_topics_follow_their_origin() {
        let two = defaults(json!([{"id": "Web", "origins": [{"id": "two", "enabled": false}]}]));
        let saved = json!({"channels": [{"id": "Web", "enabled": false,
            "origins": [{"id": "one", "enabled": false}]}]});
        assert_eq!(
            after(&[WEB], &two, saved, &known(&[("one", &["t"])])),
            json!({"channels": [{"id": "Web", "origins": [
                {"id": "one", "enabled": false, "topics": [{"id": "t", "enabled": false}]},
                {"id": "two", "enabled": false, "topics": []}]}]})
        );
    }

    #[test]
    fn a_topic_is_stored_as_on_only_if_its_origin_is() {
        let saved = json!({"channels": [{"id": "Web", "origins": [
            {"id": "a", "enabled": false, "topics": [{"id": "t", "enabled": true}]},
            {"id": "b", "enabled": true, "topics": [{"id": "t", "enabled": false}]}]}]});
        let rows = parse(&saved, &[WEB]).unwrap().rows(USER);
        let words: Vec<_> = rows
            .iter()
            .map(|row| (row.origin.as_str(), row.topic.as_deref(), row.enabled))
            .collect();
        assert_eq!(
            words,
            [
                ("a", None, false),
                ("a", Some("t"), false),
                ("b", None, true),
                ("b", Some("t"), false)
            ]
        );
    }

    #[test]
    fn saving_nothing_clears_and_what_is_wrong_is_named() {
        let nothing = json!({"channels": [{"id": "Web", "origins": []}]});
        assert!(parse(&nothing, &[WEB]).unwrap().rows(USER).is_empty());
        let twice = json!([{"id": "a", "enabled": true}, {"id": "a", "enabled": false}]);
        for (body, place) in [
            (json!({}), "#"),
            (json!({"channels": [{"id": "Web"}]}), "#/channels/0"),
            (
                json!({"channels": [{"id": "web", "origins": []}]}),
                "#/channels/0/id",
            ),
            (
                json!({"channels": [{"id": "Web", "origins": [{"id": "a", "enabled": 1}]}]}),
                "#/channels/0/origins/0/enabled",
            ),
            (
                json!({"channels": [{"id": "Web", "origins": twice}]}),
                "#/channels/0/origins/1/id",
            ),
        ] {
            let invalid = parse(&body, &[WEB]).unwrap_err();
            assert_eq!(invalid.faults[0].pointer, place, "{body}");
        }
        let unknown = json!({"channels": [{"id": "web", "origins": []}]});
        let invalid = parse(&unknown, &[WEB]).unwrap_err();
        assert_eq!(invalid.message, "Invalid channel");
    }

    #[test]
    fn a_channel_that_is_shown_twice_can_be_saved_as_it_is_shown() {
        let origins = |enabled| json!([{"id": "a", "enabled": enabled}]);
        let twice = |one, other| {
            json!({"channels": [{"id": "Chat", "origins": origins(one)},
                {"id": "Chat", "origins": origins(other)}]})
        };
        let rows = parse(&twice(false, false), &["Chat"]).unwrap().rows(USER);
        assert_eq!(rows.len(), 1);
        assert!(parse(&twice(false, true), &["Chat"]).is_err());
    }
}
