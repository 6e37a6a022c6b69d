"""The agent's own socket on this node: commands in, facts out, and how it stands.

HTTP over a unix socket in a folder that only the agent's user can enter: whoever can open it may do
all that the agent can. `GET /status`, `POST /commands` (one command in JSON), `GET /facts` (a line
of JSON each, as they come; for one listener).
"""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from inferx.core.commands import NodeCommand
from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.page_server import pages_of
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.store.durable import make_folder

__all__ = ["serve", "status_of"]

_COMMAND: msgspec.json.Decoder[NodeCommand] = msgspec.json.Decoder(NodeCommand)


def status_of(service: AgentService) -> Mapping[str, Any]:
    """Return what runs, what holds GPUs, and what the node can do, as JSON's builtins.

    Memory is told from each side that knows: what is promised, what the driver counts, what the
    pods' cgroups are charged.
    """
    pods = service.executor.pods
    node = pods.node
    processes = node.inventory.processes()
    told: list[Mapping[str, Any]] = []
    for one in pods.all():
        pids = frozenset(node.sandbox.pids(one.spec.pod))
        told.append(
            {
                "pod": one.record.pod,
                "function": one.record.named,
                "state": one.record.state,
                "address": one.record.address,
                "slices": msgspec.to_builtins(one.record.slices),
                "snapshot": one.record.snapshot,
                "pages": pages_of(one.spec.folder),
                "host_bytes": node.sandbox.memory_bytes(one.spec.pod),
                "gpu_bytes": sum(p.memory_used for p in processes if p.pid in pids),
                "suspended_gpu_bytes": one.record.device_bytes
                if one.record.state == "standby"
                else 0,
            }
        )
    return {
        "gpus": msgspec.to_builtins(pods.room.gpus()),
        "pods": told,
        "throttled": dict(service.guard.throttled),
        "throttles": service.guard.throttles,
        "stuck": [record.pod for record in pods.stuck()],
        "capabilities": msgspec.to_builtins(node.capabilities),
        "errors": list(service.last_errors),
    }


async def serve(service: AgentService, socket: Path) -> web.AppRunner:
    """Serve on a unix socket; the caller cleans the runner up."""
    _make_place(socket)
    app = web.Application()

    async def status(_: web.Request) -> web.Response:
        # It asks the driver and the sandbox, which may take their time.
        try:
            return web.json_response(await asyncio.to_thread(status_of, service))
        except AgentError as error:
            # A pod that ended while it was asked about, for one.
            return web.json_response({"error": str(error)}, status=503)

    async def command(request: web.Request) -> web.Response:
        try:
            service.command(_COMMAND.decode(await request.read()))
        except UNDECODABLE as error:
            return web.json_response({"error": f"no command: {error}"}, status=400)
        return web.json_response({}, status=202)

    async def facts(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        try:
            async for fact in service.facts():
                await answer.write(json.dumps(msgspec.to_builtins(fact)).encode() + b"\n")
        except AgentError:
            # It did not keep up: it ends here, and begins anew with another request.
            pass
        return answer

    app.add_routes(
        [
            web.get("/status", status),
            web.post("/commands", command),
            web.get("/facts", facts),
        ]
    )
    # Cancelled with its connection: a listener that left must not take facts from the next one.
    runner = web.AppRunner(app, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    return runner


def _make_place(socket: Path) -> None:
    """Have a folder that only this user can enter, without a socket that a dead agent left."""
    try:
        make_folder(socket.parent)
        facts = socket.parent.stat()
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise AgentError(f"{socket.parent}: others can enter it; expected a folder of mode 700")
        if socket.exists() and not socket.is_socket():
            raise AgentError(f"{socket}: there is something else; expected a socket, or nothing")
        socket.unlink(missing_ok=True)
    except OSError as error:
        raise AgentError(f"{socket}: {error.strerror}; expected a place for a socket") from error
