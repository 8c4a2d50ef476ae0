"""A sender in Python: writes to a file what another would send to a pager.

    AMQP_URL=amqp://pager:SECRET@localhost:5672/%2F python sender.py pager sent.jsonl
"""

import datetime
import json
import os
import sys

import pika

NAME, FILE = sys.argv[1:3]
PREFIX = os.environ.get("TIDINGS_PREFIX", "tidings")
asked_to_wait = set()


def send(payload, item):
    """Sends one delivery, and says what came of it: see attempt.schema.json."""
    to = item.get("person", {}).get("annotations", {}).get("pager.example.com/id")
    if not to:
        return {"state": "skipped", "reason": "no_address", "detail": "no pager"}
    if payload["title"].startswith("Later") and item["id"] not in asked_to_wait:
        asked_to_wait.add(item["id"])
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(milliseconds=100)
        return {"state": "pending", "reason": "rate", "next_at": at.isoformat()}
    if payload["title"].startswith("Never"):
        return {"state": "failed", "reason": "rejected", "detail": "the pager refused it"}
    with open(FILE, "a") as file:
        file.write(json.dumps({"id": item["id"], "to": to, "title": payload["title"]}) + "\n")
    return {"state": "sent", "provider_id": "page-" + item["id"][:8]}


def received(channel, method, properties, body):
    """Sends up to 50 deliveries, reports each, and only then lets go of them."""
    try:
        batch = json.loads(body)
        items = batch["items"]
        if batch["payload"]["title"].startswith("Spam"):
            raise ValueError("not for us")
    except Exception as error:
        print("rejected:", error, file=sys.stderr)
        return channel.basic_reject(method.delivery_tag, requeue=False)
    for item in items:
        # What a decorator changed for this person alone; null takes a field away.
        payload = {**batch["payload"], **item.get("patch", {})}
        attempt = {"delivery": item["id"], **send(payload, item)}
        channel.basic_publish(exchange=PREFIX, routing_key="attempts", body=json.dumps(attempt),
                              properties=pika.BasicProperties(delivery_mode=2), mandatory=True)
    channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=8)
for lane in (f"{PREFIX}.deliver.{NAME}", f"{PREFIX}.deliver.{NAME}.bulk"):
    channel.basic_consume(lane, received)
print("ready", flush=True)
channel.start_consuming()
