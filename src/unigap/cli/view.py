"""`unigap view`: a run's page in the browser."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unigap.cli.common import ArgumentError, Name, Run, console
from unigap.cli.report import judge_of

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class View:
    """Serve the page of a run to this machine's browser, until Ctrl-C.

    Only the page can be fetched, and only from this machine. A missing page is made first.
    """

    folder: Run
    """Run folder."""
    judge: Name = None
    """Make the page anew, from this judge's verdicts."""
    port: int = 0
    """On 127.0.0.1; 0 takes a free one."""
    browser: bool = True
    """Open the page in a browser; --no-browser only prints its address."""

    def run(self) -> None:
        import webbrowser

        from unigap.report.viewer import address

        with self._server() as server:
            where = address(server)
            print(f"{where} (Ctrl-C ends)", flush=True)
            if self.browser:
                webbrowser.open(where)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()  # the end that was asked for

    def _server(self) -> "ThreadingHTTPServer":
        from unigap.records import RunFolder
        from unigap.report.page import FILE
        from unigap.report.run import report_run
        from unigap.report.viewer import page_server

        if not 0 <= self.port < 65536:
            raise ArgumentError(f"--port must be 0 to 65535, got {self.port}")
        folder = RunFolder.open(self.folder)
        if self.judge is not None or not (folder.path / FILE).exists():
            report_run(folder, judge_of(folder, self.judge), console())
        try:
            return page_server(folder.path / FILE, self.port)
        except OSError as error:
            raise ArgumentError(f"--port {self.port} cannot be used: {error.strerror or error}") from error
