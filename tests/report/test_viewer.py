"""A page served to this machine's browser, and nothing else to anyone."""

import http.client
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from unigap.report.viewer import address, page_server


@pytest.fixture
def page(tmp_path) -> Path:
    (tmp_path / "run.json").write_text("secret")
    (tmp_path / "report.html").write_text("<h1>gap</h1>")
    return tmp_path / "report.html"


@pytest.fixture
def server(page) -> Iterator[ThreadingHTTPServer]:
    with page_server(page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ThreadingHTTPServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def test_only_the_page_is_served(server):
    assert ask(server, "/") == ask(server, "/report.html") == ask(server, "/?x=1") == (200, "<h1>gap</h1>")
    assert ask(server, "/", "HEAD") == (200, "")
    for path in ("/run.json", "/../run.json", "/report.html/", "/images/", "/%2e%2e/run.json"):
        status, text = ask(server, path)
        assert status == 404 and "secret" not in text
    assert ask(server, "/", "POST")[0] == 501


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1" and address(server).startswith("http://127.0.0.1:")
    assert ask(server, "/", host="evil.example:80")[0] == 403
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200


def test_a_page_made_again_is_what_reloading_shows(server, page):
    page.write_text("<h1>again</h1>")
    assert ask(server, "/") == (200, "<h1>again</h1>")
    page.unlink()
    status, text = ask(server, "/")
    assert status == 404 and "report.html cannot be read" in text
