//! One workspace: its app's calls, who is who in it, and whether it takes messages now.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::ANNOTATION;
use super::api::Answer;
use super::api::Api;
use super::api::Fault;
use super::api::Means;
use super::config::WorkspaceConfig;
use super::directory::Directory;
use super::pace::Pace;
use super::standing::Standing;
use crate::catalog::CatalogUser;
use crate::failure::Reason;

/// What the app must be allowed to do.
const SCOPE: &str = "chat:write";
/// What it should be allowed to do.
const LOOKUP_SCOPE: &str = "users:read.email";

/// A workspace.
pub(super) struct Workspace {
    pub(super) name: String,
    pub(super) config: WorkspaceConfig,
    pub(super) pace: Pace,
    pub(super) standing: Standing,
    api: Api,
    directory: Directory,
}

impl Workspace {
    /// The `no`th of the configuration.
    ///
    /// # Errors
    /// Says why there can be no client.
    pub(super) fn new(no: usize, config: WorkspaceConfig) -> Result<Self, String> {
        let base = config.api().map_err(|error| error.to_string())?;
        let api = Api::new(base, config.token.clone(), config.timeout())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            name: config.name(no),
            pace: Pace::new(config.gap()),
            standing: Standing::default(),
            api,
            directory: Directory::default(),
            config,
        })
    }

    /// Posts a message; returns `channel/ts`, its name.
    pub(super) async fn post(
        &self,
        channel: &str,
        message: &Map<String, Value>,
    ) -> Result<Option<String>, Fault> {
        let mut body = message.clone();
        body.insert("channel".to_owned(), json!(channel));
        if let Some(username) = &self.config.username {
            body.insert("username".to_owned(), json!(username));
        }
        self.chat("chat.postMessage", body).await
    }

    /// Changes a message; returns its name.
    pub(super) async fn update(
        &self,
        channel: &str,
        ts: &str,
        message: &Map<String, Value>,
    ) -> Result<Option<String>, Fault> {
        let mut body = message.clone();
        body.insert("channel".to_owned(), json!(channel));
        body.insert("ts".to_owned(), json!(ts));
        self.chat("chat.update", body).await
    }

    async fn chat(&self, method: &str, body: Map<String, Value>) -> Result<Option<String>, Fault> {
        let asked = body["channel"].clone();
        let Answer { body, .. } = self.noted(self.api.call(method, &Value::Object(body)).await)?;
        // A direct message is addressed to a person and lies in a channel of its own.
        let channel = body["channel"].as_str().or(asked.as_str());
        let name = channel.zip(body["ts"].as_str());
        Ok(name.map(|(channel, ts)| format!("{channel}/{ts}")))
    }

    /// The id of a person: by their annotation, else by their address.
    pub(super) async fn id(&self, person: &CatalogUser) -> Result<Option<String>, Fault> {
        let annotated = person.annotations.get(ANNOTATION);
        if let Some(id) = annotated.filter(|id| !id.is_empty()) {
            return Ok(Some(id.clone()));
        }
        let Some(email) = person.email.as_deref().filter(|email| !email.is_empty()) else {
            return Ok(None);
        };
        self.noted(self.directory.id(&self.api, email).await)
    }

    /// Asks who the app is, and says so.
    pub(super) async fn probe(&self) -> Result<String, Fault> {
        let Answer { body, scopes } = self.api.ask("auth.test", &[]).await?;
        let text = |field: &str| body[field].as_str().unwrap_or("?").to_owned();
        let said = format!("{} as {}", text("team"), text("user"));
        let Some(scopes) = scopes else {
            return Ok(said);
        };
        let may = |wanted: &str| scopes.iter().any(|one| one == wanted);
        if !may(SCOPE) {
            return Err(Fault {
                means: Means::Closed,
                reason: Reason::Auth,
                detail: format!("{said}, which lacks the scope {SCOPE}"),
                code: String::new(),
            });
        }
        if may(LOOKUP_SCOPE) {
            return Ok(said);
        }
        Ok(format!(
            "{said}; without the scope {LOOKUP_SCOPE} only people with the annotation {ANNOTATION} are found"
        ))
    }

    /// Notes what an answer says of the workspace.
    fn noted<T>(&self, answer: Result<T, Fault>) -> Result<T, Fault> {
        match &answer {
            Ok(_) => self.standing.well(),
            Err(fault) => self.standing.failed(fault),
        }
        answer
    }
}
