//! The page as a browser without script sees it: links, forms, cookies.
#![cfg(feature = "sqlite")]

mod browser;

use reqwest::RequestBuilder;
use reqwest::Response;
use serde_json::Value;
use serde_json::json;

use crate::http::client;
use crate::http::house::House;
use crate::http::house::Plan;

const GUEST: &str = "user:default/guest";

/// A browser: it keeps the session cookie and says where its forms come from.
struct Visitor<'a> {
    house: &'a House,
    cookie: String,
}

async fn house() -> House {
    House::build(Plan {
        subjects: vec!["ci".into()],
        ..Plan::default()
    })
    .await
}

impl House {
    /// Sends to the guest, and returns the notification's id.
    async fn notify(&self, payload: Value) -> String {
        let body = json!({"recipients": {"type": "entity", "entityRef": GUEST},
            "payload": payload});
        let request = client()
            .post(self.served.url("/api/notifications"))
            .bearer_auth(House::token("ci"))
            .header("prefer", "wait=10")
            .json(&body);
        let sent: Value = request.send().await.unwrap().json().await.unwrap();
        sent[0]["id"].as_str().unwrap().to_owned()
    }

    /// Somebody who came in by the one-time link.
    async fn visitor(&self) -> Visitor<'_> {
        let code = self.auth.login_code(GUEST);
        let url = self.served.url(&format!("/login/{code}"));
        let answer = client().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 303);
        assert_eq!(answer.headers()["location"], "/");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
        Visitor {
            house: self,
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }
}

impl Visitor<'_> {
    async fn get(&self, path: &str) -> Response {
        let request = client().get(self.house.served.url(path));
        request.header("cookie", &self.cookie).send().await.unwrap()
    }

    async fn read(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    fn form(&self, path: &str, body: &str) -> RequestBuilder {
        client()
            .post(self.house.served.url(path))
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned())
    }

    /// Sends a form of our own page; returns where it leads.
    async fn send(&self, path: &str, body: &str) -> String {
        let request = self.form(path, body);
        let request = request.header("sec-fetch-site", "same-origin");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 303, "{path} {body}");
        answer.headers()["location"].to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_stranger_is_led_to_the_door_and_a_link_works_once() {
    let house = house().await;
    let get = |path: String| client().get(house.served.url(&path)).send();
    let answer = get("/".into()).await.unwrap();
    assert_eq!(answer.headers()["location"], "/login");
    assert_eq!(get("/login".into()).await.unwrap().status(), 200);
    assert_eq!(get("/events".into()).await.unwrap().status(), 204);

    let code = house.auth.login_code(GUEST);
    let link = house.served.url(&format!("/login/{code}"));
    let ahead = client().get(&link).header("sec-purpose", "prefetch");
    assert_eq!(ahead.send().await.unwrap().status(), 503);
    assert_eq!(client().get(&link).send().await.unwrap().status(), 303);
    let again = client().get(&link).send().await.unwrap();
    assert_eq!(again.status(), 401);
    assert!(
        again
            .text()
            .await
            .unwrap()
            .contains("has been used or has ended")
    );
}

#[tokio::test]
async fn a_user_token_opens_the_door_and_an_api_token_does_not() {
    let house = house().await;
    let enter = |token: String| {
        let body = format!("token={token}");
        client()
            .post(house.served.url("/login"))
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    };
    for (scheme, secure) in [("http", false), ("https", true)] {
        let request = enter(house.user_token(GUEST)).header("x-forwarded-proto", scheme);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["location"], "/");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert_eq!(cookie.contains("; Secure"), secure, "{cookie}");
    }
    for (token, words) in [
        (House::token("ci"), "API token"),
        ("nonsense".to_owned(), "not valid here"),
        (String::new(), "Paste a user token"),
    ] {
        let answer = enter(token).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(!answer.headers().contains_key("set-cookie"));
        assert!(answer.text().await.unwrap().contains(words));
    }
}

#[tokio::test]
async fn what_arrived_is_read_marked_and_found_again_without_script() {
    let house = house().await;
    let link = "/catalog/x";
    let first = json!({"title": "Payments is down", "severity": "critical", "topic": "incident",
        "link": link, "description": "Look <b>now</b>"});
    let id = house.notify(first).await;
    house.notify(json!({"title": "Build passed"})).await;
    let visitor = house.visitor().await;

    let page = visitor.read("/").await;
    assert!(page.contains("<title>(2) Inbox · Tidings</title>"));
    assert!(page.contains("http://localhost:3000/catalog/x"));
    assert!(page.contains("Look &lt;b&gt;now&lt;/b&gt;"));
    let newest = page.find("Build passed").unwrap();
    assert!(newest < page.find("Payments is down").unwrap());

    let to = visitor
        .send("/mark", &format!("id={id}&read=true&back=/"))
        .await;
    assert_eq!(to, "/");
    assert!(!visitor.read("/").await.contains("Payments is down"));
    let back = "/?view=all&topic=incident";
    let body = format!("id={id}&saved=true&back=%2F%3Fview%3Dall%26topic%3Dincident");
    assert_eq!(visitor.send("/mark", &body).await, back);
    let page = visitor.read(back).await;
    assert!(page.contains("Payments is down") && !page.contains("Build passed"));
    assert!(page.contains("Unsave"));
    assert!(
        visitor
            .read("/?view=saved")
            .await
            .contains("Payments is down")
    );
    assert!(
        visitor
            .read("/?view=all&q=PASSED")
            .await
            .contains("Build passed")
    );
    assert!(
        visitor
            .read("/?q=nothing")
            .await
            .contains("No notification matches")
    );

    visitor.send("/mark-all-read", "back=%2F").await;
    assert!(visitor.read("/").await.contains("All caught up"));
    assert_eq!(visitor.send("/logout", "").await, "/login");
}

#[tokio::test]
async fn pages_follow_one_another_and_the_last_one_ends_them() {
    let house = house().await;
    for number in 1..=30 {
        house
            .notify(json!({"title": format!("Number {number}.")}))
            .await;
    }
    let visitor = house.visitor().await;
    let page = visitor.read("/").await;
    assert!(page.contains("1–25 of 30") && page.contains("href=\"/?page=2\""));
    assert!(page.contains("Number 30.") && !page.contains("Number 5."));
    let page = visitor.read("/?page=2").await;
    assert!(page.contains("26–30 of 30") && page.contains("Number 1."));
    let beyond = visitor.get("/?page=99").await;
    assert_eq!(beyond.headers()["location"], "/?page=2");
}

#[tokio::test]
async fn forms_of_other_pages_change_nothing() {
    let house = house().await;
    let id = house.notify(json!({"title": "Keep me"})).await;
    let visitor = house.visitor().await;
    let body = format!("id={id}&read=true");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
        ("x-nothing", "x"),
    ] {
        for path in ["/mark", "/mark-all-read", "/logout", "/login"] {
            let request = visitor.form(path, &body).header(name, value);
            assert_eq!(request.send().await.unwrap().status(), 403, "{path} {name}");
        }
    }
    assert!(visitor.read("/").await.contains("Keep me"));
    let nobody = client()
        .post(house.served.url("/mark"))
        .header("sec-fetch-site", "same-origin");
    let answer = nobody.send().await.unwrap();
    assert_eq!(answer.headers()["location"], "/login");
    // Where a form leads back to is never an address of somebody else.
    let body = format!("id={id}&back=https%3A%2F%2Fevil.example%2F%3Fview%3Dall");
    assert_eq!(visitor.send("/mark", &body).await, "/?view=all");
}

#[tokio::test]
async fn the_cookie_opens_the_page_and_not_the_api() {
    let house = house().await;
    let visitor = house.visitor().await;
    let answer = visitor.get("/api/notifications/status").await;
    assert_eq!(answer.status(), 401);
    let other = client()
        .get(house.served.url("/"))
        .header("cookie", "tidings_session=forged");
    let answer = other.send().await.unwrap();
    assert_eq!(answer.headers()["location"], "/login");
}

#[tokio::test]
async fn a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() {
    let house = house().await;
    house.notify(json!({"title": "Hello"})).await;
    let visitor = house.visitor().await;
    let answer = visitor.get("/").await;
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let page = answer.text().await.unwrap();
    for inline in ["<script>", "<style", " style=", " onclick=", "src=\"http"] {
        assert!(!page.contains(inline), "{inline}");
    }
    for (name, kind) in [
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let answer = visitor.get(&format!("/assets/{name}")).await;
        let given = answer.headers()["content-type"].to_str().unwrap();
        assert!(given.starts_with(kind), "{name} {given}");
    }
    assert_eq!(visitor.get("/assets/../Cargo.toml").await.status(), 404);
}

#[tokio::test]
async fn what_is_switched_off_on_the_page_is_off_everywhere() {
    let house = house().await;
    let hostile = "<b>topic</b>";
    house
        .notify(json!({"title": "One", "topic": hostile}))
        .await;
    let visitor = house.visitor().await;
    assert!(visitor.read("/").await.contains("href=\"/settings\""));
    let page = visitor.read("/settings").await;
    assert!(page.contains("Inbox") && page.contains(">ci<"), "{page}");
    assert!(!page.contains(hostile), "{page}");
    assert_eq!(page.matches("type=\"checkbox\"").count(), 2);
    assert_eq!(page.matches(" checked").count(), 2);

    let keys = [json!(["Web", "ci", null]), json!(["Web", "ci", hostile])];
    let form = |on: &[&Value]| {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for key in &keys {
            form.append_pair("shown", &key.to_string());
        }
        for key in on {
            form.append_pair("on", &key.to_string());
        }
        form.finish()
    };
    let send = async |body: String| {
        let request = visitor.form("/settings", &body);
        let request = request.header("sec-fetch-site", "same-origin");
        request.send().await.unwrap()
    };
    let answer = send(form(&[&keys[0]])).await;
    assert_eq!(answer.status(), 303);
    assert_eq!(answer.headers()["location"], "/settings?saved");
    let page = visitor.read("/settings?saved").await;
    assert!(page.contains("Saved."));
    assert_eq!(page.matches(" checked").count(), 1);
    let stored = house.store.settings(&[GUEST.to_owned()]).await.unwrap();
    let words: Vec<_> = stored
        .iter()
        .map(|row| (row.topic.as_deref(), row.enabled))
        .collect();
    assert_eq!(words, [(None, true), (Some(hostile), false)]);
    let foreign = visitor.form("/settings", &form(&[]));
    let answer = foreign.header("sec-fetch-site", "cross-site").send().await;
    assert_eq!(answer.unwrap().status(), 403);
}
