"""What the server answers: health, state, memory, and the OpenAI API over one engine."""

from asyncio import Lock, Task, create_task, shield
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from inferx.exec.tracing.told import Part
from inferx.exec.worker.answers import DONE, Answer, Telling
from inferx.exec.worker.background import in_thread
from inferx.exec.worker.engine import Engine
from inferx.exec.worker.openai import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Usage,
    embeddings,
    generation,
    read,
)
from inferx.exec.worker.replies import errors, reply, seconds
from inferx.exec.worker.request_log import RequestLog
from inferx.exec.worker.slots import ClosedError, FullError, Slots
from inferx.exec.worker.stops import StopCutter

__all__ = ["Handlers"]

BODY_BYTES: Final = 8 << 20
QUIESCE_S: Final = 30.0
"""How long `/inferx/quiesce` waits for those who generate, where it is not told otherwise."""


class _Counts(msgspec.Struct):
    """Requests for generation, since the start; tokens generated."""

    requests: int = 0
    finished: int = 0
    aborted: int = 0
    refused: int = 0
    tokens: int = 0


class Handlers:
    """One engine, its slots, and its handlers.

    Args:
        model: What clients ask for.
        engine: What answers.
        slots: Who may generate.
        log: Where requests are written down.
        any_model: Take every other name for it as well, and answer by that.
    """

    def __init__(
        self,
        model: str,
        engine: Engine,
        slots: Slots,
        log: RequestLog | None = None,
        *,
        any_model: bool = False,
    ) -> None:
        self._model = model
        self._any_model = any_model
        self._engine = engine
        self._slots = slots
        self._log = log
        self._counts = _Counts()
        self._status = "loading"
        # Of loading, hashing, releasing and taking memory, one at a time.
        self._memory = Lock()
        # The loop itself holds its tasks weakly.
        self._tasks: set[Task[dict[str, Any]]] = set()

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(middlewares=[errors], client_max_size=BODY_BYTES)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/checksum", self._checksum),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._complete),
                web.post("/v1/embeddings", self._embed),
                web.get("/inferx/state", self._state),
                web.post("/inferx/quiesce", self._quiesce),
                web.post("/inferx/wake", self._wake),
            ]
        )
        return app

    async def load(self) -> None:
        """Load the model; requests are served from then on."""
        async with self._memory:
            await in_thread(self._engine.load)
        self._status = "ready"

    async def drain(self, timeout_s: float) -> None:
        """Take no more requests, and wait for those that were taken."""
        self._status = "draining"
        self._slots.close()
        await self._slots.idle(timeout_s)

    # -- what is told ---
    async def _health(self, request: web.Request) -> web.Response:
        del request
        return reply({"status": self._status}, 200 if self._status == "ready" else 503)

    async def _models(self, request: web.Request) -> web.Response:
        del request
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "inferx"}
        return reply({"object": "list", "data": [model]})

    async def _state(self, request: web.Request) -> web.Response:
        del request
        return reply(self._told())

    def _told(self) -> dict[str, Any]:
        engine, slots = self._engine, self._slots
        return {
            "status": self._status,
            "engine": engine.name,
            "device": engine.device,
            "weight_bytes": engine.weight_bytes,
            "kv_bytes": engine.kv_bytes,
            "slots": slots.count,
            "active": slots.active,
            "waiting": slots.waiting,
            "paused": slots.paused,
            **msgspec.structs.asdict(self._counts),
        }

    async def _checksum(self, request: web.Request) -> web.Response:
        del request
        self._check_loaded()
        return reply(await self._unbroken(self._sum_up()))

    async def _sum_up(self) -> dict[str, Any]:
        async with self._memory:
            return msgspec.structs.asdict(await in_thread(self._engine.checksum))

    # -- memory ---
    async def _quiesce(self, request: web.Request) -> web.Response:
        self._check_loaded()
        return reply(await self._unbroken(self._release(seconds(request, "timeout_s", QUIESCE_S))))

    async def _wake(self, request: web.Request) -> web.Response:
        del request
        self._check_loaded()
        return reply(await self._unbroken(self._take()))

    async def _release(self, timeout_s: float) -> dict[str, Any]:
        async with self._memory:
            if self._status == "ready":
                if not await self._slots.pause(timeout_s):
                    busy = f"{self._slots.active} requests still generate after {timeout_s:g} s"
                    raise ApiError(409, busy, kind="conflict_error", code="busy")
                self._status = "quiesced"
                await in_thread(self._engine.release_kv)
        return self._told()

    async def _take(self) -> dict[str, Any]:
        async with self._memory:
            if self._status == "quiesced":
                await in_thread(self._engine.take_kv)
                self._status = "ready"
                self._slots.resume()
        return self._told()

    async def _unbroken(self, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """Finish what was begun, though its caller leaves: memory is not left half released."""
        task = create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await shield(task)

    # -- generation ---
    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = read(ChatRequest, await request.read())
        return await self._generate(request, asked, asked.prompt, chat=True)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = read(CompletionRequest, await request.read())
        if asked.echo:
            raise ApiError(400, "echo is not done here", param="echo")
        return await self._generate(request, asked, asked.text, chat=False)

    async def _embed(self, request: web.Request) -> web.Response:
        asked = read(EmbeddingRequest, await request.read())
        model = self._called(asked.model)
        self._check_loaded()
        async with self._counted(), self._slots.hold():
            vectors = [self._engine.embed(text) for text in asked.texts]
        tokens = sum(self._engine.count(text) for text in asked.texts)
        return reply(
            embeddings(vectors, tokens=tokens, model=model, encoding=asked.encoding_format)
        )

    async def _generate(
        self,
        request: web.Request,
        asked: ChatRequest | CompletionRequest,
        prompt: str,
        *,
        chat: bool,
    ) -> web.StreamResponse:
        asked.check()
        model = self._called(asked.model)
        self._check_loaded()
        engine = self._engine
        prompt_tokens = engine.count(prompt)
        work = generation(asked, prompt=prompt, prompt_tokens=prompt_tokens, context=engine.context)
        answer = Answer(model=model, chat=chat)
        part = Part(request.headers.get("traceparent"))
        async with (
            self._counted(),
            self._slots.hold(),
            aclosing(engine.generate(work)) as tokens,
        ):
            part.lap("wait")
            if self._log is not None:
                self._log.begun(self._model, request.headers.get("X-Request-Id", ""))
            told = Telling(tokens, StopCutter(asked.stops), work.limit)
            if asked.stream:
                return await self._stream(request, told, answer, prompt_tokens, asked, part)
            text = "".join([piece async for piece in told.pieces()])
            part.lap("generate")
            self._counts.tokens += told.count
            whole = reply(answer.whole(text, told.finish, Usage(prompt_tokens, told.count)))
            whole.headers.update(part.headers())
            return whole

    async def _stream(
        self,
        request: web.Request,
        told: Telling,
        answer: Answer,
        prompt_tokens: int,
        asked: ChatRequest | CompletionRequest,
        part: Part,
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        # The head goes out with the first token: until then a failure can have its own status.
        begun = False
        try:
            async with aclosing(told.pieces()) as pieces:
                async for piece in pieces:
                    chunk = answer.piece(piece)
                    if not begun:
                        part.lap("first")
                        response.headers.update(part.headers())
                        await response.prepare(request)
                        chunk = answer.begin() + chunk
                        begun = True
                    await response.write(chunk)
        finally:
            self._counts.tokens += told.count
        if not begun:
            await response.prepare(request)
            await response.write(answer.begin())
        last = answer.end(told.finish)
        if asked.usage_in_stream:
            last += answer.usage(Usage(prompt_tokens, told.count))
        await response.write(last + DONE)
        await response.write_eof()
        return response

    @asynccontextmanager
    async def _counted(self) -> AsyncGenerator[None, None]:
        """Count a request by how it ends."""
        self._counts.requests += 1
        try:
            yield
        except (FullError, ClosedError):
            self._counts.refused += 1
            raise
        except BaseException:
            # The client left, or the worker failed.
            self._counts.aborted += 1
            raise
        self._counts.finished += 1

    def _check_loaded(self) -> None:
        if self._status == "loading":
            raise ApiError(503, "the model is loading", kind="service_unavailable", code="loading")

    def _called(self, model: str | None) -> str:
        """Return the model's name for one who asks for it by `model`."""
        if model is None or self._any_model:
            return model or self._model
        if model != self._model:
            text = f"no model {model!r} here; expected {self._model!r}"
            raise ApiError(404, text, param="model", code="model_not_found")
        return model
