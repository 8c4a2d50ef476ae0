//! What became of a submission: its timeline, for its producer and for operators, now or as soon
//! as it is complete.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::extract::State;
use http::Uri;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::Parts;
use super::query::Params;
use crate::chunk::RefOutcome;
use crate::http::Caller;
use crate::http::HttpError;
use crate::store::DeadFilter;
use crate::store::DeadLetter;
use crate::store::Find;
use crate::store::Timeline;

/// Longest wait, whatever is asked for.
const WAIT_MAX: u64 = 60;

/// How many deliveries a timeline lists when the caller does not say.
const DELIVERIES_DEFAULT: u64 = 20;

/// Most deliveries that one answer lists.
const DELIVERIES_MAX: u64 = 10_000;

/// The first pause before a waiting caller's timeline is looked at again; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Dead letters looked through for one that says what became of a submission.
const DEAD_LOOKED_THROUGH: u32 = 200;

/// What a caller wants to see.
struct Wanted {
    find: Find,
    /// Whose submissions the caller may see; `None` is everybody's.
    origin: Option<String>,
    user: Option<String>,
    deliveries: u32,
    wait: Duration,
}

pub(super) async fn by_id(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let params = Params::read(&uri, &["wait", "user", "deliveries"])?;
    let suffix = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let find = match Uuid::try_parse(&id) {
        Ok(id) => Find::Id(id),
        Err(_) if suffix => Find::Suffix(id.to_ascii_lowercase()),
        Err(_) => {
            return Err(HttpError::input(format!(
                "`{id}` is not the id of a submission, nor the last 8 digits of one"
            )));
        }
    };
    look(&parts, wanted(caller, find, &params)?).await
}

pub(super) async fn by_key(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    let known = &["key", "origin", "wait", "user", "deliveries"];
    let params = Params::read(&uri, known)?;
    let key = params
        .text("key")
        .ok_or_else(|| HttpError::input("query parameter 'key' is missing"))?
        .to_owned();
    let own = caller.clone().sender()?;
    let origin = params.text("origin").map_or(own, str::to_owned);
    look(&parts, wanted(caller, Find::Key { origin, key }, &params)?).await
}

fn wanted(caller: Caller, find: Find, params: &Params) -> Result<Wanted, HttpError> {
    let origin = match caller.clone().operator() {
        Ok(_) => None,
        Err(_) => Some(caller.sender()?),
    };
    let deliveries = params.number("deliveries")?.unwrap_or(DELIVERIES_DEFAULT);
    Ok(Wanted {
        find,
        origin,
        user: params.text("user").map(str::to_owned),
        deliveries: u32::try_from(deliveries.min(DELIVERIES_MAX)).unwrap_or(u32::MAX),
        wait: Duration::from_secs(params.number("wait")?.unwrap_or(0).min(WAIT_MAX)),
    })
}

/// The timeline as soon as it is complete, or as it stands when the wait is over.
async fn look(parts: &Parts, wanted: Wanted) -> Result<Json<Value>, HttpError> {
    let end = Instant::now() + wanted.wait;
    let mut pause = PAUSE_FIRST;
    loop {
        let found = parts
            .store
            .timeline(&wanted.find, wanted.user.as_deref(), wanted.deliveries)
            .await?
            .filter(|line| {
                let origin = wanted.origin.as_ref();
                origin.is_none_or(|origin| *origin == line.header.origin)
            });
        let over = end <= Instant::now();
        match found {
            Some(timeline) if over || is_complete(&timeline) => {
                return Ok(Json(tell(parts, &timeline).await));
            }
            None if over || pause == PAUSE_MAX => {
                if let Some(letter) = dead(parts, &wanted).await? {
                    return Ok(Json(letter));
                }
                if over {
                    return Err(HttpError::not_found(
                        "no such submission, or nothing of it is stored yet",
                    ));
                }
            }
            _ => {}
        }
        tokio::time::sleep(pause.min(end - Instant::now())).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether every chunk is stored and every delivery was tried at least once.
fn is_complete(timeline: &Timeline) -> bool {
    is_stored(timeline)
        && timeline
            .tally
            .iter()
            .all(|tally| tally.state.is_final() || tally.retrying)
}

fn is_stored(timeline: &Timeline) -> bool {
    u32::try_from(timeline.chunks.len()).unwrap_or(u32::MAX) >= timeline.of
}

/// What is said of a submission, in one word.
fn status(timeline: &Timeline) -> &'static str {
    if !is_stored(timeline) {
        return "accepted";
    }
    let reached: u64 = timeline
        .chunks
        .iter()
        .map(|line| {
            u64::from(line.stored)
                + u64::from(line.superseded)
                + u64::from(line.muted)
                + u64::from(line.dropped)
        })
        .sum();
    let missed = timeline
        .refs
        .iter()
        .any(|one| matches!(one.outcome, RefOutcome::Unknown | RefOutcome::Empty));
    match (timeline.broadcast, reached, missed) {
        (true, ..) => "stored",
        (false, 0, _) => "no_recipients",
        (false, _, true) => "partial",
        (false, _, false) => "stored",
    }
}

async fn tell(parts: &Parts, timeline: &Timeline) -> Value {
    let mut told = json!(timeline);
    told["submission"] = json!(timeline.header.id);
    told["status"] = json!(status(timeline));
    told["suggestions"] = json!(suggestions(parts, timeline).await);
    told
}

/// For each ref that the catalog does not have, the one it has that looks most like it.
async fn suggestions(parts: &Parts, timeline: &Timeline) -> BTreeMap<String, String> {
    let unknown: Vec<&str> = timeline
        .refs
        .iter()
        .filter(|one| one.outcome == RefOutcome::Unknown)
        .map(|one| one.entity.as_str())
        .collect();
    if unknown.is_empty() {
        return BTreeMap::new();
    }
    let known = parts.catalog.refs().await.unwrap_or_default();
    unknown
        .into_iter()
        .filter_map(|one| Some((one.to_owned(), closest(one, &known)?)))
        .collect()
}

/// The most similar of `known`, if it is so similar that it may have been meant.
fn closest(wanted: &str, known: &[String]) -> Option<String> {
    const ALIKE: f64 = 0.75;
    let wanted = wanted.to_lowercase();
    known
        .iter()
        .map(|one| {
            let alike = strsim::normalized_damerau_levenshtein(&wanted, &one.to_lowercase());
            (alike, one)
        })
        .filter(|(alike, _)| ALIKE <= *alike)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, one)| one.clone())
}

/// The dead letter of a submission of which nothing is stored.
async fn dead(parts: &Parts, wanted: &Wanted) -> Result<Option<Value>, HttpError> {
    let filter = DeadFilter {
        limit: DEAD_LOOKED_THROUGH,
        ..DeadFilter::default()
    };
    let is_it = |letter: &DeadLetter| {
        let Some(id) = letter.submission else {
            return false;
        };
        let allowed = wanted.origin.is_none() || wanted.origin == letter.origin;
        allowed
            && match &wanted.find {
                Find::Id(wanted) => id == *wanted,
                Find::Suffix(suffix) => id.simple().to_string().ends_with(suffix),
                Find::Key { origin, key } => {
                    id == crate::notification::keyed_submission_id(origin, key)
                }
            }
    };
    let letters = parts.store.dead_letters(&filter).await?;
    Ok(letters.into_iter().find(is_it).map(|letter| {
        json!({
            "submission": letter.submission,
            "status": "dead",
            "dead": [letter.id],
            "reason": letter.reason,
            "detail": letter.detail,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::RefReport;
    use crate::delivery::DeliveryState;
    use crate::notification::Payload;
    use crate::store::ChunkLine;
    use crate::store::Tally;
    use crate::submission::Header;
    use crate::submission::Via;
    use crate::time::Timestamp;

    fn timeline(stored: u32, outcomes: &[RefOutcome]) -> Timeline {
        let at = Timestamp::default();
        Timeline {
            header: Header {
                id: Uuid::nil(),
                origin: "ci".into(),
                key: None,
                accepted_at: at,
                via: Via::Http,
                digest: String::new(),
            },
            payload: Payload::default(),
            broadcast: false,
            refs: outcomes
                .iter()
                .map(|outcome| RefReport {
                    entity: "group:default/a".into(),
                    outcome: *outcome,
                    people: 0,
                })
                .collect(),
            chunks: vec![ChunkLine {
                no: 0,
                started_at: at,
                stored_at: at,
                stored,
                superseded: 0,
                muted: 0,
                dropped: 0,
                notes: vec![],
            }],
            of: 1,
            ignored: 0,
            tally: vec![],
            deliveries: vec![],
            dead: vec![],
        }
    }

    #[test]
    fn a_ref_that_reached_nobody_does_not_look_like_success() {
        use RefOutcome::Expanded;
        use RefOutcome::Unknown;
        assert_eq!(status(&timeline(2, &[Expanded])), "stored");
        assert_eq!(status(&timeline(0, &[Unknown])), "no_recipients");
        assert_eq!(status(&timeline(2, &[Expanded, Unknown])), "partial");
        let open = Timeline {
            of: 2,
            ..timeline(2, &[])
        };
        assert_eq!(status(&open), "accepted");
        let broadcast = Timeline {
            broadcast: true,
            ..timeline(1, &[])
        };
        assert_eq!(status(&broadcast), "stored");
    }

    #[test]
    fn it_is_complete_when_every_delivery_was_tried() {
        let with = |state, retrying| {
            let tally = Tally {
                channel: "email".into(),
                state,
                reason: None,
                retrying,
                count: 1,
                at: Timestamp::default(),
            };
            is_complete(&Timeline {
                tally: vec![tally],
                ..timeline(1, &[])
            })
        };
        assert!(with(DeliveryState::Sent, false));
        assert!(with(DeliveryState::Pending, true));
        assert!(!with(DeliveryState::Pending, false));
        assert!(!with(DeliveryState::Claimed, false));
    }

    #[test]
    fn a_typo_gets_the_ref_that_was_meant() {
        let known = ["group:default/payments", "user:default/guest"].map(str::to_owned);
        assert_eq!(
            closest("group:default/paymens", &known).as_deref(),
            Some("group:default/payments")
        );
        assert_eq!(closest("component:x/y", &known), None);
    }
}
