"""A server that holds random bytes: `container_server.py MEGABYTES`, on the port named by PORT.

It answers how often it was asked, and on `/sum` the checksum of what it holds; other paths
tell what its container lets it do.
"""

import ctypes
import json
import mmap
import os
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MEGABYTES = int(sys.argv[1])
HELD = mmap.mmap(-1, MEGABYTES << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(MEGABYTES):
    HELD[at << 20 : (at + 1) << 20] = os.urandom(1 << 20)

asked = 0


def names(folder: str) -> list[str]:
    return sorted(entry.name for entry in Path(folder).iterdir())


def more(path: str) -> dict[str, object]:
    match path:
        case "/sum":
            return {"sum": zlib.crc32(HELD)}
        case "/files":
            Path(f"/tmp/asked-{asked}").touch()
            return {"files": names("/tmp"), "dev": names("/dev")}
        case "/ring":
            libc = ctypes.CDLL(None, use_errno=True)
            code = libc.syscall(425, 1, 0)  # io_uring_setup
            return {"code": code, "errno": ctypes.get_errno()}
        case "/write":
            try:
                Path("/usr/written").touch()
            except OSError as error:
                return {"errno": error.errno}
            return {"errno": 0}
        case "/env":
            return {"env": dict(os.environ), "cwd": str(Path.cwd()), "uid": os.getuid()}
        case "/open-device":
            held.append(os.open("/dev/fuse", os.O_RDWR))
            return {"errno": 0}
        case "/grow":
            held.append(os.urandom(1 << 20) * 512)
    return {}


held: list[object] = []


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        global asked  # noqa: PLW0603 - the whole state of a small program.
        asked += 1
        body = json.dumps({"asked": asked, **more(self.path)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers)
print("ready", flush=True)
server.serve_forever()
