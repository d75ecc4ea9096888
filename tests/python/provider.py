"""The Python client with a token provider. Prints each problem and each error, and why it stopped.

Usage: provider.py URL
"""

import asyncio
import itertools
import sys

from switchboard_client import connect

numbers = itertools.count(1)


async def main(url):
    async with connect("crm", url=url, token=lambda why: f"token-{next(numbers)}") as desk:
        desk.on("error", print)
        print("stopped:", await desk.closed())


asyncio.run(main(sys.argv[1]))
