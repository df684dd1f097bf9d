"""Receivers of webhooks for measurements, in a process of their own: some answer, some hang, some fail.

`/ok/…` answers 204, `/hang/…` never answers and `/flaky/…` answers 500 every other time, until the file
`healed` is there; from then on all answer 204. Each request that was answered with 204 is a line in the
log: the time, the path, the message's id.
"""

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import TextIO

_HANG_SECONDS = 60.0


async def serve(port: int, folder: Path) -> None:
    with (folder / "received.log").open("a", buffering=1) as log:
        server = await asyncio.start_server(
            lambda reader, writer: _serve_one(reader, writer, folder / "healed", log), "127.0.0.1", port
        )
        async with server:
            await server.serve_forever()


async def _serve_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, healed: Path, log: TextIO
) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        await reader.readexactly(int(fields["Content-Length"]))
        path = head.split(" ")[1]
        status = "204 No Content"
        if not path.startswith("/ok/") and not healed.exists():
            if path.startswith("/hang/"):
                await asyncio.sleep(_HANG_SECONDS)
                return
            if random.random() < 0.5:
                status = "500 Internal Server Error"
        if status.startswith("204"):
            log.write(f"{time.time():.6f} {path} {fields['webhook-id']}\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # who sent it has hung up
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
