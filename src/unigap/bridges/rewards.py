"""A judge behind the reward functions of `unigap.bridges.reward_client`: in this process, or served to others.

POST /verdicts takes {"items": [ITEM, ...]} with either "texts" or "images" (PNG in base64), one of each item, and gives
{"judge": {...}, "verdicts": [{"verdict", "error", "why"}, ...]}. GET /health names the judge.
"""

import base64
import json
import re
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from unigap.bridges.reward_client import Ask
from unigap.errors import CannotJudgeError
from unigap.items import Item
from unigap.judges.protocol import Judge, Submission
from unigap.server.shapes import ApiError, parse_picture

HOST, HOSTS = "127.0.0.1", ("127.0.0.1", "localhost")
MAX_BODY_BYTES, MAX_SIDE_PX, TIMEOUT_S = 200_000_000, 4096, 60.0


def ask_judge(judge: Judge) -> Ask:
    """Ask a judge in this process; its rulings come back as they would from a server."""

    def ask(items: Sequence[Mapping[str, Any]], made: Sequence[Any]) -> list[dict[str, Any]]:
        return rule(judge, [_submission(Item.from_json(item), one) for item, one in zip(items, made, strict=True)])

    return ask


def rule(judge: Judge, submissions: Sequence[Submission]) -> list[dict[str, Any]]:
    rulings = judge.judge(submissions) if submissions else []
    return [{"verdict": one.verdict, "error": one.error, "why": one.why} for one in rulings]


def _submission(item: Item, made: str | Image.Image) -> Submission:
    return Submission(item=item, text=made) if isinstance(made, str) else Submission(item=item, image=made)


def verdict_server(judge: Judge, port: int = 0) -> ThreadingHTTPServer:
    """A server of verdicts on 127.0.0.1; `serve_forever` runs it.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """
    return ThreadingHTTPServer((HOST, port), partial(_Handler, judge, threading.Lock()))


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version, timeout = "unigap", "", TIMEOUT_S

    def __init__(self, judge: Judge, lock: threading.Lock, *request: object) -> None:
        self._judge, self._lock = judge, lock
        super().__init__(*request)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        self._reply(self._health)

    def do_POST(self) -> None:
        self._reply(self._verdicts)

    def _reply(self, make: Any) -> None:
        try:
            # Another site's name that was made to point here must not be served (DNS rebinding).
            if re.sub(r":\d+$", "", self.headers.get("Host", "")) not in HOSTS:
                raise ApiError(HTTPStatus.FORBIDDEN, "this server is not called so", code="wrong_host")
            status, data = HTTPStatus.OK, make()
        except ApiError as error:
            status, data = error.status, error.body
        except CannotJudgeError as error:
            status, data = HTTPStatus.BAD_REQUEST, ApiError(400, str(error), code="cannot_judge").body
        body = json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _health(self) -> dict[str, Any]:
        if self.path != "/health":
            raise ApiError(HTTPStatus.NOT_FOUND, f"nothing at {self.path[:80]!r}; POST /verdicts")
        return {"status": "ok", "judge": self._about()}

    def _about(self) -> dict[str, Any]:
        judge = self._judge
        return {"name": judge.name, "version": judge.version, "prompt_sha256": judge.prompt_sha256}

    def _verdicts(self) -> dict[str, Any]:
        if self.path != "/verdicts":
            raise ApiError(HTTPStatus.NOT_FOUND, f"nothing at {self.path[:80]!r}; POST /verdicts")
        # Browsers ask before they send another site's JSON, and nothing here says yes.
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has a length of at most {MAX_BODY_BYTES}")
        submissions = read_body(self.rfile.read(int(length)))
        with self._lock:  # judges are not asked to be safe among threads
            return {"judge": self._about(), "verdicts": rule(self._judge, submissions)}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: a trainer asks thousands of times."""


def read_body(data: bytes) -> list[Submission]:
    """The submissions of a request.

    Raises:
        ApiError: 400, with what was expected where.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(items := body.get("items"), list):
        raise ApiError(400, 'the body is {"items": [...], "texts" or "images": [...]}', param="items")
    names = [name for name in ("texts", "images") if name in body]
    made = body[names[0]] if len(names) == 1 else None
    if not isinstance(made, list) or len(made) != len(items) or not all(isinstance(one, str) for one in made):
        raise ApiError(400, f"either texts or images, a list of {len(items)} strings", param="images")
    found = []
    for index, (item, one) in enumerate(zip(items, made, strict=True)):
        try:
            read = Item.from_json(item)
            picture = base64.b64decode(one, validate=True) if names == ["images"] else None
        except ValueError as error:  # also of base64
            raise ApiError(400, f"number {index}: {error}", param="items") from None
        where = f"images[{index}]"
        found.append(
            _submission(read, one if picture is None else parse_picture(picture, where, max_side_px=MAX_SIDE_PX))
        )
    return found
