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

/// The last eight digits of an id: what `trace` takes.
pub(crate) fn short(id: &str) -> &str {
    id.len()
        .checked_sub(8)
        .and_then(|at| id.get(at..))
        .unwrap_or(id)
}

/// A number with its noun.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// A number with thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

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

fn span(ms: u128) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min", ms / 60_000),
    }
}

fn zoned(at: Timestamp) -> Option<jiff::ZonedDateTime> {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
    Some(at.to_zoned_datetime(jiff::tz::TimeZone::system()))
}

/// A moment in full, in the reader's time zone.
pub(crate) fn moment(at: Timestamp) -> String {
    zoned(at).map_or_else(
        || at.to_string(),
        |at| at.strftime("%a %Y-%m-%d %H:%M:%S%.3f %:z").to_string(),
    )
}

/// A time of day; with the day where it is not today.
pub(crate) fn clock(at: Timestamp) -> String {
    let Some(at) = zoned(at) else {
        return at.to_string();
    };
    let today = at.date() == jiff::ZonedDateTime::now().date();
    at.strftime(if today { "%H:%M:%S" } else { "%a %H:%M" })
        .to_string()
}

/// How long ago, roughly.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at).as_secs() {
        0..60 => format!("{} s", now.since(at).as_secs()),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
