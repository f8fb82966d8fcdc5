"""An HTTP server on this machine that serves parts of files and counts what it sends."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

__all__ = ["Served", "serve"]


class Served:
    """Where the server is, and what it has sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0
        self.requests: list[str] = []


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, served: Served, ranges: bool, **options: Any) -> None:
        self.served, self.ranges = served, ranges
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        self.served.requests.append(self.path)
        path = self.translate_path(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if os.path.isdir(path) or not os.path.isfile(path) or not (wanted and self.ranges):
            super().do_GET()
            return
        size = os.path.getsize(path)
        first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        with open(path, "rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.served.sent += len(body)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes" if self.ranges else "none")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        body = source.read()
        outputfile.write(body)
        self.served.sent += len(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """A client that hangs up is no fault of the server."""


@contextmanager
def serve(folder: Path, ranges: bool = True) -> Iterator[Served]:
    """Serve a folder."""
    served = Served("")
    handler = partial(_Handler, directory=str(folder), served=served, ranges=ranges)
    with _Server(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
