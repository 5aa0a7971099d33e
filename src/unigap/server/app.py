"""The HTTP side of `unigap serve`: endpoints, limits and shutdown."""

import asyncio
import contextlib
import io
import re
import socket
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TypeVar

import uvicorn
from PIL.Image import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unigap.arms import call_seed
from unigap.models.protocol import Ability, Model, Request
from unigap.prompts import ThinkPrompt, find_think_prompt
from unigap.server.batching import Batcher
from unigap.server.shapes import (
    MAX_PICTURES,
    ApiError,
    Ask,
    Made,
    chat_reply,
    check_outcomes,
    images_reply,
    parse_chat,
    parse_fields,
    parse_images,
    parse_json,
    parse_picture,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLIENT_GONE = 499

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Settings of a server."""

    batch_size: int | None = None
    """Most requests a forward; None takes the model's own."""
    wait_s: float = 0.01
    """How long the oldest request waits for others to share its forward; 0 never waits."""
    max_requests: int = 128
    """Requests held at once, running or waiting; more are told to come back (429)."""
    max_body_bytes: int = 20_000_000
    """Largest body; larger ones are refused (413) before they are read to the end."""
    max_side_px: int = 4096
    """Longest side of a client's picture, read from its header."""
    body_timeout_s: float = 60.0
    """How long a client may take to send its body (408)."""
    think_prompt: str = "plan"
    """Instruction to think, where a request brings none."""
    hosts: tuple[str, ...] | None = LOOPBACK
    """Names by which clients may call the server; None allows all. Keeps web pages of other names out."""

    def __post_init__(self) -> None:
        counts = {"batch_size": self.batch_size, "max_requests": self.max_requests, "max_side_px": self.max_side_px}
        for name, value in (counts | {"max_body_bytes": self.max_body_bytes}).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.wait_s <= 10:
            raise ValueError(f"wait_s must be 0 to 10 seconds, got {self.wait_s}")


class _Gate:
    """What is decided before a body is read: who may call, whether there is room, and how much may be sent."""

    def __init__(self, app: ASGIApp, service: "Service") -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(headers, scope["method"])
        except ApiError as error:
            await _error_response(error)(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._service.config.max_body_bytes:
                raise self._too_large()
            return message

        self._service.num_requests += 1
        try:
            await self._app(scope, limited, send)
        finally:
            self._service.num_requests -= 1

    def _check(self, headers: dict[str, str], method: str) -> None:
        service = self._service
        host = re.sub(r":\d+$", "", headers.get("host", "")).strip("[]")
        if service.config.hosts is not None and host not in service.config.hosts:
            raise ApiError(403, f"this server is not called {host[:80]!r}", code="wrong_host")
        if method != "POST":
            return
        if service.draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        if service.num_requests >= service.config.max_requests:
            raise ApiError(429, f"{service.num_requests} requests wait already; try again", code="queue_full")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > service.config.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._service.config.max_body_bytes} bytes", code="too_large")


class Service:
    """One model behind the endpoints; `app` is the ASGI application."""

    def __init__(self, model: Model, config: ServerConfig) -> None:
        self.model, self.config = model, config
        self.draining = False
        self.num_requests = 0
        self.batcher = Batcher(model, batch_size=config.batch_size or model.batch_size, wait_s=config.wait_s)
        self._think_prompt: ThinkPrompt = find_think_prompt(config.think_prompt)
        self._started = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/images/generations", self._generations, methods=["POST"]),
                Route("/v1/images/edits", self._edits, methods=["POST"]),
            ],
            middleware=[Middleware(_Gate, service=self)],
            exception_handlers={ApiError: _on_api_error, HTTPException: _on_http_error, Exception: _on_bug},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # ---- endpoints -------------------------------------------------------------------------------------------------

    async def _health(self, _: HttpRequest) -> Response:
        state = {
            "status": "shutting down" if self.draining else "ok",
            "model": self.model.name,
            "requests": self.num_requests,
            "waiting": self.batcher.num_waiting,
            "forwards": self.batcher.num_forwards,
        }
        return JSONResponse(state, 503 if self.draining else 200)

    async def _models(self, _: HttpRequest) -> Response:
        model = {
            "id": self.model.name,
            "object": "model",
            "created": self._started,
            "owned_by": "unigap",
            "sha256": self.model.sha256,
            "abilities": sorted(self.model.abilities),
            "pictures": self.model.pictures,
            "trained_on": self.model.trained_on,
            "sampling": asdict(self.model.sampling),
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, http: HttpRequest) -> Response:
        body = await self._json(http)
        ask = parse_chat(body, self.model.sampling, max_side_px=self.config.max_side_px)
        made = await self._make(http, ask)
        check_outcomes(made, images=False)
        return JSONResponse(chat_reply(self.model.name, ask, made))

    async def _generations(self, http: HttpRequest) -> Response:
        return await self._images(http, parse_images(await self._json(http), (), self.model.sampling))

    async def _edits(self, http: HttpRequest) -> Response:
        if not http.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(415, "the content type must be multipart/form-data", code="wrong_content_type")
        pictures: list[Image] = []
        fields: dict[str, str] = {}
        async with self._in_time(), http.form(max_files=MAX_PICTURES + 1, max_fields=64) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    if name in fields:
                        raise ApiError(400, f"{name} is given twice", param=name)
                    fields[name] = value
                elif isinstance(value, UploadFile) and name in ("image", "image[]"):
                    pictures.append(
                        parse_picture(await value.read(), f"image {len(pictures)}", max_side_px=self.config.max_side_px)
                    )
                else:
                    raise ApiError(400, f"not supported by this server: {name}", param=name)
        if not 0 < len(pictures) <= MAX_PICTURES:
            message = f"image: 1 to {MAX_PICTURES} pictures, got {len(pictures)}"
            raise ApiError(400, message, param="image")
        body = parse_fields(fields)
        self._check_model(body.get("model"))
        return await self._images(http, parse_images(body, pictures, self.model.sampling))

    async def _images(self, http: HttpRequest, ask: Ask) -> Response:
        made = await self._make(http, ask)
        check_outcomes(made, images=True)
        return JSONResponse(images_reply(ask, made))

    # ---- work ------------------------------------------------------------------------------------------------------

    async def _json(self, http: HttpRequest) -> dict[str, object]:
        # Browsers ask before they send another site's JSON, and nothing here says yes.
        if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ApiError(415, "the content type must be application/json", code="wrong_content_type")
        async with self._in_time():
            body = parse_json(await http.body())
        self._check_model(body.get("model"))
        return body

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                yield
        except TimeoutError:
            raise ApiError(408, f"the body took longer than {self.config.body_timeout_s:g} s", code="timeout") from None

    def _check_model(self, name: object) -> None:
        if name != self.model.name:
            message = f"no model {str(name)[:80]!r} here; this server has {self.model.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def _make(self, http: HttpRequest, ask: Ask) -> list[Made]:
        needed: set[Ability] = {"draw" if ask.draw else "answer"}
        if ask.think or ask.think_prompt is not None:
            needed.add("think")
        if ask.draw and any(not isinstance(part, str) for part in ask.content):
            needed.add("edit")
        if missing := sorted(needed - self.model.abilities):
            raise ApiError(400, f"{self.model.name} cannot {', '.join(missing)}", code="unsupported_ability")
        return await _while_connected(http, asyncio.gather(*(self._make_one(ask, seed) for seed in ask.seeds)))

    async def _make_one(self, ask: Ask, seed: int) -> Made:
        """One answer or picture, as `arms.Asker` asks: same requests, same seeds."""
        purpose, thought = "draw" if ask.draw else "answer", None
        if ask.think:
            prompt = ask.think_prompt or self._think_prompt.of("generation" if ask.draw else "understanding")
            request = Request(content=ask.content, think_prompt=prompt, purpose=purpose)
            thought = await self.batcher.answer(request, sampling=ask.sampling, seed=call_seed(seed, "thought"))
            if thought.text is None:
                return Made(output=thought, thought=thought)
        request = Request(
            content=ask.content,
            think_prompt=None if ask.think else ask.think_prompt,
            thought=thought.text if thought is not None else ask.thought,
            purpose=purpose,
        )
        if not ask.draw:
            return Made(output=await self.batcher.answer(request, sampling=ask.sampling, seed=seed), thought=thought)
        output = await self.batcher.draw(request, sampling=ask.sampling, seed=seed)
        png = await asyncio.to_thread(_png, output.image) if output.image is not None else None
        return Made(output=output, thought=thought, png=png)


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    # Run lengths alone: lossless as every way is, and a quarter faster than the default way.
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


async def _while_connected(http: HttpRequest, work: "asyncio.Future[list[T]]") -> list[T]:
    """The result of some work, which is cancelled if the client goes away."""
    gone = asyncio.create_task(_disconnected(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ApiError(CLIENT_GONE, "the client went away")  # nobody reads it
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


# ---- errors ----------------------------------------------------------------------------------------------------------


def _error_response(error: ApiError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    if error.status in (408, 503):
        headers["Connection"] = "close"
    return JSONResponse(error.body, error.status, headers)


def _on_api_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error_response(error)


def _on_http_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_response(ApiError(error.status_code, f"{http.method} {http.url.path}: {error.detail}"))


def _on_bug(_: HttpRequest, error: Exception) -> Response:
    # The traceback goes to the server's log: it is not the client's to read.
    return _error_response(ApiError(500, f"the model or the server failed ({type(error).__name__})"))


# ---- running ---------------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """At the first signal, refuse what is new and end what was begun; at the second, stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit = self._service.draining
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and self._service.num_requests == 0:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(model: Model, config: ServerConfig, listener: socket.socket) -> None:
    """Serve a model on a bound socket until SIGINT or SIGTERM; returns once every request begun has its answer."""
    service = Service(model, config)
    settings = uvicorn.Config(
        service.app, log_level="warning", access_log=False, server_header=False, lifespan="on", ws="none"
    )
    _Server(settings, service).run(sockets=[listener])
