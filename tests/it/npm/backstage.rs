//! A real Backstage backend: `tests/npm/backstage.mjs`, with a database of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::clients::Answer;
use super::clients::Clients;
use super::clients::node;
use crate::support::app::App;
use crate::support::app::eventually_within;
use crate::support::app::free_port;
use crate::support::postgres::Database;

/// Who its guest provider signs in.
pub(super) const GUEST: &str = "user:development/guest";
/// The group that the guest is a member of.
pub(super) const VISITORS: &str = "group:default/visitors";

/// The longest that it may take to start, while every other test runs too.
const BOOT: Duration = Duration::from_secs(300);

/// What its catalog holds.
const PEOPLE: &str = "\
apiVersion: backstage.io/v1alpha1
kind: User
metadata: { namespace: development, name: guest }
spec: { profile: { email: guest@example.com }, memberOf: [ group:default/visitors ] }
---
apiVersion: backstage.io/v1alpha1
kind: Group
metadata: { name: visitors }
spec: { type: team, children: [] }
";

/// A running backend.
pub(super) struct Backstage {
    lines: Clients,
    log: PathBuf,
    url: String,
    http: reqwest::Client,
    // Dropped after the backend has ended.
    _database: Database,
}

impl Backstage {
    /// Beside a Tidings, which it finds by `discovery.endpoints` alone; Tidings finds it by
    /// `backend.baseUrl`. Files of both are in one directory.
    pub(super) async fn beside(app: &mut App) -> Self {
        let database = Database::create().await;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let dir = app.dir().to_owned();
        std::fs::write(dir.join("entities.yaml"), PEOPLE).unwrap();
        let config = json!({
            "app": {"baseUrl": "https://portal.example.com"},
            "backend": {
                "baseUrl": url,
                "listen": {"host": "127.0.0.1", "port": port},
                "database": {"client": "pg", "connection": database.url(),
                    "pluginDivisionMode": "schema", "ensureExists": false,
                    "ensureSchemaExists": true},
            },
            "auth": {"environment": "development", "providers": {"guest": {}}},
            "catalog": {
                "rules": [{"allow": ["User", "Group"]}],
                "locations": [{"type": "file", "target": dir.join("entities.yaml")}],
            },
            "discovery": {"endpoints": [{"target": app.api.url("/api/{{pluginId}}"),
                "plugins": ["notifications", "signals"]}]},
        });
        // JSON is YAML.
        std::fs::write(dir.join("app-config.yaml"), config.to_string()).unwrap();
        let log = dir.join("backstage.log");
        let lines = Clients::speak(
            node("backstage.mjs")
                .arg("--config")
                .arg(dir.join("app-config.yaml"))
                .env("NODE_ENV", "development")
                .stderr(Stdio::from(File::create(&log).unwrap())),
        );
        let backstage = Self {
            lines,
            log,
            url,
            http: app.api.http().clone(),
            _database: database,
        };

        assert!(app.processes[0].terminate());
        app.configure(|config| {
            let here = format!("backend: {{ baseUrl: \"{}\",", backstage.url);
            config.replacen("backend: {", &here, 1) + "  catalog: { source: backstage }\n"
        });
        app.processes[0].start_again();
        backstage.until_the_guest_is_a_visitor().await;
        app.until_ready().await;
        backstage
    }

    /// What its auth backend hands to a browser of the guest: a user token.
    pub(super) async fn guest(&self) -> Option<String> {
        let answer = self.get("/api/auth/guest/refresh", "").await?;
        let token = answer["backstageIdentity"]["token"].as_str()?;
        Some(token.to_owned())
    }

    /// Its catalog has read what it holds.
    async fn until_the_guest_is_a_visitor(&self) {
        eventually_within(BOOT, "the guest's groups", async || {
            let token = self.guest().await?;
            let info = self.get("/api/auth/v1/userinfo", &token).await?;
            let refs = info["claims"]["ent"].as_array()?;
            refs.contains(&json!(VISITORS)).then_some(())
        })
        .await;
    }

    /// Nothing where it does not answer well, as before it has started.
    async fn get(&self, path: &str, token: &str) -> Option<Value> {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = request.bearer_auth(token).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// A plugin's `notifications.send`.
    pub(super) async fn send(&self, notification: Value) -> Answer {
        self.call("notifications.send", notification).await
    }

    /// A plugin's `signals.publish`.
    pub(super) async fn publish(&self, signal: Value) -> Answer {
        self.call("signals.publish", signal).await
    }

    async fn call(&self, call: &str, argument: Value) -> Answer {
        let line = json!({"call": call, "args": [argument]});
        self.lines.call(self.lines.number(), line).await
    }
}

impl Drop for Backstage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(15);
            eprintln!("--- Backstage\n{}", lines[tail..].join("\n"));
        }
    }
}
