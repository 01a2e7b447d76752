"""A real browser, and a site of somebody else's whose page runs in it and tells what it got."""

import json
import queue
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Site:
    """A site on a port of its own, with one page and a place that the page reports to."""

    def __init__(self) -> None:
        self.page = ""
        self.reports: queue.Queue[dict[str, str]] = queue.Queue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/" else 404)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.page.encode() if self.path == "/" else b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                site.reports.put(json.loads(body))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def browser() -> list[str]:
    """The command that starts a browser without a window."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found is not None, "chromium is needed (apt-get install chromium)"
    return [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]


def browse(url: str, profile: Path, site: Site, *flags: str) -> dict[str, str]:
    """What the page at `url` reports from a browser that is new."""
    command = [*browser(), "--disable-background-networking", f"--user-data-dir={profile}", *flags, url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return site.reports.get(timeout=120)
    finally:
        process.kill()
        process.wait()
