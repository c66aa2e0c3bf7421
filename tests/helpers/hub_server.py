"""A small server of the hub's HTTP interface: refs, listings, files by ranges through a redirect; it counts what it
sends, and lies where it is told to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPOSITORY = "lab/model"


@dataclass(eq=False)
class Hub:
    """One repository: {revision: folder}. `trouble(number, revision)` is asked before each answer with a part of a
    file: "" for none, else what goes wrong."""

    revisions: dict[str, Path]
    endpoint: str = ""
    cdn: str = ""  # the host to which files lead; the server itself
    sent: int = 0
    requests: int = 0
    seen: list[tuple[str, str | None, str | None]] = field(default_factory=list)  # path, range, authorization
    trouble: Callable[[int, str], str] = lambda number, revision: ""
    names: Callable[[str], str] = lambda name: name
    lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, revision: str) -> str:
        return hashlib.sha1(revision.encode()).hexdigest()

    @cache  # noqa: B019
    def content(self, file: Path) -> tuple[bytes, str, str]:
        """The bytes of a file, their sha256, and what its host says as an ETag."""
        data = file.read_bytes()
        return data, hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()

    def folder(self, commit: str) -> Path:
        return next(folder for name, folder in self.revisions.items() if self.commit(name) == commit)

    def listing(self, folder: Path) -> list[dict[str, Any]]:
        found = []
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            data, sha256, _ = self.content(path)
            name = self.names(path.relative_to(folder).as_posix())
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
            entry["oid"] = hashlib.sha1(data).hexdigest()
            if path.suffix in (".safetensors", ".bin"):
                entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
            found.append(entry)
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536
    hub: Hub

    def log_message(self, *args: object) -> None:
        return

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        with hub.lock:
            hub.requests += 1
            hub.seen.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
            number = hub.requests
        parts = path.strip("/").split("/")
        if path == f"/api/models/{REPOSITORY}/refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": hub.commit(n)} for n in hub.revisions]
            self.send({"branches": refs, "converts": [], "tags": []})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self.send(hub.listing(hub.folder(parts[5])))
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/") and "/".join(parts[5:]) in hub.revisions:
            self.send({"id": REPOSITORY, "sha": hub.commit("/".join(parts[5:]))})
        elif parts[0] == "cdn":
            self.part(hub.folder(parts[1]).joinpath(*parts[2:]), hub.trouble(number, hub.folder(parts[1]).name))
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self.moved(hub.folder(parts[3]).joinpath(*parts[4:]), f"{hub.cdn}/cdn/{parts[3]}/{'/'.join(parts[4:])}")
        else:
            self.send({"error": "Repository not found"}, 404)

    def moved(self, file: Path, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        if file.suffix in (".safetensors", ".bin"):
            self.send_header("X-Linked-Etag", f'"{self.hub.content(file)[1]}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def part(self, file: Path, trouble: str) -> None:
        whole, _, etag = self.hub.content(file)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        data = whole[int(first) : int(last) + 1]
        if trouble == "fails":
            return self.send({"error": "try again"}, 503)
        total = len(whole) + (7 if trouble == "another size" else 0)
        etag = "other" if trouble == "changed" else etag
        self.send_response(200 if trouble == "whole" else 206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{total}")
        self.send_header("ETag", f'"{etag}"')
        if trouble == "more":
            data += bytes(100_000)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if trouble == "truncated":
            data = data[: len(data) // 2]
            self.close_connection = True
        with self.hub.lock:
            self.hub.sent += len(data)
        self.wfile.write(data)

    def send(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, as on answers that it did not ask for."""


@contextmanager
def serving(revisions: dict[str, Path]) -> Iterator[Hub]:
    """The server, while the context lasts."""
    hub = Hub(revisions)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
