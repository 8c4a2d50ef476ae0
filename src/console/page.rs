//! The page's markup. Everything from outside is escaped by maud.

use maud::DOCTYPE;
use maud::Markup;
use maud::html;
use url::Url;

use super::assets;
use super::view::PER_PAGE;
use super::view::View;
use super::view::Which;
use super::words;
use crate::notification::Notification;
use crate::notification::Severity;
use crate::store::Counts;
use crate::store::Page;
use crate::submission::resolve_link;
use crate::time::Timestamp;

/// A description longer than this is folded to its beginning.
const FOLD_CHARS: usize = 500;
/// How much of a folded description is seen.
const EXCERPT_CHARS: usize = 280;

/// What the inbox shows.
pub(super) struct Shown<'a> {
    pub(super) reference: &'a str,
    pub(super) view: &'a View,
    pub(super) page: &'a Page,
    pub(super) counts: Counts,
    pub(super) base_url: &'a Url,
    pub(super) now: Timestamp,
}

/// The inbox.
pub(super) fn inbox(shown: &Shown<'_>) -> Markup {
    let unread = shown.counts.unread;
    let title = if unread > 0 {
        format!("({unread}) Inbox · Tidings")
    } else {
        "Inbox · Tidings".to_owned()
    };
    let body = html! {
        a.skip href="#list" { "Skip to the notifications" }
        header.top {
            (brand())
            (search_form(shown.view))
            (me(shown.reference))
        }
        main #inbox data-unread=(unread) {
            (bar(shown))
            (narrowed_by(shown.view))
            @if shown.page.notifications.is_empty() {
                (nothing(shown))
            } @else {
                ul #list {
                    @for one in &shown.page.notifications { (note(shown, one)) }
                }
                (pages(shown))
            }
        }
        p #news .unseen role="status" {}
    };
    frame(&title, true, &body)
}

pub(super) fn frame(title: &str, script: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="icon" href=(assets::href("icon.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(assets::href("page.css"));
                @if script { script src=(assets::href("page.js")) defer {} }
            }
            body { (body) }
        }
    }
}

pub(super) fn brand() -> Markup {
    html! {
        a.brand href="/" {
            img src=(assets::href("icon.svg")) alt="" width="24" height="24";
            "Tidings"
        }
    }
}

fn search_form(view: &View) -> Markup {
    html! {
        form.search role="search" action="/" {
            @if view.which != Which::default() {
                input type="hidden" name="view" value=(view.which.word());
            }
            @if let Some(topic) = &view.topic {
                input type="hidden" name="topic" value=(topic);
            }
            label.unseen for="q" { "Search title and text" }
            input #q type="search" name="q" placeholder="Search" autocomplete="off"
                value=[view.search.as_deref()];
        }
    }
}

pub(super) fn me(reference: &str) -> Markup {
    html! {
        details.me {
            summary { (words::name(reference)) }
            div.menu {
                p { "Signed in as " strong { (reference) } }
                p { a href="/settings" { "Settings" } }
                form method="post" action="/logout" { button { "Sign out" } }
            }
        }
    }
}

/// The views, and what can be done to the whole of one.
fn bar(shown: &Shown<'_>) -> Markup {
    let counts = shown.counts;
    html! {
        div.bar {
            h1.unseen { "Inbox" }
            nav aria-label="Views" {
                @for which in Which::ALL {
                    @let current = which == shown.view.which;
                    a href=(shown.view.of(which).href()) aria-current=[current.then_some("page")] {
                        (which.label())
                        @if which == Which::Unread && counts.unread > 0 {
                            " " span.count { (counts.unread) }
                        }
                    }
                }
            }
            @if counts.unread > 0 {
                form method="post" action="/mark-all-read" {
                    input type="hidden" name="back" value=(shown.view.href());
                    button { "Mark all read" }
                }
            }
        }
    }
}

fn narrowed_by(view: &View) -> Markup {
    if !view.is_narrowed() {
        return html! {};
    }
    html! {
        p.narrowed {
            "Only "
            @if let Some(topic) = &view.topic {
                a.chip href=(view.about(None).href()) aria-label={ "Remove the topic " (topic) } {
                    "topic " strong { (topic) } span aria-hidden="true" { "×" }
                }
            }
            @if let Some(search) = &view.search {
                " "
                a.chip href=(view.searching(None).href()) aria-label={ "Remove the search " (search) } {
                    "“" strong { (search) } "”" span aria-hidden="true" { "×" }
                }
            }
        }
    }
}

fn nothing(shown: &Shown<'_>) -> Markup {
    let view = shown.view;
    let (head, text) = match view.which {
        _ if view.is_narrowed() => ("Nothing here", "No notification matches."),
        Which::Unread if shown.counts.read > 0 => ("All caught up", "Nothing is unread."),
        Which::Unread | Which::All => (
            "No tidings yet",
            "What is sent to you will appear here by itself.",
        ),
        Which::Saved => (
            "Nothing saved",
            "Save a notification to find it here again.",
        ),
    };
    html! {
        div.nothing #list {
            img src=(assets::href("icon.svg")) alt="" width="56" height="56";
            h2 { (head) }
            p { (text) }
            @if view.is_narrowed() && view.which != Which::All {
                p { a href=(view.of(Which::All).href()) { "Look in all notifications" } }
            } @else if view.which == Which::Unread && shown.counts.read > 0 {
                p { a href=(view.of(Which::All).href()) { "Read the earlier ones" } }
            }
        }
    }
}

fn note(shown: &Shown<'_>, one: &Notification) -> Markup {
    let payload = &one.payload;
    let severity = payload.severity();
    let unread = one.read.is_none();
    let link = payload
        .link
        .as_deref()
        .filter(|link| !link.is_empty())
        .and_then(|link| resolve_link(link, shown.base_url).ok());
    let state = if unread { "unread" } else { "read" };
    html! {
        li #{ "n-" (one.id) } class={ "note " (severity) " " (state) } {
            span.dot title=[unread.then_some("Unread")] {
                @if unread { span.unseen { "Unread." } }
            }
            article aria-labelledby={ "t-" (one.id) } {
                h2 #{ "t-" (one.id) } {
                    @match &link {
                        Some(link) => a href=(link) rel="noopener noreferrer" data-read=[unread.then_some(one.id)] { (payload.title) },
                        None => (payload.title),
                    }
                }
                (text(payload.description.as_deref().unwrap_or("").trim()))
                (about(shown, one, severity))
            }
            (actions(shown, one))
        }
    }
}

/// The description; a long one is folded, without script too.
fn text(text: &str) -> Markup {
    let excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
    html! {
        @if text.chars().count() > FOLD_CHARS {
            details.text {
                summary { span.excerpt { (excerpt) "… " } span.more { "Show all" } }
                (text)
            }
        } @else if !text.is_empty() {
            p.text { (text) }
        }
    }
}

fn about(shown: &Shown<'_>, one: &Notification, severity: Severity) -> Markup {
    let payload = &one.payload;
    let topic = payload.topic.as_ref().filter(|topic| !topic.is_empty());
    html! {
        p.about {
            @if severity != Severity::Normal {
                span.severity { (severity) }
            }
            (moment(one.created, shown.now, ""))
            @if let Some(updated) = one.updated {
                (moment(updated, shown.now, "updated "))
            }
            span.origin { (one.origin) }
            @if one.user.is_none() { span { "to everybody" } }
            @if let Some(topic) = topic {
                a.topic href=(shown.view.about(Some(topic.clone())).href()) { (topic) }
            }
        }
    }
}

fn moment(at: Timestamp, now: Timestamp, before: &str) -> Markup {
    html! {
        time datetime=(at) title=(words::exact(at)) { (before) (words::ago(at, now)) }
    }
}

fn actions(shown: &Shown<'_>, one: &Notification) -> Markup {
    let (read, saved) = (one.read.is_some(), one.saved.is_some());
    let title = &one.payload.title;
    let (read_word, saved_word) = (
        if read { "Mark unread" } else { "Mark read" },
        if saved { "Unsave" } else { "Save" },
    );
    html! {
        form.actions method="post" action="/mark" {
            input type="hidden" name="id" value=(one.id);
            input type="hidden" name="back" value=(shown.view.href());
            button name="read" value=(!read) aria-label={ (read_word) ": " (title) } { (read_word) }
            button.saved[saved] name="saved" value=(!saved) aria-label={ (saved_word) ": " (title) } { (saved_word) }
        }
    }
}

fn pages(shown: &Shown<'_>) -> Markup {
    let (view, total) = (shown.view, shown.page.total);
    let last = view.last_page(total);
    let first_row = (view.page - 1) * PER_PAGE + 1;
    let last_row = first_row + shown.page.notifications.len() as u64 - 1;
    html! {
        nav.pages aria-label="Pages" {
            @if view.page > 1 {
                a rel="prev" href=(view.at_page(view.page - 1).href()) { "← Newer" }
            } @else { span {} }
            span {
                @if last > 1 { (first_row) "–" (last_row) " of " (total) }
                @else { (words::count(total, "notification", "notifications")) }
            }
            @if view.page < last {
                a rel="next" href=(view.at_page(view.page + 1).href()) { "Older →" }
            } @else { span {} }
        }
    }
}

/// The sign-in page, with what was wrong before.
pub(super) fn sign_in(refusal: Option<&str>) -> Markup {
    let body = html! {
        main.door {
            img src=(assets::href("icon.svg")) alt="" width="56" height="56";
            h1 { "Tidings" }
            p { "Open the one-time link that Tidings printed when it started, or paste a user token." }
            @if let Some(refusal) = refusal {
                p.refusal role="alert" { (refusal) }
            }
            form method="post" action="/login" {
                label for="token" { "User token" }
                input #token name="token" type="password" autocomplete="off" spellcheck="false"
                    required autofocus;
                button { "Sign in" }
            }
            p.hint { "An operator makes one with " code { "tidings user-token user:default/you" } }
        }
    };
    frame("Sign in · Tidings", false, &body)
}

/// A page that says what went wrong.
pub(super) fn trouble(words: &str) -> Markup {
    let body = html! {
        main.door {
            img src=(assets::href("icon.svg")) alt="" width="56" height="56";
            h1 { "That did not work" }
            p role="alert" { (words) }
            p { a href="/" { "Back to the inbox" } }
        }
    };
    frame("Tidings", false, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(title: &str) -> Notification {
        Notification {
            id: uuid::Uuid::nil(),
            user: Some("user:development/guest".into()),
            origin: "external:ci".into(),
            created: Timestamp::default(),
            updated: None,
            read: None,
            saved: None,
            payload: crate::notification::Payload {
                title: title.into(),
                ..Default::default()
            },
            submission: uuid::Uuid::nil(),
        }
    }

    fn shown(notifications: Vec<Notification>) -> String {
        let page = Page {
            total: notifications.len() as u64,
            notifications,
        };
        let view = View::default();
        inbox(&Shown {
            reference: "user:development/guest",
            view: &view,
            page: &page,
            counts: Counts { unread: 1, read: 0 },
            base_url: &Url::parse("https://portal.example.com/app").unwrap(),
            now: Timestamp::from_millis(1_000_000),
        })
        .into_string()
    }

    #[test]
    fn whatever_a_producer_writes_is_text() {
        let mut hostile = sample("<img src=x onerror=alert(1)>");
        hostile.origin = "\"><script>".into();
        hostile.payload.description = Some("<script>alert(1)</script>".into());
        hostile.payload.topic = Some("'\"<b>".into());
        hostile.payload.link = Some("javascript:alert(1)".into());
        let html = shown(vec![hostile]);
        for bad in ["<img src=x", "<script>", "<b>", "javascript:"] {
            assert!(!html.contains(bad), "{bad} in {html}");
        }
        assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;"));
    }

    #[test]
    fn a_link_leads_into_the_app_and_a_long_text_is_folded() {
        let mut one = sample("t");
        one.payload.link = Some("/catalog?x=1&y=2".into());
        one.payload.description = Some(format!("{} the end", "é".repeat(FOLD_CHARS)));
        let html = shown(vec![one]);
        assert!(html.contains("href=\"https://portal.example.com/app/catalog?x=1&amp;y=2\""));
        assert!(html.contains("<details") && html.contains("the end"));
        let html = shown(vec![sample("t")]);
        assert!(!html.contains("noopener") && !html.contains("class=\"text\""));
    }
}
