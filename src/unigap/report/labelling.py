"""A page on this machine for labelling pictures by hand: is what was asked for drawn, yes or no?

The page shows the prompt, what the picture must show, and the picture; never a judge's verdict. Every click is on disk
before the next picture comes. The server listens on 127.0.0.1 alone, its address holds a random token, and it answers
nothing else: pages of other sites that a browser has open can neither read (token, Host) nor write (Origin, JSON).
"""

import base64
import io
import json
import secrets
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from unigap.errors import RunFolderError
from unigap.judges.labels import LABELS, Labelled, write_labels
from unigap.records import RunFolder
from unigap.scenes.render import CELL_CONTENTS, sprite_arrays, upscale

HOST = "127.0.0.1"
SHOWN_PX = 480
"""Smaller pictures are enlarged to about this, pixel by pixel; larger ones are shown as they are."""
_MAX_BODY = 1000


class Labels:
    """The pictures being labelled and their file; every change is saved before it counts."""

    def __init__(self, folder: RunFolder, rows: list[Labelled], path: Path) -> None:
        self.folder, self.rows, self.path = folder, rows, path
        self._lock = threading.Lock()
        self._records = folder.records()

    @property
    def num_done(self) -> int:
        return sum(row.label != "" for row in self.rows)

    def set(self, index: int, label: str) -> None:
        """Give one picture its label, or "" to take it back.

        Raises:
            ValueError: No such picture, or no such label.
            RunFolderError: It cannot be saved.
        """
        known = next((word for word in LABELS if word == label), None)
        if known is None or not 0 <= index < len(self.rows):
            raise ValueError(f"no picture {index}, or no label {label!r}")
        with self._lock:
            rows = [*self.rows]
            rows[index] = replace(rows[index], label=known)
            write_labels(self.path, rows)
            self.rows = rows

    def picture(self, index: int) -> bytes:
        """The picture as PNG, enlarged.

        Raises:
            IndexError: No such picture.
            RunFolderError: It cannot be read.
        """
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        record = self._records.get(self.rows[index].key)
        if record is None:
            raise RunFolderError(f"no record of picture {index}")
        image = self.folder.load_image(record)
        factor = SHOWN_PX // max(image.size)
        return _png(upscale(image, factor) if factor > 1 else image)

    def shown(self) -> list[dict[str, Any]]:
        """What the page knows: no verdict, no judge, no id."""
        items = [self.folder.item(row.key.item_id) for row in self.rows]
        return [
            {"prompt": item.prompt, "caption": item.caption, "label": row.label}
            for item, row in zip(items, self.rows, strict=True)
        ]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def render_labelling(labels: Labels, *, pictures: str, nonce: str) -> str:
    """The page. What comes from items is data in it, never markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unigap.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    legend = {}
    if pictures == "sandbox":
        for name, pixels in zip(CELL_CONTENTS, sprite_arrays(), strict=True):
            sprite = _png(upscale(Image.fromarray(pixels), 5))
            legend[name or "nothing"] = f"data:image/png;base64,{base64.b64encode(sprite).decode()}"
    return environment.get_template("labelling.html.j2").render(items=labels.shown(), legend=legend, nonce=nonce)


def labelling_server(labels: Labels, *, pictures: str = "sandbox", port: int = 0) -> ThreadingHTTPServer:
    """A server of the page, bound and not yet serving; `serve_forever` serves it, `page_address` says where.

    Args:
        labels: What is labelled.
        pictures: Domain of the pictures; for "sandbox" the page says which sprite is which object.
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """
    token = secrets.token_urlsafe(24)

    def handler(*request: Any) -> _Handler:
        return _Handler(labels, pictures, token, *request)

    server = ThreadingHTTPServer((HOST, port), handler)
    server.daemon_threads = True
    server.token = token  # type: ignore[attr-defined]
    return server


def page_address(server: ThreadingHTTPServer) -> str:
    return f"http://{HOST}:{server.server_port}/{server.token}/"  # type: ignore[attr-defined]


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    def __init__(self, labels: Labels, pictures: str, token: str, *request: Any) -> None:
        self.labels, self.pictures, self.token = labels, pictures, token
        super().__init__(*request)

    def do_GET(self) -> None:
        parts = self._authorised()
        if parts is None:
            return
        if parts == [""]:
            nonce = secrets.token_urlsafe(16)
            page = render_labelling(self.labels, pictures=self.pictures, nonce=nonce)
            self._send(200, page.encode("utf-8", "backslashreplace"), "text/html; charset=utf-8", nonce=nonce)
        elif len(parts) == 2 and parts[0] == "picture" and parts[1].isascii() and parts[1].isdigit():
            try:
                self._send(200, self.labels.picture(int(parts[1][:9])), "image/png")
            except (IndexError, RunFolderError):
                self._refuse(404)
        else:
            self._refuse(404)

    def do_POST(self) -> None:
        parts = self._authorised()
        if parts is None:
            return
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            self._refuse(403)
        elif parts != ["label"]:
            self._refuse(404)
        elif (asked := self._body()) is None:
            self._refuse(400)
        else:
            try:
                self.labels.set(*asked)
            except ValueError:
                self._refuse(400)
            except RunFolderError as error:
                self._send(500, str(error).encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8")
            else:
                self._send(200, b"{}", "application/json")

    def _authorised(self) -> list[str] | None:
        """The parts of the path after the token; None if the request was refused."""
        # A name that another site points at this address is not one of ours (DNS rebinding).
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}  # type: ignore[attr-defined]
        first, *rest = self.path.removeprefix("/").split("/")
        if self.headers.get("Host") not in hosts or not secrets.compare_digest(first.encode(), self.token.encode()):
            self._refuse(403)
            return None
        return rest

    def _body(self) -> tuple[int, str] | None:
        """Index and label of the request; None if it holds something else."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdigit() or int(length) > _MAX_BODY:
            return None
        try:
            data = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None
        match data:
            case {"index": int(index), "label": str(label)} if not isinstance(index, bool):
                return index, label
        return None

    def _refuse(self, status: int) -> None:
        self.close_connection = True  # the body may not have been read
        self._send(status, b"", "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes, kind: str, *, nonce: str = "") -> None:
        inline = f"'nonce-{nonce}'" if nonce else "'none'"
        policy = (
            f"default-src 'none'; script-src {inline}; style-src {inline}; img-src 'self' data:; connect-src 'self'"
        )
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the standard library)
        """Nothing: the address in a log would be the token."""
