"""examples/adapter.py with a system that answers when it has been asked 20 times at once, and not before.

Usage: adapter.py URL
"""

import asyncio
import importlib.util
import sys

AT_ONCE = 20

spec = importlib.util.spec_from_file_location("adapter", "examples/adapter.py")
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)

asked = 0
all_asked = asyncio.Event()


async def find(number):
    global asked
    asked += 1
    if asked == AT_ONCE:
        all_asked.set()
    await all_asked.wait()
    return f"The owner of {number}"


adapter.find = find
asyncio.run(adapter.main(sys.argv[1]))
