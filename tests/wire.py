"""HTTP messages as the fault proxy reads and writes them: whole, in memory, as on the wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass
class Request:
    """One request as it stood on the wire; ``status`` is 0 where the client got no answer."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes = field(repr=False)
    body: bytes = field(repr=False)
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    broken: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Response:
    """A server's answer; a fault may change it before it goes on to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    declared_length: int | None = None

    def header(self, name: str) -> str:
        return next((v for n, v in self.headers if n.lower() == name.lower()), "")

    def set_header(self, name: str, value: str) -> None:
        self.headers = [(n, v) for n, v in self.headers if n.lower() != name.lower()] + [(name, value)]

    def head(self, method: str) -> bytes:
        kept = [(n, v) for n, v in self.headers if n.lower() not in ("content-length", "transfer-encoding")]
        if method == "HEAD":
            length = self.header("content-length") or "0"
        else:
            length = str(len(self.body) if self.declared_length is None else self.declared_length)
        if self.status not in (204, 304):
            kept.append(("Content-Length", length))
        lines = [f"HTTP/1.1 {self.status} X", *(f"{n}: {v}" for n, v in kept), "", ""]
        return "\r\n".join(lines).encode("latin-1")


def _read_head(incoming: BinaryIO) -> tuple[str, list[tuple[str, str]]] | None:
    first = incoming.readline()
    if not first.strip():
        return None
    headers = []
    while (line := incoming.readline()) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.strip(), value.strip()))
    return first.decode("latin-1").rstrip("\r\n"), headers


def read_request(incoming: BinaryIO, client: socket.socket) -> Request | None:
    head = _read_head(incoming)
    if head is None:
        return None
    line, headers = head
    known = {name.lower(): value for name, value in headers}
    if known.pop("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _read_body(incoming, known, None)
    kept = [(n, v) for n, v in headers if n.lower() not in ("expect", "connection", "transfer-encoding")]
    if "transfer-encoding" in known:
        kept.append(("Content-Length", str(len(body))))
    kept.append(("Connection", "close"))
    raw = "\r\n".join([line, *(f"{n}: {v}" for n, v in kept), "", ""]).encode("latin-1") + body
    method, target, _ = line.split(" ", 2)
    return Request(method, target, known, raw, body, sent_bytes=len(raw))


def read_response(incoming: BinaryIO, method: str) -> Response:
    status = 100
    while status == 100:
        head = _read_head(incoming)
        if head is None:
            raise ConnectionError("the server hung up")
        line, headers = head
        status = int(line.split(" ", 2)[1])
    known = {name.lower(): value for name, value in headers}
    no_body = method == "HEAD" or status in (204, 304)
    body = b"" if no_body else _read_body(incoming, known, -1)
    kept = [(n, v) for n, v in headers if n.lower() != "connection"]
    return Response(status, kept, body)


def _read_body(incoming: BinaryIO, headers: dict[str, str], otherwise: int | None) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return b"".join(_chunks(incoming))
    if "content-length" in headers:
        wanted = int(headers["content-length"])
        body = incoming.read(wanted)
        if len(body) < wanted:
            raise ConnectionError("the body ended early")
        return body
    return b"" if otherwise is None else incoming.read(otherwise)


def _chunks(incoming: BinaryIO) -> Iterator[bytes]:
    while True:
        size = int(incoming.readline().split(b";")[0], 16)
        data = incoming.read(size)
        incoming.readline()
        if size == 0:
            return
        yield data
