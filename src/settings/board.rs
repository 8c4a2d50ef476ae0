//! Which switches there are: one board for the API, the page and whoever else shows them.

use super::Defaults;
use super::Setting;
use super::WEB;
use super::wire::Known;
use super::wire::Switches;
use crate::submission::Invalid;

/// The channels that people may switch, and what holds for those who chose nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switchboard {
    channels: Vec<String>,
    defaults: Defaults,
}

impl Switchboard {
    /// A board with the inbox itself, then `channels` in their order.
    pub fn new<'a>(defaults: Defaults, channels: impl IntoIterator<Item = &'a str>) -> Self {
        let channels = [WEB].into_iter().chain(channels);
        Self {
            channels: channels.map(str::to_owned).collect(),
            defaults,
        }
    }

    fn channels(&self) -> Vec<&str> {
        self.channels.iter().map(String::as_str).collect()
    }

    /// Whether people may switch this channel.
    pub fn has(&self, channel: &str) -> bool {
        self.channels.iter().any(|one| one == channel)
    }

    /// What a person is shown who stored these rows and had notifications of these origins.
    pub fn show(&self, stored: &[Setting], known: &Known) -> Switches {
        Switches::show(&self.channels(), &self.defaults, stored, known)
    }

    /// The rows to keep for `user` in place of all that were kept.
    ///
    /// # Errors
    /// [`Invalid`] where a channel is not on the board, or something is chosen twice.
    pub fn rows(&self, switches: Switches, user: &str) -> Result<Vec<Setting>, Invalid> {
        Ok(switches.checked(&self.channels())?.rows(user))
    }
}
