//! Between our messages and AMQP's: properties, headers, post-mortems, errors.
//!
//! Used by the publisher and the consumer. Errors made here carry the broker's words and names
//! of queues, never a body or a password.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::ErrorKind;
use lapin::message::Delivery;
use lapin::protocol::AMQPErrorKind;
use lapin::protocol::AMQPHardError;
use lapin::protocol::AMQPSoftError;
use lapin::types::AMQPValue;
use lapin::types::FieldTable;
use lapin::types::ShortString;

use super::topology::Topology;
use crate::failure::Reason;
use crate::queue::DEAD;
use crate::queue::DELIVERY_LIMIT;
use crate::queue::HEADER_DETAIL;
use crate::queue::HEADER_PRODUCER;
use crate::queue::HEADER_REASON;
use crate::queue::HEADER_STAGE;
use crate::queue::HEADER_TRIES;
use crate::queue::Headers;
use crate::queue::Message;
use crate::queue::QueueError;
use crate::queue::Receipt;
use crate::queue::Received;
use crate::queue::ReplyTo;
use crate::topology::CHUNKS;
use crate::topology::decorator;

/// AMQP's mark of a message that survives a restart.
const PERSISTENT: u8 = 2;

/// Most bytes of a producer's own headers that are carried along; of more, none is.
const PRODUCER_HEADERS_MAX: usize = 16 << 10;

/// Headers by which a publisher adds routing keys. Published again they would send the message to
/// queues that its producer may not write to, or, as the texts we make of them, be refused.
const ROUTING: [&str; 2] = ["CC", "BCC"];

/// AMQP's short string: 255 bytes at most. What is longer is cut, at a character.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(usize::from(u8::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::from(&text[..end])
}

/// The properties of a message of ours. `user_id` is never set: it is the producers' to prove
/// who they are.
pub(super) fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short(name), AMQPValue::LongString(value.as_str().into()));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&message.id))
        .with_headers(headers);
    if let Some(reply) = message.reply.as_ref().filter(|to| !to.address.is_empty()) {
        properties = properties
            .with_reply_to(short(&reply.address))
            .with_correlation_id(short(&reply.correlation));
    }
    if let Some(expires) = message.expires {
        properties = properties.with_expiration(short(&expires.as_millis().to_string()));
    }
    properties
}

/// A delivery from the queue `key` as a message of ours.
pub(super) fn received(
    delivery: Delivery,
    key: &str,
    topology: &Topology,
    receipt: Receipt,
) -> Received {
    let properties = &delivery.properties;
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty);
    let mut headers = texts(table);
    // Elsewhere an entry is of a wait that ran out; but our own workers take up what a foreign
    // one missed.
    let death = Death::of(table, topology)
        .filter(|death| key == DEAD || (key == CHUNKS && decorator(&death.stage).is_some()));
    let exchange = match &death {
        Some(death) => death.exchange.as_str(),
        None => delivery.exchange.as_str(),
    };
    if exchange == topology.submit() {
        // A producer says nothing in our name.
        headers.retain(|name, _| !name.starts_with("tidings-"));
        // What it says must leave room for what we add: see DETAIL_BYTES_MAX.
        let bytes: usize = headers
            .iter()
            .map(|(name, text)| name.len() + text.len())
            .sum();
        if PRODUCER_HEADERS_MAX < bytes {
            headers.clear();
        }
        let user = word(properties.user_id());
        headers.insert(HEADER_PRODUCER.to_owned(), user);
    }
    if let Some(death) = death {
        death.tell(&mut headers, key == DEAD);
    }
    let returns = table.inner().get("x-delivery-count").and_then(count);
    let reply = properties.reply_to().as_ref().map(|address| ReplyTo {
        address: address.to_string(),
        correlation: word(properties.correlation_id()),
    });
    let message = Message {
        key: key.to_owned(),
        id: word(properties.message_id()),
        headers,
        body: Bytes::from(delivery.data),
        delay: None,
        expires: None,
        reply: reply.filter(|_| key != DEAD),
    };
    Received::new(message, receipt, returns.unwrap_or(0))
}

fn word(property: &Option<ShortString>) -> String {
    property
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// The headers as text, without those that steer the broker: published again, its record of deaths
/// would make it see a circle and drop the message.
fn texts(table: &FieldTable) -> Headers {
    table
        .into_iter()
        .filter(|(name, _)| !name.as_str().starts_with("x-") && !ROUTING.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), as_text(value)))
        .collect()
}

fn as_text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(one) => one.to_string(),
        AMQPValue::Float(one) => one.to_string(),
        AMQPValue::Double(one) => one.to_string(),
        AMQPValue::ShortShortInt(one) => one.to_string(),
        AMQPValue::ShortShortUInt(one) => one.to_string(),
        AMQPValue::ShortInt(one) => one.to_string(),
        AMQPValue::ShortUInt(one) => one.to_string(),
        AMQPValue::LongInt(one) => one.to_string(),
        AMQPValue::LongUInt(one) => one.to_string(),
        AMQPValue::LongLongInt(one) => one.to_string(),
        AMQPValue::Timestamp(one) => one.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        AMQPValue::Void => String::new(),
        // Lists, tables, decimals: readable, if not pretty.
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// A count, of whatever width the broker chose.
fn count(value: &AMQPValue) -> Option<u32> {
    as_text(value).parse().ok()
}

/// What the broker wrote about the last death of a message.
struct Death {
    stage: String,
    exchange: String,
    reason: String,
}

impl Death {
    /// The newest entry of the broker's record; older ones are of waits that ran out.
    fn of(table: &FieldTable, topology: &Topology) -> Option<Self> {
        let Some(AMQPValue::FieldArray(deaths)) = table.inner().get("x-death") else {
            return None;
        };
        let Some(AMQPValue::FieldTable(last)) = deaths.as_slice().first() else {
            return None;
        };
        let field = |name: &str| last.inner().get(name).map(as_text).unwrap_or_default();
        Some(Self {
            stage: topology.key(&field("queue")).to_owned(),
            exchange: field("exchange"),
            reason: field("reason"),
        })
    }

    /// Tells it in the headers; counted as a try where that was the end of the message.
    fn tell(self, headers: &mut Headers, counted: bool) {
        let (reason, detail) = match self.reason.as_str() {
            "delivery_limit" => (
                Reason::DeliveryLimit,
                format!(
                    "it was handed out {DELIVERY_LIMIT} times and never finished: it may kill \
                     the process that takes it"
                ),
            ),
            "rejected" => (Reason::Rejected, "a foreign worker rejected it".to_owned()),
            "expired" => (Reason::Timeout, "nobody took it in time".to_owned()),
            other => (Reason::Internal, format!("the broker gave it up: {other}")),
        };
        let tries = headers
            .get(HEADER_TRIES)
            .and_then(|tries| tries.parse::<u32>().ok())
            .unwrap_or(0);
        if counted {
            headers.insert(HEADER_TRIES.to_owned(), (tries + 1).to_string());
        }
        headers.insert(HEADER_STAGE.to_owned(), self.stage);
        headers.insert(HEADER_REASON.to_owned(), reason.as_str().to_owned());
        headers.insert(HEADER_DETAIL.to_owned(), detail);
    }
}

/// Whether a right is missing.
pub(super) fn is_access_refused(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refusal)
        if matches!(refusal.kind(), AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)))
}

/// What an error of the client means: will it pass, or must somebody act?
pub(super) fn trouble(error: &lapin::Error) -> QueueError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else {
        return QueueError::Unavailable(error.to_string());
    };
    let words = refusal.get_message().to_string();
    match refusal.kind() {
        AMQPErrorKind::Soft(
            AMQPSoftError::ACCESSREFUSED
            | AMQPSoftError::NOTFOUND
            | AMQPSoftError::PRECONDITIONFAILED,
        )
        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => QueueError::Topology(words),
        _ => QueueError::Unavailable(words),
    }
}
