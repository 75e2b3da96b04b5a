"""Scores answers to questions such as "What is 7 times 8?": python verifier.py [PORT]

Let requests name it: kinetics-serve serve --verifier localhost:9000
Name it, in kinetics: {"strategy": "best_of_n", "scorer": {"kind": "http", "url": "http://localhost:9000/score"}, …}
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(messages: list[dict[str, str]], text: str, answer: str | None) -> float:
    """1 for the right product, 0 for another. text: the sample's; answer: what was extracted from it."""
    factors = re.search(r"(\d+) times (\d+)", messages[-1]["content"])
    right = factors is not None and answer == str(int(factors[1]) * int(factors[2]))
    return float(right)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = json.dumps({"score": score(**asked)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)


if __name__ == "__main__":
    ThreadingHTTPServer(("localhost", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Handler).serve_forever()
