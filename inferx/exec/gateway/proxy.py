"""From a request to a pod's answer: whose it is, which function it wants, its turn, its pod.

Laws:
1. A request whose body reached a pod is never sent to another. One that found no connection may
   ask for another turn, as a new request to the router: a router dispatches each once.
2. A client that leaves takes its request with it, wherever that is.
3. An event stream that waits is begun here, and told that it waits; from then on, what goes wrong
   is an event.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from inferx.exec.gateway.bodies import Body
from inferx.exec.gateway.client_answer import ClientAnswer
from inferx.exec.gateway.dispatch import Call, Dispatcher, FunctionName
from inferx.exec.gateway.exchange import Exchange
from inferx.exec.gateway.heads import RequestHead, forwarded
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.paths import ApiCall, FunctionCall, ModelCall, Models, nothing_here, parse
from inferx.exec.gateway.peeking import Peeked, peek
from inferx.exec.gateway.pods import PodConnection, Pods
from inferx.exec.gateway.records import LEFT, RequestRecord
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.requests import Requests, bad_id
from inferx.exec.gateway.sse import EVENT_STREAM, WAITING, error_event
from inferx.exec.gateway.sweeping import Sweep
from inferx.exec.gateway.usage import NOTHING, Usage
from inferx.exec.identity.principal import Principal
from inferx.exec.metrics.gateway import CLIENT_LEFT, CallCounts, GatewayCounts

__all__ = ["Authorize", "Catalogue", "Pass", "Proxy"]


class Pass(Protocol):
    """Leave to call a function, once; told when the call is over."""

    def ended(self, usage: Usage) -> None:
        """The call is over, well or not; with what it used, as far as somebody counted."""
        ...


class Authorize(Protocol):
    """Says who sent a request, and whether they may call a function; identity's."""

    async def who(self, head: RequestHead) -> Principal | Refused:
        """Return who sent a request, or why it is not looked at any further."""
        ...

    def enter(self, who: Principal, head: RequestHead, function: FunctionName) -> Pass | Refused:
        """Return leave, or why not."""
        ...


class Catalogue(Protocol):
    """The functions that can be called by a model's name."""

    def find(self, model: str) -> FunctionName | None:
        """Return which function serves a model."""
        ...

    async def visible(self, head: RequestHead) -> Iterable[str]:
        """Return the models that a caller may know of.

        Raises:
            Refused: The caller may know of none.
        """
        ...


class _ConnectError(Exception):
    """No connection to a pod; nothing was sent."""


class Proxy:
    """Answers requests; `serve` is a task for each."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        authorize: Authorize,
        catalogue: Catalogue,
        pods: Pods,
        limits: HttpLimits,
        sweep: Sweep,
        requests: Requests,
        counts: GatewayCounts,
        *,
        fault: Callable[[Exception, RequestRecord], None],
    ) -> None:
        self._counts = counts
        self._dispatcher = dispatcher
        self._authorize = authorize
        self._catalogue = catalogue
        self._pods = pods
        self._limits = limits
        self._sweep = sweep
        self._requests = requests
        self._fault = fault
        self.api = ""
        """Where what is no inference is answered; nowhere, if empty."""

    async def serve(self, client: ClientAnswer, head: RequestHead, body: Body) -> None:
        """Answer one request, and count it."""
        counts = self._counts
        counts.methods[head.method] += 1
        client.counted = counts.unnamed
        record = self._requests.begin(head)
        client.request_id = record.id
        try:
            await self._answer(client, head, body, record)
        except Refused as why:
            record.reason = why.reason
            counts.refusals.add(why.reason)
            _tell(client, why)
        except asyncio.CancelledError:
            record.reason = record.reason or LEFT
            raise
        except Exception as error:  # noqa: BLE001  # one request's fault must not be another's
            record.reason = "internal error"
            self._fault(error, record)
            told = Refused(record.reason, "the gateway failed; it has been logged")
            counts.refusals.add(told.reason)
            _tell(client, told)
        finally:
            counts.body_bytes_in += body.size
            counts.body_bytes_out += client.body_bytes
            client.counted[client.status or CLIENT_LEFT] += 1
            record.status = client.status
            self._requests.ended(record)
            client.over()

    async def _answer(
        self, client: ClientAnswer, head: RequestHead, body: Body, record: RequestRecord
    ) -> None:
        arrived_s = time.monotonic()
        if record.reason:
            raise bad_id()
        asked = parse(head.method, head.target)
        peeked: Peeked | None = None
        match asked:
            case FunctionCall():
                who = await self._authorize.who(head)
                if isinstance(who, Refused):
                    raise who
                function = asked.function
                record.route = "/funccall/{tenant}/{namespace}/{function}"
            case ModelCall():
                # Of who may call nothing, no more is read than the head.
                who = _known(await self._authorize.who(head))
                record.route = asked.target.partition(b"?")[0].decode("latin-1")
                peeked = await self._model(body)
                # The body may have taken its time, and the key been revoked meanwhile.
                who = _known(await self._authorize.who(head))
                found = self._catalogue.find(peeked.model or "")
                if found is None:
                    raise _no_model(peeked)
                function = found
            case Models():
                client.counted = self._counts.api
                client.whole(200, _listed(await self._catalogue.visible(head)))
                return
            case ApiCall():
                client.counted = self._counts.api
                await self._at_api(client, head, body, record)
                return
        counted = self._counts.function(function)
        client.counted = counted.codes
        leave = self._authorize.enter(who, head, function)
        if isinstance(leave, Refused):
            if isinstance(asked, ModelCall) and leave.reason == "forbidden":
                # Who may not call a model does not learn that it is there.
                raise _no_model(peeked)
            raise leave
        request = None
        self._requests.let_in(record, function, head)
        try:
            call = Call(function, _timeout_s(head))
            request = _Request(
                *(client, head, body, asked.target, call, peeked, arrived_s, record),
                *(counted.starts, self._limits.waiting_s, arrived_s + self._limits.waiting_s),
            )
            await self._at_some_pod(request)
        finally:
            usage = NOTHING if request is None else request.usage
            record.output_tokens = usage.output_tokens
            leave.ended(usage)

    async def _at_api(
        self, client: ClientAnswer, head: RequestHead, body: Body, record: RequestRecord
    ) -> None:
        if not self.api:
            raise nothing_here(head.target)
        try:
            line = self._pods.fresh(self.api) or await self._pods.connect(self.api)
        except OSError as error:
            raise Refused("draining", "the API does not answer") from error
        await Exchange(client, body, line, waited_s=0.0).run(
            forwarded(head, head.target, self.api, request_id=record.id, with_key=True),
            chunked=head.length is None,
            head_only=head.method == b"HEAD",
        )

    async def _at_some_pod(self, request: "_Request") -> None:
        record, address = request.record, ""
        for left in reversed(range(self._limits.connect_tries)):
            self._sweep.add(request)
            try:
                async with self._dispatcher.acquire(request.call) as route:
                    self._requests.started(record, route)
                    address = route.address
                    pod = self._pods.fresh(address) or await self._connection(address)
                    request.due_s = math.inf
                    waited_s = time.monotonic() - request.arrived_s
                    traceparent = self._requests.sent(record)
                    counts = request.starts[route.cold]
                    counts.connected(waited_s)
                    head = request.head
                    exchange = Exchange(
                        *(request.client, request.body, pod),
                        waited_s=waited_s,
                        record=record,
                        counts=counts,
                    )
                    try:
                        await exchange.run(
                            forwarded(
                                *(head, request.target, address),
                                request_id=record.id,
                                traceparent=traceparent,
                            ),
                            chunked=head.length is None,
                            head_only=head.method == b"HEAD",
                        )
                    finally:
                        # Who leaves in the middle has used what came until then.
                        request.usage = exchange.usage
                    counts.whole(time.monotonic() - request.arrived_s)
                    route.finished(request.usage.output_tokens)
                    return
            except _ConnectError as error:
                if not left:
                    raise Refused("pod failed", "no connection to the pod") from error
                self._counts.retries += 1
                self._requests.waits_again(record)
            finally:
                self._sweep.remove(request)
        raise AssertionError("the last try returned or raised")

    async def _connection(self, address: str) -> PodConnection:
        try:
            return await self._pods.connect(address)
        except OSError as error:
            raise _ConnectError from error

    async def _model(self, body: Body) -> Peeked:
        """Read as much of a body as it takes to know the model, within a bound."""
        looked = 0
        while True:
            held = body.held
            if body.ended or len(held) >= 2 * looked:
                looked = max(len(held), 1024)
                try:
                    peeked = peek(held, whole=body.ended)
                except ValueError as error:
                    raise Refused("bad request", str(error)) from error
                if peeked.model is not None:
                    return peeked
                if body.ended:
                    raise Refused("bad request", "the body: expected a model")
            if len(held) > self._limits.peek_bytes:
                text = f"no model in the first {self._limits.peek_bytes} bytes of the body"
                raise Refused("body too large", text)
            await body.more(self._limits.peek_bytes)


@dataclass(slots=True, eq=False)
class _Request:
    """A request that may have its turn; looked at by the sweep while it waits for one.

    Where it asks for an event stream, that begins when it has waited for long, and tells that it
    waits. A timer of its own was a tenth of what a warm request costs.
    """

    client: ClientAnswer
    head: RequestHead
    body: Body
    target: bytes
    call: Call
    peeked: Peeked | None
    arrived_s: float
    record: RequestRecord
    starts: tuple[CallCounts, CallCounts]
    """What it is counted in where it is warm, and where it is cold."""
    waiting_s: float
    """Until it is told that it waits, and told so again."""
    due_s: float
    usage: Usage = NOTHING

    def look(self, now_s: float) -> None:
        """Tell that it waits, if that is due."""
        if now_s < self.due_s:
            return
        self.due_s = now_s + self.waiting_s
        client = self.client
        if client.lost:
            return
        if not client.begun:
            if not self.wants_events():
                self.due_s = math.inf
                return
            client.start(200, EVENT_STREAM, framed=False)
        client.write(WAITING)

    def wants_events(self) -> bool:
        """Return whether it asks for an event stream, as far as its body came."""
        headers, peeked = self.head.by_name, self.peeked
        if "text/event-stream" in headers.get("Accept", ""):
            return True
        if self.head.method != b"POST" or "json" not in headers.get("Content-Type", ""):
            return False
        if peeked is not None and peeked.stream is not None:
            return peeked.stream
        try:
            return peek(self.body.held, whole=self.body.ended).stream is True
        except ValueError:
            return False


def _tell(client: ClientAnswer, why: Refused) -> None:
    """Refuse by status, while that can be told; an exchange tells what happens after its head."""
    if client.lost:
        return
    if not client.begun:
        client.refuse(why)
    elif not client.ended:
        client.write(error_event(why))
        client.end()


def _known(who: Principal | Refused) -> Principal:
    if isinstance(who, Refused):
        raise who
    return who


def _no_model(peeked: Peeked | None) -> Refused:
    return Refused("model not found", f"no model {peeked.model if peeked else None!r}")


def _timeout_s(head: RequestHead) -> float | None:
    text = head.told.timeout
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise Refused("bad request", f"X-Inferx-Timeout {text[:40]}: expected seconds, up to 86400")
    return seconds


def _listed(models: Iterable[str]) -> bytes:
    entries = [
        {"id": model, "object": "model", "created": 0, "owned_by": "inferx"} for model in models
    ]
    return msgspec.json.encode({"object": "list", "data": entries})
