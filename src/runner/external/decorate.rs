//! A decorator's step on the routing slip: from its queue, through it, and on.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Link;
use crate::queue::Message;
use crate::queue::Received;
use crate::topology::CHUNKS;
use crate::worker::Verdict;
use crate::worker::Work;

/// Work on the queue of a decorator.
pub(super) struct Decorate {
    /// The decorator and how it is treated.
    pub(super) link: Link,
}

#[async_trait]
impl Work for Decorate {
    fn name(&self) -> &str {
        self.link.decorator.name()
    }

    fn batch(&self) -> usize {
        16
    }

    fn timeout(&self) -> std::time::Duration {
        // As long as a whole batch of people may take, within what the broker waits for.
        std::time::Duration::from_secs(600)
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts = Vec::with_capacity(batch.len());
        for message in batch {
            verdicts.push(Verdict::Complete(vec![self.step(message).await?]));
        }
        Ok(verdicts)
    }
}

impl Decorate {
    /// The message that goes on. What cannot be read, or fails where it must not, goes to our
    /// own workers as it came: its step is still on the slip, so that they see to it.
    async fn step(&self, message: &Received) -> Result<Message, Failure> {
        let on = |key: String, body| Message {
            reply: message.reply.clone(),
            ..Message::new(key, message.id.clone(), body)
        };
        let untouched = || on(CHUNKS.to_owned(), message.body.clone());
        let Ok(mut chunk) = serde_json::from_slice::<Chunk>(&message.body) else {
            tracing::warn!(message = message.id, "this is not a chunk");
            return Ok(untouched());
        };
        let nobody = HashMap::new();
        let decorated = self.link.decorate_chunk(&mut chunk, &nobody, |_, _| true);
        if let Err(failure) = decorated.await {
            tracing::warn!(submission.id = %chunk.header.id, chunk.no = chunk.no,
                reason = %failure.reason, detail = failure.detail, "it comes again by its policy");
            return Ok(untouched());
        }
        if !chunk.slip.is_empty() {
            chunk.slip.remove(0);
        }
        let key = chunk.slip.first().map_or(CHUNKS, String::as_str).to_owned();
        let body = serde_json::to_vec(&chunk).map_err(|error| {
            Failure::permanent(Reason::Internal, format!("cannot be written: {error}"))
        })?;
        Ok(on(key, body.into()))
    }
}
