//! What is probably not meant as it is written, though nothing keeps it from starting.

use super::access;
use super::cors;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::keys;

/// All of it, in a fixed order.
pub(in crate::config) fn warnings(config: &Config) -> Vec<ConfigError> {
    let notifications = config.section("notifications");
    let mut found = access::warnings(&config.section("backend.auth"));
    found.extend(cors::read(&config.section("backend.cors")).err());
    let foreign = foreign(config);
    for (name, section) in notifications.get("processors").entries() {
        if !keys::PROCESSORS.contains(&name.as_str()) && !foreign.contains(&name) {
            let help = keys::closest(&name, &keys::PROCESSORS)
                .map(|near| format!("did you mean `{near}`?"));
            let message = "no such processor here; nothing will be sent to it";
            found.push(section.error(message, help.unwrap_or_default()));
        }
    }
    for (name, section) in notifications.entries() {
        if !keys::NOTIFICATIONS.contains(&name.as_str()) {
            let help = keys::help("notifications", &name, &keys::NOTIFICATIONS);
            found.push(section.error(format!("unknown key `{}`", section.key()), help));
        }
    }
    found.into_iter().map(ConfigError::into_warning).collect()
}

/// The names of processors that are programs of their own.
fn foreign(config: &Config) -> Vec<String> {
    ["tidings.senders", "tidings.decorators"]
        .iter()
        .flat_map(|key| config.section(key).items())
        .filter_map(|item| item.get("name").read_if_set().ok().flatten())
        .collect()
}
