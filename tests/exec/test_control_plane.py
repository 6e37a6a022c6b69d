"""The control plane on loopback: real gRPC, real worker processes, one store; no gateway's HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from agent_node import agent_node, needs_node
from cluster_objects import namespace, tenant
from msgspec.structs import replace
from standin_gpus import Node as Gpus

from inferx.core.commands import Dispatch, Refuse, RouterCommand
from inferx.core.events import RequestArrived, RequestFinished, RouterEvent
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import NodeId, PodId, RequestId, RouterId
from inferx.core.units import GIB
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.description import describe
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.membership import Membership
from inferx.exec.agent.node import assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.standing_in import stand_in
from inferx.exec.clock import WallClock
from inferx.exec.driver import Driver
from inferx.exec.functions import KINDS, FunctionBook
from inferx.exec.gateway.scheduler_line import SchedulerLine
from inferx.exec.journal import replayed
from inferx.exec.scheduler.leader import TermConfig
from inferx.exec.scheduler.service import SchedulerService
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.selector import Selection
from inferx.exec.wire.codec import Codec
from inferx.load import load_bundle

pytestmark = needs_node


class Caller:
    """A gateway without HTTP in front: a router, its line, and calls to pods."""

    def __init__(self, objects: Objects, clock: WallClock) -> None:
        self._objects = objects
        self._clock = clock
        self.book = FunctionBook()
        self.router = Router(RouterId(0), (), load_bundle("default"), stream(1, "router/0"))
        self.driver: Driver[RouterEvent, RouterCommand] = Driver("router", self.router, clock, self)
        self.line = SchedulerLine(
            "caller",
            self._leader,
            codec=Codec(self.book.names),
            clock=clock,
            post=self.driver.post,
            locate=self._locate,
        )
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._addresses: dict[int, str] = {}
        self._news = asyncio.Event()
        self._next = 0

    async def _leader(self) -> str:
        while True:
            listed = await self._objects.list(Selection(type="scheduler"))
            if listed.objects:
                return str(listed.objects[0].object["address"])
            await asyncio.sleep(0.05)

    def _locate(self, pod: PodId, address: str) -> None:
        self._addresses[pod] = address

    async def persist(self, records: Any) -> None:
        raise AssertionError(records)

    def send(self, command: RouterCommand) -> None:
        if isinstance(command, Dispatch | Refuse):
            self._waiting.pop(command.request).set_result(command)
        else:
            self.line.send(command)

    async def knows(self, name: str) -> None:
        while self.book.get("t", "n", name) is None:
            self._news.clear()
            await self._news.wait()

    async def ask(self, name: str) -> dict[str, Any]:
        called = self.book.get("t", "n", name)
        assert called is not None
        request = RequestId(self._next)
        self._next += 1
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        self.driver.post(RequestArrived(request, called.id))
        answer = await future
        assert isinstance(answer, Dispatch), answer
        url = f"http://{self._addresses[answer.pod]}/v1/completions"
        body = {"model": name, "prompt": "hello", "max_tokens": 4}
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
            assert reply.status == 200
            told = json.loads(await reply.read())
        self.driver.post(RequestFinished(request, answer.pod))
        return told

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        informer = Informer(self._objects, *(Selection(type=kind) for kind in KINDS))

        async def follow() -> None:
            async for changed in informer.changes():
                self.driver.post(*self.book.take(changed))
                self._news.set()

        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(one)
                for one in (informer.run(), follow(), self.driver.run(), self.line.run())
            ]
            await informer.synced()
            yield
            for task in running:
                task.cancel()


def function(name: str, **more: Any) -> DataObject:
    spec = {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", name],
        "resources": {"CPU": 1000, "Mem": 2000, "GPU": {"Type": "Any", "Count": 1, "vRam": 20_000}},
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "inferx": {"milli_gpu": 300},
    }
    return DataObject(
        type="function", tenant="t", namespace="n", name=name, object={"spec": spec | more}
    )


@asynccontextmanager
async def cluster(
    folder: Path, **scheduler: Any
) -> AsyncIterator[tuple[Caller, SchedulerService, Objects]]:
    clock = WallClock()
    store = MemoryStore(clock)
    objects = Objects(store)
    await objects.create(tenant("t", max_funccount=100, max_replica=4), who=ADMIN)
    await objects.create(namespace("t", "n"), who=ADMIN)
    gpus = Gpus.make(folder / "gpus")
    with agent_node(folder, gpus, gpus=(80 * GIB, 80 * GIB)) as made:
        node = assemble(made.config)
        functions = Deployments(folder / "functions", stand_in)
        pods = Pods(node, functions)
        agent = AgentService(Executor(pods), node=NodeId(0), state=made.config.state)
        spec = replace(describe(node, name="here"), host_bytes=200 * GIB)
        member = Membership(
            agent, functions, spec, store, objects, listen="127.0.0.1:0", clock=clock
        )
        service = SchedulerService(
            TermConfig(journals=folder / "journals", **scheduler),
            store,
            objects,
            address="127.0.0.1:0",
        )
        caller = Caller(objects, clock)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(member.run()), tasks.create_task(service.run())]
                async with caller.running():
                    yield caller, service, objects
                for task in running:
                    task.cancel()
        finally:
            pods.close()
            node.close()


def test_functions_are_started_for_requests_and_their_journal_replays(tmp_path: Path) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), cluster(tmp_path) as (caller, _, objects):
            for name in ("f", "g"):
                await objects.create(function(name), who=ADMIN)
            await caller.knows("g")
            told = await asyncio.gather(*(caller.ask(name) for name in ("f", "g", "f")))
            assert [one["model"] for one in told] == ["f", "g", "f"]
            assert (await caller.ask("f"))["model"] == "f"

    asyncio.run(work())
    for journal in (tmp_path / "journals").iterdir():
        kind, steps, truncated, divergence = replayed(journal)
        assert (kind, truncated, divergence) == ("scheduler", False, None)
        assert steps > 5
