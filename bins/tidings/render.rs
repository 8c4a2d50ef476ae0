//! What became of a submission, in words and lines: shared by `send --wait` and `trace`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use tidings::chunk::RefOutcome;
use tidings::chunk::RefReport;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::store::DeliveryLine;
use tidings::store::Tally;
use tidings::store::Timeline;
use tidings::submission::Via;
use tidings::time::Timestamp;

use crate::words::clock;
use crate::words::count;
use crate::words::grouped;
use crate::words::moment;
use crate::words::span;

/// What became of a ref, in words.
pub(crate) fn fate(report: &RefReport) -> String {
    let name = &report.entity;
    match report.outcome {
        RefOutcome::Expanded => format!(
            "{name} → {}",
            count(report.people.into(), "person", "people")
        ),
        RefOutcome::Unknown => format!("{name} is not in the catalog"),
        RefOutcome::Empty => format!("{name} has no members"),
        RefOutcome::Excluded => format!("{name} is excluded"),
    }
}

/// Whether these deliveries were given up.
pub(crate) fn is_failed(tally: &Tally) -> bool {
    matches!(tally.state, DeliveryState::Failed | DeliveryState::Unknown)
}

/// Whether all of it is stored and every delivery was tried.
pub(crate) fn is_tried(timeline: &Timeline) -> bool {
    let stored = timeline.chunks.len() >= timeline.of as usize;
    let waits = |tally: &Tally| !tally.state.is_final() && !tally.retrying;
    stored && !timeline.tally.iter().any(waits)
}

/// The ref that was probably meant by one that the catalog does not have.
pub(crate) fn meant<'a>(timeline: &Timeline, suggestions: &'a Value) -> Option<&'a str> {
    let mut refs = timeline.refs.iter();
    refs.find_map(|one| suggestions[&one.entity].as_str())
}

/// Two or three lines: the inbox, and each channel.
pub(crate) fn outcome(timeline: &Timeline) -> String {
    let mut out = String::new();
    let stored_at = timeline.chunks.iter().map(|line| line.stored_at).max();
    let took = stored_at.map_or(0, |at| at.since(timeline.header.accepted_at).as_millis());
    let whom = if timeline.broadcast {
        "everybody".to_owned()
    } else {
        let people: u64 = timeline
            .chunks
            .iter()
            .map(|line| u64::from(line.stored))
            .sum();
        count(people, "person", "people")
    };
    let _ = writeln!(out, "inbox     {whom}, {took} ms");
    for (channel, words) in channels(timeline) {
        let _ = writeln!(out, "{channel:<9} {words}");
    }
    for report in timeline
        .refs
        .iter()
        .filter(|one| one.outcome != RefOutcome::Expanded)
    {
        let _ = writeln!(out, "not sent  {}", fate(report));
    }
    out
}

/// For each channel, how its deliveries stand.
pub(crate) fn channels(timeline: &Timeline) -> BTreeMap<String, String> {
    let mut words: BTreeMap<String, Vec<(u8, String)>> = BTreeMap::new();
    for tally in &timeline.tally {
        let (rank, word) = match (tally.state, tally.reason) {
            (DeliveryState::Sent, _) => (0, "sent".to_owned()),
            (DeliveryState::Pending, _) if tally.retrying => (1, "retrying".to_owned()),
            (DeliveryState::Pending, _) => (2, "waiting".to_owned()),
            (DeliveryState::Claimed, _) => (2, "being sent".to_owned()),
            (DeliveryState::Failed, reason) => (
                3,
                format!("failed ({})", reason.unwrap_or(Reason::Internal)),
            ),
            (DeliveryState::Unknown, _) => (3, "unknown".to_owned()),
            (DeliveryState::Skipped, Some(Reason::Muted)) => (4, "switched off".to_owned()),
            (DeliveryState::Skipped, Some(Reason::NoAddress)) => (5, "no address".to_owned()),
            (DeliveryState::Skipped, reason) => (
                6,
                format!("skipped ({})", reason.unwrap_or(Reason::Internal)),
            ),
            (DeliveryState::Expanded, _) => continue,
        };
        let words = words.entry(tally.channel.clone()).or_default();
        words.push((rank, format!("{} {word}", grouped(tally.count))));
    }
    words
        .into_iter()
        .map(|(channel, mut words)| {
            words.sort();
            let words: Vec<String> = words.into_iter().map(|(_, word)| word).collect();
            (channel, words.join(" · "))
        })
        .collect()
}

/// The whole story of a submission.
pub(crate) fn timeline(timeline: &Timeline, all: bool) -> String {
    let header = &timeline.header;
    let mut out = String::new();
    let via = match header.via {
        Via::Http => "by HTTP",
        Via::Queue => "by queue",
    };
    let _ = writeln!(out, "Submission  {}", header.id);
    let _ = writeln!(out, "From        {}, {via}", header.origin);
    if let Some(key) = &header.key {
        let _ = writeln!(out, "Key         {key}");
    }
    let to: Vec<&str> = timeline
        .refs
        .iter()
        .map(|one| one.entity.as_str())
        .collect();
    let to = if timeline.broadcast {
        "everybody".to_owned()
    } else {
        to.join(", ")
    };
    let _ = writeln!(out, "To          {to}");
    let payload = &timeline.payload;
    let topic = payload
        .topic
        .as_ref()
        .map_or_else(String::new, |topic| format!(", topic {topic}"));
    let _ = writeln!(
        out,
        "Title       {}   ({}{topic})",
        payload.title,
        payload.severity()
    );
    let _ = writeln!(out, "\n{}", moment(header.accepted_at));
    out.push_str(&steps(timeline));
    let open: Vec<&DeliveryLine> = timeline
        .deliveries
        .iter()
        .filter(|line| all || line.state != DeliveryState::Sent)
        .filter(|line| line.state != DeliveryState::Expanded)
        .collect();
    if !open.is_empty() {
        let _ = writeln!(out, "\n{}", if all { "Deliveries" } else { "Not sent" });
        let width = open
            .iter()
            .map(|line| whom(line).chars().count())
            .max()
            .unwrap_or(0);
        for line in open {
            let _ = writeln!(
                out,
                "  {:<8} {:<width$}   {}",
                line.channel,
                whom(line),
                state(line)
            );
        }
    }
    if !timeline.dead.is_empty() {
        let ids: Vec<String> = timeline.dead.iter().map(i64::to_string).collect();
        let _ = writeln!(
            out,
            "\nDead letters {}: tidings dead show {}",
            ids.join(", "),
            ids[0]
        );
    }
    let deliveries: u64 = timeline.tally.iter().map(|tally| tally.count).sum();
    let _ = writeln!(
        out,
        "\n{}; --all lists each, --user REF one person's, --json everything",
        count(deliveries, "delivery", "deliveries")
    );
    out
}

fn whom(line: &DeliveryLine) -> String {
    match (&line.user, line.target.is_empty()) {
        (Some(user), _) => user.clone(),
        (None, false) => line.target.clone(),
        (None, true) => "everybody".to_owned(),
    }
}

fn state(line: &DeliveryLine) -> String {
    let detail = line.detail.clone().unwrap_or_default();
    let mut text = match line.state {
        DeliveryState::Sent => {
            let id = line
                .provider_id
                .as_ref()
                .map_or_else(String::new, |id| format!(" ({id})"));
            format!("sent {}{id}", clock(line.at))
        }
        DeliveryState::Pending if line.attempts > 0 => {
            let next = line
                .next_at
                .map_or_else(String::new, |at| format!("; next {}", clock(at)));
            format!("attempt {}: {detail}{next}", line.attempts)
        }
        DeliveryState::Pending => "waiting".to_owned(),
        DeliveryState::Claimed => format!("being sent, attempt {}", line.attempts),
        DeliveryState::Failed => format!(
            "failed after {}: {detail}",
            count(line.attempts.into(), "try", "tries")
        ),
        DeliveryState::Unknown => "nobody said what became of it".to_owned(),
        DeliveryState::Skipped | DeliveryState::Expanded => detail,
    };
    if line.doubtful {
        text.push_str("; may have been delivered twice");
    }
    text
}

/// The steps with their distance from acceptance.
fn steps(timeline: &Timeline) -> String {
    let accepted = timeline.header.accepted_at;
    let mut lines: Vec<(Timestamp, String, String)> =
        vec![(accepted, "accepted".into(), String::new())];
    for chunk in timeline.chunks.iter().filter(|chunk| chunk.no == 0) {
        for report in &timeline.refs {
            lines.push((chunk.started_at, "expanded".into(), fate(report)));
        }
        for note in &chunk.notes {
            lines.push((
                chunk.started_at,
                "decorated".into(),
                format!("{}: {}", note.step, note.text),
            ));
        }
    }
    if let Some(at) = timeline.chunks.iter().map(|chunk| chunk.stored_at).max() {
        lines.push((at, "stored".into(), stored(timeline)));
    }
    let latest = |channel: &str| {
        let all = timeline
            .tally
            .iter()
            .filter(|tally| tally.channel == channel);
        all.map(|tally| tally.at).max().unwrap_or(accepted)
    };
    for (channel, words) in channels(timeline) {
        lines.push((latest(&channel), channel, words));
    }
    if timeline.ignored > 0 {
        let text = format!(
            "{} under the same key; the first one stands",
            count(timeline.ignored.into(), "other body", "other bodies")
        );
        lines.push((accepted, "ignored".into(), text));
    }
    let mut out = String::new();
    for (at, step, text) in lines {
        let after = format!("+{}", span(at.since(accepted).as_millis()));
        let _ = writeln!(
            out,
            "{}",
            format!("{after:>9}  {step:<10} {text}").trim_end()
        );
    }
    out
}

fn stored(timeline: &Timeline) -> String {
    let sum = |of: fn(&tidings::store::ChunkLine) -> u32| -> u64 {
        timeline
            .chunks
            .iter()
            .map(|chunk| u64::from(of(chunk)))
            .sum()
    };
    let rows = sum(|chunk| chunk.stored);
    let mut words = vec![if timeline.broadcast {
        "one row for everybody".to_owned()
    } else {
        count(rows, "inbox row", "inbox rows")
    }];
    for (number, word) in [
        (sum(|chunk| chunk.superseded), "overtaken by a later send"),
        (sum(|chunk| chunk.muted), "with the inbox switched off"),
        (sum(|chunk| chunk.dropped), "dropped by a decorator"),
    ] {
        if number > 0 {
            words.push(format!("{} {word}", grouped(number)));
        }
    }
    let chunks = timeline.chunks.len();
    if chunks < timeline.of as usize {
        words.push(format!("{chunks} of {} parts so far", timeline.of));
    }
    words.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(refs: &Value, tally: &Value, deliveries: &Value) -> Timeline {
        let told = json!({
            "header": {"id": "01a20edd-cab8-7c52-9a41-0a8f6f3f2d10", "origin": "external:cli",
                "key": "incident-42", "accepted_at": "2026-11-24T18:42:26.104Z", "via": "http", "digest": ""},
            "payload": {"title": "Payments is down", "severity": "critical", "topic": "incident"},
            "broadcast": false, "refs": refs, "of": 1, "ignored": 0, "dead": [481],
            "chunks": [{"no": 0, "started_at": "2026-11-24T18:42:26.110Z",
                "stored_at": "2026-11-24T18:42:26.146Z", "stored": 31, "superseded": 0, "muted": 1,
                "dropped": 0, "notes": [{"step": "rules", "text": "icon set"}]}],
            "tally": tally, "deliveries": deliveries,
        });
        serde_json::from_value(told).unwrap()
    }

    fn example() -> Timeline {
        let at = "2026-11-24T18:42:26.285Z";
        let tally = |state: &str, reason: Value, retrying: bool, count: u64| json!({"channel": "email", "state": state, "reason": reason, "retrying": retrying, "count": count, "at": at});
        let line = |user: &str, state: &str, attempts: u32, detail: &str| {
            json!({"id": uuid::Uuid::nil(), "channel": "email", "user": user, "target": "", "state": state,
                "attempts": attempts, "reason": null, "detail": detail, "provider_id": null,
                "next_at": null, "doubtful": false, "at": at})
        };
        told(
            &json!([{"ref": "group:default/payments", "outcome": "expanded", "people": 32},
                {"ref": "group:default/paymens", "outcome": "unknown", "people": 0}]),
            &json!([
                tally("skipped", json!("muted"), false, 1),
                tally("sent", Value::Null, false, 28),
                tally("pending", json!("server"), true, 1),
                tally("failed", json!("rejected"), false, 1)
            ]),
            &json!([
                line("user:default/bo", "skipped", 0, "switched off"),
                line("user:default/di", "pending", 1, "451 4.3.0 try again later"),
                line("user:default/eve", "failed", 1, "550 5.1.1 no such user")
            ]),
        )
    }

    #[test]
    fn the_story_of_a_submission_is_told_in_order() {
        let timeline = example();
        let expected = format!(
            "\
Submission  01a20edd-cab8-7c52-9a41-0a8f6f3f2d10
From        external:cli, by HTTP
Key         incident-42
To          group:default/payments, group:default/paymens
Title       Payments is down   (critical, topic incident)

{}
    +0 ms  accepted
    +6 ms  expanded   group:default/payments → 32 people
    +6 ms  expanded   group:default/paymens is not in the catalog
    +6 ms  decorated  rules: icon set
   +42 ms  stored     31 inbox rows · 1 with the inbox switched off
  +181 ms  email      28 sent · 1 retrying · 1 failed (rejected) · 1 switched off

Not sent
  email    user:default/bo    switched off
  email    user:default/di    attempt 1: 451 4.3.0 try again later
  email    user:default/eve   failed after 1 try: 550 5.1.1 no such user

Dead letters 481: tidings dead show 481

31 deliveries; --all lists each, --user REF one person's, --json everything
",
            moment(timeline.header.accepted_at)
        );
        assert_eq!(super::timeline(&timeline, false), expected);
    }

    #[test]
    fn what_became_of_a_send_is_a_line_for_each_channel() {
        let expected = "\
inbox     31 people, 42 ms
email     28 sent · 1 retrying · 1 failed (rejected) · 1 switched off
not sent  group:default/paymens is not in the catalog
";
        assert_eq!(outcome(&example()), expected);
    }

    #[test]
    fn it_is_tried_when_nothing_waits_for_its_first_try() {
        let mut timeline = example();
        assert!(is_tried(&timeline));
        timeline.tally[2].retrying = false;
        assert!(!is_tried(&timeline));
        timeline.tally.clear();
        timeline.of = 2;
        assert!(!is_tried(&timeline), "a part is not stored yet");
    }

    #[test]
    fn the_ref_that_was_meant_is_found() {
        let suggestions = json!({"group:default/paymens": "group:default/payments"});
        assert_eq!(
            meant(&example(), &suggestions),
            Some("group:default/payments")
        );
        assert_eq!(meant(&example(), &json!({})), None);
    }
}
