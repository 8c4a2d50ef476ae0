//! `notifications.processors.slack[]`: the peer's keys, and two of our own that say so.

use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde_json::Value;
use url::Url;

use crate::config::ConfigError;
use crate::config::Secret;
use crate::config::Section;
use crate::config::duration::Setting;

/// Where Slack's Web API is.
const API: &str = "https://slack.com/api/";
/// How long one call may take when nothing is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that may be configured: the sender role gives a send half a minute.
const TIMEOUT_MAX: Duration = Duration::from_secs(25);
/// The peer's count, where the interval alone is given.
const COUNT: u16 = 10;
/// The peer's interval, where the count alone is given.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two messages where neither is given: 240 a minute. Slack promises "several hundred".
const GAP: Duration = Duration::from_millis(250);

/// One entry: a workspace. Source: contract 6; what is ours is marked so.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// The app's bot token, `xoxb-…`.
    pub token: Secret,
    /// Channels of every broadcast that no route takes. Deprecated in the peer.
    #[serde(default)]
    pub broadcast_channels: Vec<String>,
    /// Channels of broadcasts, by origin and topic.
    #[serde(default)]
    pub broadcast_routes: Vec<Route>,
    /// The name that messages bear, where the app may choose one.
    pub username: Option<String>,
    /// How many messages begin in each `throttleInterval`. Default 10, if that is given.
    pub concurrency_limit: Option<u16>,
    /// Default 1 minute, if `concurrencyLimit` is given. Neither: 240 a minute (the peer's default
    /// is 10).
    pub throttle_interval: Option<Setting>,
    /// Ours: what targets and errors call it. Default: its number in the list.
    pub name: Option<String>,
    /// Ours: how long one call may take; 1 s to 25 s. Default 10 s.
    pub timeout: Option<Setting>,
    /// Ours: where the Web API is, for a proxy. Default `https://slack.com/api/`.
    pub api_url: Option<Url>,
}

/// Where broadcasts of an origin, a topic, or both go.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Of this origin alone.
    pub origin: Option<String>,
    /// Of this topic alone.
    pub topic: Option<String>,
    /// One channel, or several.
    #[serde(rename = "channel", deserialize_with = "one_or_many")]
    pub channels: Vec<String>,
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let text = |value| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(D::Error::custom("must be a channel, or a list of channels")),
    };
    match Value::deserialize(from)? {
        Value::Array(all) if !all.is_empty() => all.into_iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

impl WorkspaceConfig {
    /// Reads every entry; none where nobody wrote the list.
    ///
    /// # Errors
    /// What is missing or cannot be, at its key.
    pub(super) fn read_all(section: &Section) -> Result<Vec<Self>, ConfigError> {
        let Some(all) = section.read_if_set::<Vec<Self>>()? else {
            return Ok(Vec::new());
        };
        for ((no, one), item) in all.iter().enumerate().zip(section.items()) {
            if one.token.expose().is_empty() {
                let token = item.get("token");
                let message = format!("`{}` is empty", token.key());
                return Err(token.error(message, "the app's bot token, as in xoxb-…"));
            }
            if !(Duration::from_secs(1)..=TIMEOUT_MAX).contains(&one.timeout()) {
                let at = item.get("timeout");
                let message = format!("`{}` must be from 1s to 25s", at.key());
                return Err(at.error(message, "a sender is given half a minute for each message"));
            }
            let name = one.name(no);
            if name.is_empty()
                || name.contains('/')
                || all[..no]
                    .iter()
                    .enumerate()
                    .any(|(no, other)| other.name(no) == name)
            {
                let at = item.get("name");
                let message = format!("`{}` is empty, taken, or has a `/`", at.key());
                return Err(at.error(message, "a short name that no other workspace has"));
            }
        }
        Ok(all)
    }

    /// What targets and errors call it.
    pub(super) fn name(&self, no: usize) -> String {
        self.name.clone().unwrap_or_else(|| (no + 1).to_string())
    }

    /// How long one call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// Where the Web API is; ends in a slash.
    pub(super) fn api(&self) -> Result<Url, url::ParseError> {
        let mut url = match &self.api_url {
            Some(url) => url.clone(),
            None => API.parse()?,
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }

    /// The time between the beginnings of two messages.
    pub(super) fn gap(&self) -> Duration {
        if self.concurrency_limit.is_none() && self.throttle_interval.is_none() {
            return GAP;
        }
        let interval = self
            .throttle_interval
            .map_or(INTERVAL, |interval| interval.0);
        interval / u32::from(self.concurrency_limit.unwrap_or(COUNT).max(1))
    }

    /// The channels of a broadcast: of the first route for its origin and topic, else for its
    /// origin, else for its topic, else `broadcastChannels`. Source: contract 6.
    pub(super) fn channels(&self, origin: &str, topic: Option<&str>) -> &[String] {
        let levels: [&dyn Fn(&Route) -> bool; 3] = [
            &|one| {
                one.origin.as_deref() == Some(origin)
                    && one.topic.is_some()
                    && one.topic.as_deref() == topic
            },
            &|one| one.origin.as_deref() == Some(origin) && one.topic.is_none(),
            &|one| one.origin.is_none() && one.topic.is_some() && one.topic.as_deref() == topic,
        ];
        levels
            .iter()
            .find_map(|level| self.broadcast_routes.iter().find(|one| level(one)))
            .map_or(&self.broadcast_channels, |route| &route.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Environment;

    fn read(yaml: &str) -> Result<Vec<WorkspaceConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidings.yaml");
        let yaml = format!("notifications: {{ processors: {{ slack: {yaml} }} }}");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(&[file], &[], &Environment::default()).unwrap();
        let section = config.section("notifications.processors.slack");
        WorkspaceConfig::read_all(&section).map_err(|error| error.to_string())
    }

    #[test]
    fn the_peers_section_is_read_as_it_is() {
        let all = read(
            r#"[{"token":"xoxb-1","broadcastChannels":["C1"],"username":"Portal",
                "broadcastRoutes":[{"origin":"ci","channel":"C2"},{"topic":"x","channel":["C3","C4"]}],
                "concurrencyLimit":"20","throttleInterval":{"seconds":10}},{"token":"xoxb-2"}]"#,
        )
        .unwrap();
        assert_eq!(all[0].gap(), Duration::from_millis(500));
        assert_eq!(all[0].broadcast_routes[1].channels, ["C3", "C4"]);
        assert_eq!((all[0].name(0), all[1].name(1)), ("1".into(), "2".into()));
        assert_eq!(all[1].gap(), GAP);
        assert_eq!(all[1].api().unwrap().as_str(), API);
        assert!(read("[]").unwrap().is_empty());
        let shown = format!("{all:?}");
        assert!(!shown.contains("xoxb"), "{shown}");
    }

    #[test]
    fn one_of_the_two_limits_takes_the_peers_other() {
        let all =
            read(r#"[{"token":"t","concurrencyLimit":6},{"token":"t","throttleInterval":"5s"}]"#);
        let gaps: Vec<_> = all.unwrap().iter().map(WorkspaceConfig::gap).collect();
        assert_eq!(gaps, [10_000, 500].map(Duration::from_millis));
    }

    #[test]
    fn a_fault_names_its_key() {
        for (yaml, says) in [
            ("[{}]", "token` is missing"),
            (r#"[{"token":""}]"#, "token` is empty"),
            (r#"[{"token":7}]"#, "in quotes"),
            (
                r#"[{"token":"t","broadcastRoutes":[{"origin":"a"}]}]"#,
                "channel` is missing",
            ),
            (
                r#"[{"token":"t","broadcastRoutes":[{"channel":[]}]}]"#,
                "list of channels",
            ),
            (
                r#"[{"token":"t","usernam":"x"}]"#,
                "did you mean `username`",
            ),
            (
                r#"[{"token":"t","name":"2"},{"token":"t"}]"#,
                "slack[1].name` is empty, taken",
            ),
            (r#"[{"token":"t","timeout":"1m"}]"#, "from 1s to 25s"),
            (r#"{"token":"t"}"#, "must be a list"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(error.contains(says), "{yaml}: {error}");
        }
    }

    #[test]
    fn the_narrowest_route_wins_and_the_first_of_its_kind() {
        let config = &read(
            r#"[{"token":"t","broadcastChannels":["C0"],"broadcastRoutes":[
                {"topic":"x","channel":"C1"},{"origin":"ci","channel":"C2"},
                {"origin":"ci","topic":"x","channel":"C3"},{"origin":"ci","topic":"x","channel":"C4"},
                {"channel":"C5"}]}]"#,
        )
        .unwrap()[0];
        for (origin, topic, channel) in [
            ("ci", Some("x"), "C3"),
            ("ci", Some("y"), "C2"),
            ("ci", None, "C2"),
            ("other", Some("x"), "C1"),
            ("other", Some("y"), "C0"),
            ("other", None, "C0"),
        ] {
            assert_eq!(
                config.channels(origin, topic),
                [channel],
                "{origin} {topic:?}"
            );
        }
    }
}
