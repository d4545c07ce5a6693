"""A small server that speaks as much of the Hub's protocol as downloading files needs.

It serves folders as repositories on 127.0.0.1 and remembers which files were fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["COMMIT", "HubServer", "serve_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """A running server.

    Attributes:
        url: What ``HF_ENDPOINT`` has to be.
        repositories: Repository id to the folder with its files.
        gated: Repositories that answer 403 without a token.
        fetched: The files whose contents were sent, in order.
        ranges: Files of which only some bytes were asked for.
        tokens: Authorization headers that arrived.
        failures: Statuses of the next answers, as a proxy in between would send them.
        failed: How many of these were sent.
    """

    url: str
    repositories: dict[str, pathlib.Path]
    gated: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    failures: Iterator[int] = field(default_factory=lambda: iter(()))
    failed: int = 0


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, *args: object) -> None:
        """Quiet: pytest shows what is wrong."""

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, *, send_body: bool) -> None:
        failure = next(self.hub.failures, None) if "/resolve/" in self.path else None
        if failure is not None:
            self.hub.failed += 1
            return self._fail(failure)
        # /owner/name/resolve/revision/file
        owner, name, _, revision, file = (
            *self.path.split("?")[0].lstrip("/").split("/", 4),
            *[""] * 5,
        )[:5]
        token = self.headers.get("Authorization")
        if token is not None:
            self.hub.tokens.add(token)
        repository = f"{owner}/{name}"
        folder = self.hub.repositories.get(repository)
        if folder is None:
            return self._refuse(404, "RepoNotFound")
        if repository in self.hub.gated and token is None:
            return self._refuse(403, "GatedRepo")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        path = folder / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        body = path.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        self.send_response(206 if last else 200)
        if last:
            body = body[int(first) : int(last) + 1]
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            (self.hub.ranges if last else self.hub.fetched).append(file)
            self.wfile.write(body)
        return None


@contextlib.contextmanager
def serve_hub(repositories: dict[str, pathlib.Path]) -> Iterator[HubServer]:
    """Serve until the context ends."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.hub = HubServer(f"http://127.0.0.1:{server.server_port}", repositories)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield handler.hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
