//! Posts each notification to a plain HTTP service.

use async_trait::async_trait;
use serde_json::json;
use tidings::failure::{Failure, Reason};
use tidings::processor::{Outcome, Outgoing, Sender};
use tidings::runner::External;

#[derive(serde::Deserialize)]
struct Courier {
    url: String,
    #[serde(skip)]
    http: reqwest::Client,
}

#[async_trait]
impl Sender for Courier {
    fn name(&self) -> &str {
        "courier"
    }

    async fn send(&self, notification: &Outgoing<'_>) -> Outcome {
        let body = json!({"id": notification.delivery, "to": notification.user,
            "text": notification.payload.title, "attempt": notification.attempt});
        let status = match self.http.post(&self.url).json(&body).send().await {
            Ok(answer) => answer.status(),
            Err(_) => return Outcome::Failed(Failure::dependency(Reason::Network, "no answer")),
        };
        match status.as_u16() {
            200..300 => Outcome::Sent { provider_id: None },
            429 | 500.. => Outcome::Failed(Failure::transient(Reason::Server, status.to_string())),
            _ => Outcome::Failed(Failure::permanent(Reason::Rejected, status.to_string())),
        }
    }
}

fn main() -> std::process::ExitCode {
    External::sender("courier", |section| section.read::<Courier>()).run()
}
