//! What a person is told of, and where: a box for each origin and topic on each channel.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use http::HeaderMap;
use http::StatusCode;
use http::Uri;
use maud::Markup;
use maud::html;
use serde_json::json;
use url::form_urlencoded;

use super::Parts;
use super::Trouble;
use super::document;
use super::door::Visitor;
use super::page;
use crate::inbox::settings;
use crate::settings::WEB;
use crate::settings::wire::ChannelSwitch;
use crate::settings::wire::OriginSwitch;
use crate::settings::wire::Switches;

/// `GET /settings`
pub(super) async fn show(
    State(parts): State<Parts>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Trouble> {
    let Some(reference) = parts.auth.session(&headers).await else {
        return Ok(Redirect::to("/login").into_response());
    };
    let switches = current(&parts, &reference).await?;
    let saved = uri.query() == Some("saved");
    Ok(document(
        StatusCode::OK,
        markup(&reference, &switches, saved),
    ))
}

/// `POST /settings`
pub(super) async fn save(
    State(parts): State<Parts>,
    Visitor(reference): Visitor,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Trouble> {
    let refused = Trouble(
        StatusCode::BAD_REQUEST,
        "The form could not be read, so nothing was changed. Go back and reload.",
    );
    let Ok(body) = body else { return Err(refused) };
    let mut switches = current(&parts, &reference).await?;
    apply(&mut switches, &body);
    match settings::save(&*parts.store, &parts.board, &reference, switches).await {
        Ok(()) => Ok(Redirect::to("/settings?saved").into_response()),
        Err(error) if error.status() == StatusCode::BAD_REQUEST => Err(refused),
        Err(_) => Err(Trouble(
            StatusCode::SERVICE_UNAVAILABLE,
            "Your settings could not be saved. Nothing was changed; try again in a minute.",
        )),
    }
}

/// The switches that can be saved.
async fn current(parts: &Parts, reference: &str) -> Result<Switches, Trouble> {
    let mut switches = settings::shown(&*parts.store, &parts.board, reference).await?;
    switches
        .channels
        .retain(|channel| parts.board.has(&channel.id));
    Ok(switches)
}

/// The name of a switch in the form.
fn key(channel: &str, origin: &str, topic: Option<&str>) -> String {
    json!([channel, origin, topic]).to_string()
}

/// Sets every switch that the form showed; what came to be since then stays as it is.
fn apply(switches: &mut Switches, form: &[u8]) {
    let (mut shown, mut on) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in form_urlencoded::parse(form) {
        match &*name {
            "shown" => shown.insert(value.into_owned()),
            "on" => on.insert(value.into_owned()),
            _ => false,
        };
    }
    let set = |key: String, enabled: &mut bool| {
        if shown.contains(&key) {
            *enabled = on.contains(&key);
        }
    };
    for channel in &mut switches.channels {
        for origin in &mut channel.origins {
            set(key(&channel.id, &origin.id, None), &mut origin.enabled);
            for topic in &mut origin.topics {
                let key = key(&channel.id, &origin.id, Some(&topic.id));
                set(key, &mut topic.enabled);
            }
        }
    }
}

/// What a channel is called where people read it.
fn label(channel: &str) -> &str {
    match channel {
        WEB => "Inbox",
        "SlackNotificationProcessor" => "Slack",
        other => other,
    }
}

fn markup(reference: &str, switches: &Switches, saved: bool) -> Markup {
    let channels = &switches.channels;
    let origins: BTreeSet<&str> = channels
        .iter()
        .flat_map(|channel| channel.origins.iter().map(|origin| origin.id.as_str()))
        .collect();
    let body = html! {
        a.skip href="#switches" { "Skip to the settings" }
        header.top { (page::brand()) span.search {} (page::me(reference)) }
        main {
            div.bar {
                h1 { "Settings" }
                a href="/" { "Back to the inbox" }
            }
            @if saved { p.saved role="status" { "Saved." } }
            @if origins.is_empty() {
                div.nothing #switches {
                    h2 { "Nothing to switch yet" }
                    p { "Whoever sends you a notification will appear here." }
                }
            } @else {
                form #switches method="post" action="/settings" {
                    p.lead {
                        "Where you hear of what. A topic is on only while the whole of its sender is. "
                        "What is sent to everybody always reaches you."
                    }
                    table.switches {
                        thead {
                            tr {
                                th scope="col" { span.unseen { "From" } }
                                @for channel in channels { th scope="col" { (label(&channel.id)) } }
                            }
                        }
                        @for origin in &origins { (group(channels, origin)) }
                    }
                    p.keep { button { "Save" } }
                }
            }
        }
    };
    page::frame("Settings · Tidings", false, &body)
}

/// A sender and its topics.
fn group(channels: &[ChannelSwitch], origin: &str) -> Markup {
    let of = |channel: &'_ ChannelSwitch| -> Option<OriginSwitch> {
        let found = channel.origins.iter().find(|one| one.id == origin);
        found.cloned()
    };
    let found: Vec<(&str, Option<OriginSwitch>)> = channels
        .iter()
        .map(|channel| (channel.id.as_str(), of(channel)))
        .collect();
    let topics: BTreeSet<&str> = found
        .iter()
        .flat_map(|(_, origin)| origin.iter().flat_map(|origin| &origin.topics))
        .map(|topic| topic.id.as_str())
        .collect();
    html! {
        tbody {
            tr.whole {
                th scope="row" { (origin) }
                @for (channel, origin) in &found {
                    td {
                        @if let Some(origin) = origin {
                            (switch(channel, &origin.id, None, origin.enabled))
                        }
                    }
                }
            }
            @for topic in &topics {
                tr {
                    th scope="row" { @if topic.is_empty() { "(no name)" } @else { (topic) } }
                    @for (channel, origin) in &found {
                        td {
                            @if let Some(one) = origin.iter().flat_map(|origin| &origin.topics)
                                .find(|one| one.id == *topic) {
                                (switch(channel, origin_of(origin), Some(topic), one.enabled))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn origin_of(origin: &Option<OriginSwitch>) -> &str {
    origin.as_ref().map_or("", |origin| &origin.id)
}

fn switch(channel: &str, origin: &str, topic: Option<&str>, enabled: bool) -> Markup {
    let key = key(channel, origin, topic);
    let words = [Some(label(channel)), Some(origin), topic];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    html! {
        input type="hidden" name="shown" value=(key);
        label.switch {
            span.unseen { (words.join(", ")) }
            input type="checkbox" name="on" value=(key) checked[enabled];
            span aria-hidden="true" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_form_did_not_show_stays_as_it_is() {
        let body = json!({"channels": [{"id": "Web", "origins": [
            {"id": "a", "enabled": true, "topics": [{"id": "t", "enabled": true}]},
            {"id": "new", "enabled": false}]}]});
        let mut switches = Switches::parse(&body).unwrap();
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("shown", &key("Web", "a", None))
            .append_pair("shown", &key("Web", "a", Some("t")))
            .append_pair("on", &key("Web", "a", None))
            .append_pair("on", &key("Web", "new", None))
            .finish();
        apply(&mut switches, form.as_bytes());
        let origins = &switches.channels[0].origins;
        assert!(origins[0].enabled && !origins[0].topics[0].enabled);
        assert!(!origins[1].enabled);
    }
}
