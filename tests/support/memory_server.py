"""A function to run: an HTTP server that holds random bytes, counts its answers, and tells both.

Run as `python memory_server.py MEBIBYTES`; it listens on PORT, says `ready` on standard output,
and writes a line for each answer. It sums what it holds anew each time. With UNDUMPABLE it holds
an open device that no snapshot can have.
"""

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HELD = bytearray(os.urandom(int(sys.argv[1]) << 20))
ODD = open(os.environ["UNDUMPABLE"], "rb") if "UNDUMPABLE" in os.environ else None  # noqa: SIM115, PTH123
answers = 0


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        global answers  # noqa: PLW0603
        answers += 1
        told = {"answers": answers, "sum": "", "pid": os.getpid()}
        if self.path == "/sum":
            told["sum"] = hashlib.blake2b(HELD).hexdigest()
        # Said first, so that whoever has the answer finds it in the log.
        print(f"answer {answers}", flush=True)
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Answers)
    server.daemon_threads = True
    print("ready", flush=True)
    server.serve_forever()
