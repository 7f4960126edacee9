"""The transport alone: uvloop answers a request of known length with constant bytes; on TCP and on a Unix socket."""

import asyncio
import sys
from typing import cast

import uvloop

HTTP = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + bytes(400)
FRAME = (133).to_bytes(4, "little") + bytes(133)


class Echo(asyncio.Protocol):
    def __init__(self, length: int, answer: bytes) -> None:
        self.length, self.answer, self.got = length, answer, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        while self.got >= self.length:
            self.got -= self.length
            self.transport.write(self.answer)


async def main(port: int, path: str, http_length: int, frame_length: int) -> None:
    loop = asyncio.get_running_loop()
    local = await loop.create_unix_server(lambda: Echo(frame_length, FRAME), path)
    server = await loop.create_server(lambda: Echo(http_length, HTTP), "127.0.0.1", port)
    await asyncio.gather(server.serve_forever(), local.serve_forever())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
