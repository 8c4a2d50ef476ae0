//! One case: its requests, sent to something that answers by HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use super::matching::How;
use super::matching::at;
use super::matching::check;
use super::matching::fill;

/// A case of `tests/conformance/cases.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) id: String,
    #[expect(dead_code, reason = "for people")]
    area: String,
    #[expect(dead_code, reason = "for people")]
    source: String,
    given: Vec<Step>,
    request: Request,
    expect: Expect,
    pub(super) catalog: Option<Vec<Value>>,
    pub(super) config: Option<Value>,
    pub(super) processors: Option<Vec<Value>>,
    pub(super) compat: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Step {
    Wait { wait_ms: u64 },
    Send(Box<Given>),
}

#[derive(Clone, Debug, Deserialize)]
struct Given {
    #[serde(flatten)]
    request: Request,
    #[serde(default)]
    save: BTreeMap<String, String>,
    #[serde(default = "ok")]
    expect_status: u16,
}

fn ok() -> u16 {
    200
}

#[derive(Clone, Debug, Deserialize)]
struct Request {
    method: String,
    path: String,
    identity: Option<String>,
    #[serde(default)]
    query: Map<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    raw_body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: u16,
    body_exact: Option<Value>,
    body_subset: Option<Value>,
    #[serde(default)]
    order: Vec<Listed>,
    #[serde(default)]
    same_members: Vec<Listed>,
    #[serde(default)]
    count: Vec<Count>,
    signals: Option<Vec<Value>>,
    processor_calls: Option<Vec<Value>>,
    /// Which refs were looked up: held by tests of the recipients.
    #[expect(dead_code, reason = "held elsewhere")]
    catalog_calls: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Listed {
    list: String,
    field: String,
    values: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Count {
    list: String,
    n: usize,
}

/// What a case is sent to.
pub(super) trait Subject {
    /// Where it answers, without a slash at the end.
    fn url(&self) -> &str;
    /// The token of `user:…` or `service:<subject>`.
    fn token(&self, identity: &str) -> String;
    /// The signals since this was last asked.
    async fn signals(&mut self) -> Vec<Value>;
    /// The hooks of processors that were called since this was last asked, once there are
    /// `wanted` of them: nobody waits for the last.
    async fn calls(&mut self, wanted: usize) -> Vec<Value>;
}

impl Case {
    /// Every identity that it uses.
    pub(super) fn identities(&self) -> impl Iterator<Item = &str> {
        let given = self.given.iter().filter_map(|step| match step {
            Step::Send(given) => Some(&given.request),
            Step::Wait { .. } => None,
        });
        given
            .chain([&self.request])
            .filter_map(|request| request.identity.as_deref())
    }

    /// Sends what comes before it; returns what was kept of the answers.
    async fn prepare(
        &self,
        client: &reqwest::Client,
        subject: &impl Subject,
    ) -> Result<BTreeMap<String, Value>, String> {
        let mut kept = BTreeMap::new();
        for step in &self.given {
            match step {
                Step::Wait { wait_ms } => {
                    tokio::time::sleep(Duration::from_millis(*wait_ms)).await;
                }
                Step::Send(given) => {
                    let (status, body) = given.request.send(client, subject, &kept).await;
                    if status != given.expect_status {
                        return Err(format!("given: {status} {body}"));
                    }
                    for (name, path) in &given.save {
                        let value = at(&body, path).ok_or(format!("no {path} in {body}"))?;
                        kept.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        Ok(kept)
    }

    /// What its request is answered.
    pub(super) async fn answer(&self, subject: &impl Subject) -> (u16, Value) {
        let client = crate::http::client();
        let kept = self.prepare(&client, subject).await.unwrap();
        self.request.send(&client, subject, &kept).await
    }

    /// Runs it; says how the answer differs from what it expects.
    pub(super) async fn run(&self, subject: &mut impl Subject) -> Result<(), String> {
        let client = crate::http::client();
        let kept = self.prepare(&client, subject).await?;
        subject.signals().await;
        let (status, body) = self.request.send(&client, subject, &kept).await;
        if status != self.expect.status {
            return Err(format!("status {status}: {body}"));
        }
        self.expect.check(&body, &kept)?;
        if let Some(wanted) = &self.expect.signals {
            let wanted = fill(&Value::Array(wanted.clone()), &kept);
            let signals = Value::Array(subject.signals().await);
            check(How::Subset, &wanted, &signals, "signals")?;
        }
        if let Some(wanted) = &self.expect.processor_calls {
            let calls = subject.calls(wanted.len()).await;
            if calls != *wanted {
                return Err(format!("expected the calls {wanted:?}, got {calls:?}"));
            }
        }
        Ok(())
    }
}

impl Request {
    async fn send(
        &self,
        client: &reqwest::Client,
        subject: &impl Subject,
        kept: &BTreeMap<String, Value>,
    ) -> (u16, Value) {
        let path = fill(&Value::String(self.path.clone()), kept);
        let url = format!("{}{}", subject.url(), path.as_str().unwrap());
        let method = self.method.parse::<reqwest::Method>().unwrap();
        let mut url: url::Url = url.parse().unwrap();
        let pairs = self.pairs(kept);
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(&pairs);
        }
        let mut request = client.request(method, url);
        if let Some(identity) = &self.identity {
            request = request.bearer_auth(subject.token(identity));
            if identity.starts_with("service:") {
                request = request.header("prefer", "wait=10");
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(raw) = &self.raw_body {
            request = request.body(raw.clone());
        } else if let Some(body) = self.body.as_ref().filter(|body| !body.is_null()) {
            request = request.json(&fill(body, kept));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, body)
    }

    fn pairs(&self, kept: &BTreeMap<String, Value>) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (name, value) in &self.query {
            let values = match fill(value, kept) {
                Value::Array(values) => values,
                one => vec![one],
            };
            for value in values {
                let text = value.as_str().map_or(value.to_string(), str::to_owned);
                pairs.push((name.clone(), text));
            }
        }
        pairs
    }
}

impl Expect {
    fn check(&self, body: &Value, kept: &BTreeMap<String, Value>) -> Result<(), String> {
        if let Some(expected) = &self.body_exact {
            check(How::Exact, &fill(expected, kept), body, "body")?;
        }
        if let Some(expected) = &self.body_subset {
            check(How::Subset, &fill(expected, kept), body, "body")?;
        }
        for listed in &self.order {
            let values = listed.of(body)?;
            if values != listed.values {
                return Err(format!("{listed:?}, got {values:?}"));
            }
        }
        for listed in &self.same_members {
            let text = |values: Vec<Value>| {
                let mut texts: Vec<_> = values.iter().map(Value::to_string).collect();
                texts.sort();
                texts
            };
            let values = text(listed.of(body)?);
            if values != text(listed.values.clone()) {
                return Err(format!("{listed:?}, got {values:?}"));
            }
        }
        self.count.iter().try_for_each(|count| {
            let list = at(body, &count.list).and_then(Value::as_array);
            match list.map(Vec::len) {
                Some(found) if found == count.n => Ok(()),
                found => Err(format!("{count:?}, got {found:?}")),
            }
        })
    }
}

impl Listed {
    fn of(&self, body: &Value) -> Result<Vec<Value>, String> {
        let list = at(body, &self.list)
            .and_then(Value::as_array)
            .ok_or(format!("no list {} in {body}", self.list))?;
        let field = |one| at(one, &self.field).cloned().unwrap_or(Value::Null);
        Ok(list.iter().map(field).collect())
    }
}
