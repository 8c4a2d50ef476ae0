"""A decorator in Python: says how the weather is where the build runs.

    AMQP_URL=amqp://weather:SECRET@localhost:5672/%2F python decorator.py weather
"""

import json
import os
import sys

import pika

NAME = sys.argv[1]
PREFIX = os.environ.get("TIDINGS_PREFIX", "tidings")


def decorate(chunk):
    """Changes a chunk in place: everybody's content, one person's, or who gets it."""
    payload = chunk["payload"]
    if payload["title"].startswith("Spam"):
        raise ValueError("not for us")
    payload["description"] = payload.get("description", "") + "It is raining."
    # What is for one person alone is a patch: the fields that differ.
    for person in chunk.get("people", []):
        if person["user"].endswith("/ann"):
            person["patch"] = {**person.get("patch", {}), "title": "Ann: " + payload["title"]}
    # Whoever is taken out does not get it.
    chunk["people"] = [one for one in chunk.get("people", []) if not one["user"].endswith("/bo")]
    chunk.setdefault("notes", []).append({"step": NAME, "text": "weather added"})


def received(channel, method, properties, body):
    """Works on one chunk, sends it on, and only then lets go of it."""
    try:
        chunk = json.loads(body)
        decorate(chunk)
    except Exception as error:
        print("rejected:", error, file=sys.stderr)
        # Tidings goes on without this step, or tries again, as it is configured.
        return channel.basic_reject(method.delivery_tag, requeue=False)
    chunk["slip"] = chunk["slip"][1:]
    channel.basic_publish(
        exchange=PREFIX, routing_key=chunk["slip"][0], body=json.dumps(chunk), mandatory=True,
        properties=pika.BasicProperties(
            delivery_mode=2, message_id=properties.message_id,
            reply_to=properties.reply_to, correlation_id=properties.correlation_id))
    channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=16)
channel.basic_consume(f"{PREFIX}.decorate.{NAME}", received)
print("ready", flush=True)
channel.start_consuming()
