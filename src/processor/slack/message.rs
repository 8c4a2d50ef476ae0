//! What a notification looks like in Slack. Source: contract 6.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::notification::EntityRef;
use crate::notification::Severity;
use crate::processor::Outgoing;

/// Longest text of a section, in characters.
/// Source: Slack, "Block Kit", section block.
const SECTION_CHARS_MAX: usize = 3_000;
/// Longest address of a button, in characters.
const URL_CHARS_MAX: usize = 3_000;
/// Most people whom one description may mention; further mentions stay as they are.
pub(super) const MENTIONS_MAX: usize = 20;

/// The arguments of `chat.postMessage` and `chat.update`, all but the channel.
pub(super) fn message(one: &Outgoing<'_>, description: &str) -> Map<String, Value> {
    let payload = one.payload;
    let severity = payload.severity();
    let mut button = json!({"type": "button", "action_id": "button-action",
        "text": {"type": "plain_text", "text": "View More"}});
    let link = payload.link.as_deref().filter(|link| !link.is_empty());
    if link.is_some() && one.link.as_str().chars().count() <= URL_CHARS_MAX {
        button["url"] = json!(one.link);
    }
    let topic = payload.topic.as_deref().unwrap_or("N/A");
    let blocks = json!([
        {"type": "section", "accessory": button,
            "text": {"type": "mrkdwn", "text": cut(description)}},
        {"type": "context", "elements": [
            {"type": "plain_text", "text": format!("Severity: {severity}"), "emoji": true},
            {"type": "plain_text", "text": format!("Topic: {topic}"), "emoji": true},
        ]},
    ]);
    let attachment = json!({"color": colour(severity), "fallback": payload.title,
        "blocks": blocks});
    let fields = [
        ("text", json!(payload.title)),
        ("attachments", json!([attachment])),
    ];
    fields
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// The description as it is shown, where there is one.
pub(super) fn description<'a>(one: &Outgoing<'a>) -> &'a str {
    let description = one.payload.description.as_deref();
    description
        .filter(|text| !text.trim().is_empty())
        .unwrap_or("No description provided")
}

const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "#FF0000",
        Severity::High => "#FFA500",
        Severity::Normal | Severity::Low => "#00A699",
    }
}

/// The text within Slack's limit. A mention or a link is not cut in the middle.
fn cut(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(SECTION_CHARS_MAX) else {
        return text.to_owned();
    };
    let last = text[..end]
        .char_indices()
        .next_back()
        .map_or(0, |(at, _)| at);
    let mut kept = &text[..last];
    if let Some(open) = kept.rfind('<')
        && !kept[open..].contains('>')
    {
        kept = &kept[..open];
    }
    format!("{}…", kept.trim_end())
}

/// A mention: where it stands, and whom it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mention {
    from: usize,
    to: usize,
    /// Canonical.
    pub(super) user: String,
}

/// The mentions of a text, `<@user:namespace/name>` in any case, of at most [`MENTIONS_MAX`]
/// people.
pub(super) fn mentions(text: &str) -> Vec<Mention> {
    let mut found: Vec<Mention> = Vec::new();
    let mut people = Vec::new();
    for (from, _) in text.match_indices("<@") {
        let rest = &text[from + 2..];
        let Some(end) = rest.find('>') else { break };
        let Ok(parsed) = rest[..end].parse::<EntityRef>() else {
            continue;
        };
        let user = parsed.canonical();
        if !parsed.is_user() || (people.len() == MENTIONS_MAX && !people.contains(&user)) {
            continue;
        }
        if !people.contains(&user) {
            people.push(user.clone());
        }
        let to = from + 2 + end + 1;
        found.push(Mention { from, to, user });
    }
    found
}

/// The text with `<@ID>` for every mention of somebody whose id is known.
pub(super) fn mentioning(
    text: &str,
    mentions: &[Mention],
    id: impl Fn(&str) -> Option<String>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for one in mentions {
        if let Some(id) = id(&one.user) {
            out.push_str(&text[at..one.from]);
            out.push_str(&format!("<@{id}>"));
            at = one.to;
        }
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_are_replaced_where_the_id_is_known_whatever_their_case() {
        let text = "<@USER:default/Ann> and <@user:bo>, <@group:x/y> <@U1> <@user:a <@user:cy>";
        let found = mentions(text);
        let users: Vec<_> = found.iter().map(|one| one.user.as_str()).collect();
        assert_eq!(
            users,
            ["user:default/ann", "user:default/bo", "user:default/cy"]
        );
        let id = |user: &str| (user != "user:default/bo").then(|| user.to_uppercase());
        assert_eq!(
            mentioning(text, &found, id),
            "<@USER:DEFAULT/ANN> and <@user:bo>, <@group:x/y> <@U1> <@user:a <@USER:DEFAULT/CY>"
        );
        let many: String = (0..50).map(|n| format!("<@user:u{n}>")).collect();
        assert_eq!(mentions(&many).len(), MENTIONS_MAX);
        assert!(mentions("<@user:a").is_empty());
    }

    #[test]
    fn a_long_text_is_cut_at_the_limit_but_not_within_a_mention() {
        let fits = "ä".repeat(SECTION_CHARS_MAX);
        assert_eq!(cut(&fits), fits);
        let long = cut(&format!("{fits}b"));
        assert_eq!(long.chars().count(), SECTION_CHARS_MAX);
        assert!(long.ends_with("ä…"));
        let mention = format!("{} <@U0123456>x", "a".repeat(SECTION_CHARS_MAX - 8));
        assert!(cut(&mention).ends_with("a…"));
    }
}
