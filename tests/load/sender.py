"""Send images from stdin to a server, each when it arrives: `python -m tests.load.sender PORT`.

An image is its size, u32 big-endian, and its bytes.
"""

import asyncio
import sys

from tests.load.client import Client


async def main(port: int) -> None:
    client = Client(port)
    await client.post(b"warm")
    print("ready", flush=True)
    while size := int.from_bytes(await asyncio.to_thread(sys.stdin.buffer.read, 4), "big"):
        image = await asyncio.to_thread(sys.stdin.buffer.read, size)
        assert (await client.post(image)).status == 200
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
