//! The page in a real browser, where there is one: Chromium, headless, driven over its `DevTools`
//! protocol.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::SinkExt as _;
use futures::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::GUEST;
use super::house;
use crate::http::house::House;

/// How long the browser may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One page of a browser, which ends with it.
struct Browser {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
    _child: Child,
    _profile: TempDir,
}

/// Where a browser lies.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts one; `None`, with a word on stderr, where there is none.
    async fn start() -> Option<Self> {
        let Some(program) = chromium() else {
            eprintln!("no Chromium here: not looked at in a browser");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = tokio::process::Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args([
                "--remote-debugging-port=0",
                "--window-size=1100,760",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it ended at once");
            if let Some(rest) = line.split("ws://").nth(1) {
                break rest.split('/').next().unwrap().to_owned();
            }
        };
        // Whoever writes to a pipe that nobody reads waits for ever.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let socket = Self::attach(&address).await;
        Some(Self {
            socket,
            calls: 0,
            _child: child,
            _profile: profile,
        })
    }

    async fn attach(address: &str) -> WebSocketStream<TcpStream> {
        loop {
            let list = crate::http::client().get(format!("http://{address}/json/list"));
            let targets: Value = list.send().await.unwrap().json().await.unwrap();
            let page = targets
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["type"] == "page");
            if let Some(url) = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()) {
                let stream = TcpStream::connect(address).await.unwrap();
                return tokio_tungstenite::client_async(url, stream)
                    .await
                    .unwrap()
                    .0;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let call = json!({"id": id, "method": method, "params": params});
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        let answered = async {
            loop {
                let message = self.socket.next().await.unwrap().unwrap();
                let answer: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
                if answer["id"] == id {
                    assert!(answer.get("error").is_none(), "{method}: {answer}");
                    return answer["result"].clone();
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap()
    }

    /// What an expression gives in the page.
    async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true,
            "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    async fn until(&mut self, expression: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.eval(expression).await != true {
            if end <= tokio::time::Instant::now() {
                let page = self.eval("document.documentElement.outerHTML").await;
                panic!("never true: {expression}\n{page}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Signs in by a link and waits for the list.
    async fn enter(&mut self, house: &House) {
        let code = house.auth.login_code(GUEST);
        let url = house.served.url(&format!("/login/{code}"));
        self.call("Page.navigate", json!({"url": url})).await;
        self.until("document.readyState === 'complete' && !!document.getElementById('list')")
            .await;
    }

    /// A picture, for people who set `TIDINGS_TEST_PICTURES` to a directory.
    async fn picture(&mut self, name: &str) {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let Some(dir) = std::env::var_os("TIDINGS_TEST_PICTURES") else {
            return;
        };
        let taken = self.call("Page.captureScreenshot", json!({})).await;
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(PathBuf::from(dir).join(name), png).unwrap();
    }

    async fn look(&mut self, width: u32, height: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1,
            "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await;
    }
}

#[tokio::test]
async fn a_browser_shows_what_arrives_and_marks_it_without_a_reload() {
    let house = house().await;
    house
        .notify(json!({"title": "Was here before", "severity": "low"}))
        .await;
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    browser.enter(&house).await;
    browser.until("document.title.startsWith('(1)')").await;
    browser.eval("window.sameDocument = true").await;

    let payload = json!({"title": "Arrives by itself", "severity": "critical",
        "description": "The page was open all the time.", "topic": "incident", "link": "/x"});
    let id = house.notify(payload).await;
    browser
        .until(&format!("!!document.getElementById('n-{id}')"))
        .await;
    browser.until("document.title.startsWith('(2)')").await;
    assert_eq!(
        browser
            .eval("document.getElementById('news').textContent")
            .await,
        "1 new notification"
    );

    let button = format!("document.querySelector('#n-{id} button[name=read]')");
    browser
        .eval(&format!("{button}.focus(); {button}.click()"))
        .await;
    browser
        .until(&format!("!document.getElementById('n-{id}')"))
        .await;
    browser.until("document.title.startsWith('(1)')").await;
    // Somebody who works by keyboard is not thrown back to the top.
    assert_eq!(browser.eval("document.activeElement.name").await, "read");
    assert_eq!(browser.eval("window.sameDocument").await, true);
}

#[tokio::test]
async fn a_browser_shows_the_page_well_on_a_phone_and_in_the_dark() {
    let house = house().await;
    for (title, severity) in [
        ("Disk of build-7 is nearly full", "high"),
        ("Payments is down", "critical"),
        (
            "a_very_long_unbroken_identifier_that_must_wrap_somehow_on_a_phone_or_it_scrolls",
            "normal",
        ),
    ] {
        let payload = json!({"title": title, "severity": severity, "topic": "incident",
            "description": "Checkout answers 503 since 19:38.\nNext update in 15 minutes."});
        house.notify(payload).await;
    }
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    browser.enter(&house).await;
    for (name, width, height, dark) in [
        ("desk.png", 1100, 760, false),
        ("dark.png", 1100, 760, true),
        ("phone.png", 360, 740, true),
        ("small.png", 320, 640, false),
    ] {
        browser.look(width, height, dark).await;
        browser.picture(name).await;
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.eval(fits).await, true, "{name} scrolls sideways");
        let style = "getComputedStyle(document.body).backgroundColor";
        let ground = browser.eval(style).await;
        let wanted = if dark {
            "rgb(18, 21, 28)"
        } else {
            "rgb(245, 246, 248)"
        };
        assert_eq!(ground, wanted, "{name}");
    }
}

#[tokio::test]
async fn a_browser_shows_the_settings_well_and_saves_them() {
    let house = house().await;
    for topic in [
        "deploy",
        "a_very_long_unbroken_topic_that_must_wrap_on_a_phone",
    ] {
        house.notify(json!({"title": "t", "topic": topic})).await;
    }
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    browser.enter(&house).await;
    let url = house.served.url("/settings");
    browser.call("Page.navigate", json!({"url": url})).await;
    browser.until("!!document.getElementById('switches')").await;
    for (name, width, height, dark) in [
        ("settings-desk.png", 1100, 760, false),
        ("settings-dark.png", 1100, 760, true),
        ("settings-phone.png", 360, 740, true),
        ("settings-small.png", 320, 640, false),
    ] {
        browser.look(width, height, dark).await;
        browser.picture(name).await;
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.eval(fits).await, true, "{name} scrolls sideways");
    }
    browser
        .eval("document.querySelector('.switch input').click(); document.querySelector('.keep button').click()")
        .await;
    browser.until("location.search === '?saved'").await;
    browser
        .until("document.querySelectorAll('.switch input:checked').length === 0")
        .await;
}
