"""An HTTP server on loopback that answers as a test says: well, badly, late or not at all. Real sockets and threads."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as it came in."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""
    number: int
    """How many requests of the same path and body came before it."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to send back."""

    body: Any = b""
    """Bytes as they are; anything else as JSON."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False
    """Close the connection without a word."""
    hang: bool = False
    """Say nothing until the server stops."""


class FaultyServer:
    """`with FaultyServer(answer) as server:` serves at `server.url`; `server.calls` lists what came in, in order."""

    def __init__(self, answer: Callable[[Call], Answer], *, port: int = 0) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._at_once = 0
        self._seen: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up is part of the tests."""

        self._http = Server(("127.0.0.1", port), Handler)
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        with self._lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            call = Call(path=handler.path, body=body, headers=headers, number=self._seen[handler.path, body])
            self._seen[handler.path, body] += 1
            self.calls.append(call)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.answer(call)
        finally:
            with self._lock:
                self._at_once -= 1
        if answer.hang:
            self._stopping.wait()
        if answer.close or answer.hang:
            handler.close_connection = True
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        handler.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | dict(answer.headers)).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def chat(text: str | None, **message: Any) -> Answer:
    """A whole chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
    return Answer(body={"choices": [choice], "usage": {"completion_tokens": 3}})
