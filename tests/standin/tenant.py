"""A small HTTP server that holds "GPU memory" through the CUDA driver: what tests start as a pod.

    python tenant.py --port P [--gpu-mb 64] [--host-mb 0] [--api auto|bindings|ctypes] [--bind ADDR]

It allocates `--gpu-mb` on each GPU that it sees (CUDA_VISIBLE_DEVICES), fills it with bytes that
depend on `--seed`, and only then serves; `--port 0` takes any, told on its first line of output.
It needs `libcuda.so.1` in LD_LIBRARY_PATH and, where that is the stand-in, STANDIN_GPUS; with
`--gpu-mb 0` it needs neither. The standard library suffices: `cuda.bindings` is used where it is
installed, the same calls through ctypes where it is not.

    GET  /health     200
    GET  /state      JSON: pid, counter (one more at each), gpus (UUIDs), gpu_crcs, host_crc
    GET  /count      JSON: pid, counter and wakes; touches no GPU
    POST /allocate?mb=N   holds N MB more of the first GPU; 507 where there is no room
    POST /quiesce    frees what /allocate took      POST /wake   counts, to tell that it was called
"""

import argparse
import ctypes
import importlib
import json
import os
import random
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MB = 1 << 20


class OutOfMemoryError(Exception):
    pass


def check(result, call):
    if result == 2:
        raise OutOfMemoryError(call)
    if result:
        raise RuntimeError(f"{call}: CUresult {result}")


class Ctypes:
    """The few calls that a tenant makes, through ctypes."""

    def __init__(self):
        self.lib = ctypes.CDLL("libcuda.so.1")

    def call(self, name, *arguments):
        check(getattr(self.lib, name)(*arguments), name)

    def init(self):
        self.call("cuInit", 0)
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def uuid(self, ordinal):
        into = (ctypes.c_ubyte * 16)()
        self.call("cuDeviceGetUuid_v2", into, ordinal)
        return bytes(into)

    def retain(self, ordinal):
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
        return context

    def use(self, context):
        self.call("cuCtxSetCurrent", context)

    def allocate(self, size):
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def free(self, pointer):
        self.call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def write(self, pointer, source):
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), source, ctypes.c_size_t(len(source)))

    def read(self, into, pointer):
        there = (ctypes.c_ubyte * len(into)).from_buffer(into)
        self.call("cuMemcpyDtoH_v2", there, ctypes.c_uint64(pointer), ctypes.c_size_t(len(into)))


class Bindings:
    """The same through the real cuda-bindings."""

    def __init__(self):
        self.driver = importlib.import_module("cuda.bindings.driver")

    def call(self, name, *arguments):
        result, *values = getattr(self.driver, name)(*arguments)
        check(int(result), name)
        return values[0] if values else None

    def init(self):
        self.call("cuInit", 0)
        return self.call("cuDeviceGetCount")

    def uuid(self, ordinal):
        return bytes(self.call("cuDeviceGetUuid", ordinal).bytes)

    def retain(self, ordinal):
        return self.call("cuDevicePrimaryCtxRetain", ordinal)

    def use(self, context):
        self.call("cuCtxSetCurrent", context)

    def allocate(self, size):
        return int(self.call("cuMemAlloc", size))

    def free(self, pointer):
        self.call("cuMemFree", pointer)

    def write(self, pointer, source):
        self.call("cuMemcpyHtoD", pointer, source, len(source))

    def read(self, into, pointer):
        self.call("cuMemcpyDtoH", into, pointer, len(into))


def open_api(name):
    if name == "ctypes":
        return Ctypes()
    try:
        return Bindings()
    except ImportError:
        if name == "bindings":
            raise
        return Ctypes()


class Tenant:
    def __init__(self, options):
        self.counter = self.wakes = 0
        self.gpu_bytes = options.gpu_mb * MB
        source = random.Random(options.seed)
        self.host = source.randbytes(min(options.host_mb, 1) * MB) * max(options.host_mb, 1)
        self.buffer = bytearray(MB)
        self.lock = threading.Lock()
        self.extra = []
        self.contexts, self.pointers = [], []
        if not options.gpu_mb:
            return
        self.api = open_api(options.api)
        for ordinal in range(self.api.init()):
            self.contexts.append(self.api.retain(ordinal))
            self.api.use(self.contexts[-1])
            pointer = self.api.allocate(self.gpu_bytes)
            self.pointers.append(pointer)
            for offset in range(0, self.gpu_bytes, MB):
                self.api.write(pointer + offset, source.randbytes(MB))

    def gpus(self):
        found = []
        for ordinal in range(len(self.contexts)):
            digits = self.api.uuid(ordinal).hex()
            parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            found.append("GPU-" + "-".join(parts))
        return found

    def gpu_crcs(self):
        found = []
        for context, pointer in zip(self.contexts, self.pointers, strict=True):
            self.api.use(context)
            crc = 0
            for offset in range(0, self.gpu_bytes, MB):
                self.api.read(self.buffer, pointer + offset)
                crc = zlib.crc32(self.buffer, crc)
            found.append(crc)
        return found

    def count(self):
        self.counter += 1
        return {"pid": os.getpid(), "counter": self.counter, "wakes": self.wakes}

    def state(self):
        seen = {"gpus": self.gpus(), "gpu_crcs": self.gpu_crcs(), "host_crc": zlib.crc32(self.host)}
        return self.count() | seen

    def allocate(self, mb):
        self.api.use(self.contexts[0])
        self.extra.append(self.api.allocate(mb * MB))
        return {"mb": mb}

    def quiesce(self):
        while self.extra:
            self.api.free(self.extra.pop())
        return {}

    def wake(self):
        self.wakes += 1
        return {}


def handler(tenant):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def serve(self, routes):
            url = urlsplit(self.path)
            if url.path not in routes:
                self.answer(404, {"error": f"no {url.path}"})
                return
            try:
                with tenant.lock:
                    content = routes[url.path](parse_qs(url.query))
            except OutOfMemoryError as error:
                self.answer(507, {"error": f"{error}: out of memory"})
            except RuntimeError as error:
                self.answer(500, {"error": str(error)})
            else:
                self.answer(200, content)

        def do_GET(self):
            if self.path == "/health":  # Not behind the lock: it tells that the process is there.
                self.answer(200, {})
                return
            self.serve({"/state": lambda _: tenant.state(), "/count": lambda _: tenant.count()})

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.serve(
                {
                    "/allocate": lambda query: tenant.allocate(int(query["mb"][0])),
                    "/quiesce": lambda _: tenant.quiesce(),
                    "/wake": lambda _: tenant.wake(),
                }
            )

    return Handler


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--gpu-mb", type=int, default=64)
    parser.add_argument("--host-mb", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--api", choices=("auto", "bindings", "ctypes"), default="auto")
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.bind, options.port), handler(Tenant(options)))
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
