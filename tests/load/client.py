"""A client on one kept connection: raw HTTP/1.1 on asyncio streams, so that it costs little of the cores that it shares with the server."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One client, with one request at a time."""

    def __init__(self, port: int, path: str = "/v1/caption") -> None:
        self._port, self._path = port, path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> Reply:
        """Send a body and return the reply. A kept connection that the server has closed is opened again."""
        kept = self._streams is not None
        try:
            return await self._exchange(body)
        except (ConnectionError, asyncio.IncompleteReadError):
            await self.close()
            if not kept:
                raise
            return await self._exchange(body)

    async def hang_up(self, body: bytes, *, after: int) -> None:
        """Send the first bytes of a body, or all of it, and close the connection without reading the answer."""
        await self.close()
        _, writer = await self._connect()
        writer.write(self._head(len(body)) + body[:after])
        await writer.drain()
        await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, body: bytes) -> Reply:
        reader, writer = await self._connect()
        writer.write(self._head(len(body)))
        writer.write(body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            await self.close()
        return Reply(int(head[0].split()[1]), headers, content)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def _head(self, size: int) -> bytes:
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        ).encode()


async def get(port: int, path: str) -> Reply:
    """Return the reply of a GET request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    content = await reader.read()
    writer.close()
    head, _, body = content.partition(b"\r\n\r\n")
    return Reply(int(head.split()[1]), {}, body)
