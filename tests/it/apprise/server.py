"""An Apprise API server in small: the routes of the real one, by the real Apprise library.

    server.py KEYS      KEYS is JSON: {"key": [["json://…", "tag"], …]}

It prints its port once it listens.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import apprise

KEYS = json.loads(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/status" else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        services = apprise.Apprise()
        if self.path == "/notify":
            services.add(body["urls"])
        else:
            for url, tag in KEYS.get(self.path.removeprefix("/notify/"), []):
                services.add(url, tag=tag)
        tag = body.get("tag", apprise.common.MATCH_ALL_TAG)
        taken = services.notify(
            title=body["title"], body=body["body"], notify_type=body["type"],
            body_format=body["format"], tag=tag)
        self.answer(200 if taken else 424 if list(services.find(tag)) else 204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
