"""The Python client as the application that `switchboard conformance` judges, once for each address.

Usage: conformance.py URL...
"""

import asyncio
import sys

from switchboard_client import SwitchboardError, connect


def answer_requests(desk):
    @desk.handle("Conformance/Ask/*")
    async def answer(request):
        match request.subtopic:
            case "Fail":
                raise SwitchboardError("BUSY", "try again later")
            case "Progress":
                await request.progress("half")
            case "Wait":
                await asyncio.Event().wait()
        return request.data


def follow_events(desk):
    async def publish(subtopic, data):
        await desk.publish(f"Conformance/Done/{subtopic}", data)

    async def do(event):
        match event.subtopic:
            case "Publish":
                await publish("Publish", event.data)
            case "Request":
                try:
                    answer = await desk.request("Conformance/Ask/Echo", event.data)
                except SwitchboardError as error:
                    answer = {"ErrorCode": error.code}
                await publish("Request", answer)
            case "Leave":
                await desk.close()

    desk.subscribe("Conformance/Do/*", do)


async def play(url):
    async with connect("python", url=url, token="fixed") as desk:
        desk.on("error", lambda error: print(f"{url}: {error}", file=sys.stderr))
        if "/handler/" in url:
            answer_requests(desk)
        else:
            follow_events(desk)
        await desk.closed()


async def main(urls):
    await asyncio.gather(*map(play, urls))


asyncio.run(main(sys.argv[1:]))
