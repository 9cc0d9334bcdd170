"""A service that does nothing but answer: ready once it listens, and telling which variables of ours it was given."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answers(BaseHTTPRequestHandler):
    """GET /health/ready: 200. GET /variables: the names of its MEDCHAIN variables. GET /pid: its process id."""

    def do_GET(self) -> None:
        """Answer."""
        answers: dict[str, object] = {
            "/health/ready": "ready",
            "/variables": sorted(name for name in os.environ if name.startswith("MEDCHAIN_")),
            "/pid": os.getpid(),
        }
        known = self.path in answers
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answers.get(self.path)).encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["MEDCHAIN_PORT"])), Answers).serve_forever()
