"""A page served to a browser on the same machine: one file at one address, and nothing else."""

from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATHS = ("/", "/report.html")
HOSTS = ("127.0.0.1", "localhost")


def page_server(page: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of one page on 127.0.0.1; `serve_forever` runs it.

    The page is read anew for every request, so that reloading shows a report that was made again.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """
    return ThreadingHTTPServer((HOSTS[0], port), partial(_Handler, page))


def address(server: ThreadingHTTPServer) -> str:
    return f"http://{HOSTS[0]}:{server.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "unigap", ""

    def __init__(self, page: Path, *request: object) -> None:
        self._page = page
        super().__init__(*request)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        # Another site's name that was made to point here must not read the page (DNS rebinding).
        if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path.partition("?")[0] not in PATHS:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(with_body=with_body)

    def _send(self, *, with_body: bool) -> None:
        try:
            data = self._page.read_bytes()
        except OSError as error:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"{self._page.name} cannot be read: {error.strerror}")
            return
        self.send_response(HTTPStatus.OK)
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: who looks at a page is no news."""
