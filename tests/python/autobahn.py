"""Autobahn's cases for RFC 6455, by a runner that shares no code with switchboard (`kosoku`), against a broker.

Usage: autobahn.py URL unregistered|registered [CASES…], with a case as "1.1.1" or "1.*". Prints a line for each case: its
number, the verdict about its messages, the verdict about its close, and the code of the broker's Close frame.

The suite was made for servers that echo, and the broker is not one. In both runs, an error that refuses a message counts as
its echo, if it fits the type (text or binary) of the oldest message that is not answered yet. An error that is absent, early,
or one too many fails the case as a wrong echo would.

`unregistered`: the suite's frames are sent as they are, and the broker refuses every message.
`registered`: each case registers first and subscribes to its own events. Its text messages become the data of events, which
the broker delivers back, so that the suite compares their text. Frames keep their boundaries, and the first and the last one
of a message are longer.
"""

import asyncio
import itertools
import json
import os
import sys

import kosoku
from kosoku import _caseindex

CONCURRENCY = 12

# How often cases that failed are run again, two at a time.
REPETITIONS = 2


USERS = itertools.count()

TRIPLE = ("Autobahn", "Case", "Message")
BEFORE = b'{"channel":"Autobahn","topic":"Case","subtopic":"Message","data":"'
AFTER = b'"}'

# What a text of JSON escapes.
ESCAPED = {byte: b"\\u%04x" % byte for byte in [*range(0x20), *b'"\\']}


class Sender:
    """The suite's end of a connection. It also keeps the messages that were sent whole and are not answered yet."""

    def __init__(self, protocol, wraps):
        vars(self).update(protocol=protocol, wraps=wraps, unanswered=[], parts=[], binary=False)

    def __getattr__(self, name):
        return getattr(self.protocol, name)

    def __setattr__(self, name, value):
        setattr(self.protocol, name, value)

    def sendFrame(self, opcode, payload=b"", fin=True, payload_len=None, **options):
        if opcode <= 2:
            if opcode > 0:
                vars(self).update(parts=[], binary=opcode == 2)
            part = octets(payload, payload_len, self.binary)
            self.parts.append(part)
            if self.wraps and not self.binary:
                payload, payload_len = wrapped(part, opcode > 0, fin), None
            if fin:
                self.keep()
        return self.protocol.sendFrame(opcode, payload, fin, payload_len=payload_len, **options)

    def sendMessage(self, payload=b"", isBinary=False, **options):
        part = octets(payload, None, isBinary)
        vars(self).update(parts=[part], binary=isBinary)
        self.keep()
        if self.wraps and not isBinary:
            payload = wrapped(part, True, True)
        return self.protocol.sendMessage(payload, isBinary, **options)

    def keep(self):
        self.unanswered.append((b"".join(self.parts), self.binary))
        self.parts.clear()


def octets(payload, length, binary):
    """The payload of a frame in bytes. One of `length` is repeated up to it."""
    if isinstance(payload, int):
        payload = bytes([payload])
    if isinstance(payload, str):
        payload = payload.encode("latin-1" if binary else "utf-8")
    return payload if length is None else (payload * (length // max(len(payload), 1) + 1))[:length]


def wrapped(part, first, last):
    """A part of a text, as the same part of an event with that text."""
    if not ESCAPED.keys().isdisjoint(part):
        part = b"".join(ESCAPED.get(byte, bytes([byte])) for byte in part)
    return (BEFORE if first else b"") + part + (AFTER if last else b"")


def parsed(message):
    """The triple and the data of an envelope."""
    envelope = json.loads(message)
    return tuple(envelope[key] for key in ("channel", "topic", "subtopic")), envelope["data"]


def is_refusal(message, binary):
    """Whether the broker refused a message of this type."""
    triple, data = parsed(message)
    if triple != ("Broker", "Message", "Error") or data["ErrorCode"] not in ("INVALID_JSON", "INVALID_ENVELOPE"):
        return False
    return ("a binary message" in data["ErrorMessage"]) == binary


def unregistered(case):
    """The case, with an error in the place of each echo."""

    class Unregistered(case):
        def __init__(self, protocol):
            super().__init__(Sender(protocol, wraps=False))

        def onMessage(self, message, binary):
            unanswered = self.p.unanswered
            if unanswered and not binary and is_refusal(message, unanswered[0][1]):
                payload, binary = unanswered.pop(0)
                message = payload.decode("latin-1" if binary else "utf-8")
            super().onMessage(message, binary)

    return Unregistered


def registered(case):
    """The case in a session, with its texts in events and an error in the place of each binary echo."""

    class Registered(case):
        def __init__(self, protocol):
            super().__init__(Sender(protocol, wraps=True))
            self.replies = ["Register", "Subscribe"]

        def onOpen(self):
            # A user of its own, who does not receive the events of other cases.
            user = f"case-{next(USERS)}"
            self.command("Application", "Register", {"user": user, "echo": True}, source="autobahn")
            self.command("Subscription", "Subscribe", {"channel": "Autobahn"})

        def command(self, topic, subtopic, data, **fields):
            envelope = {"channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data, **fields}
            self.p.protocol.sendFrame(1, json.dumps(envelope))

        def onMessage(self, message, binary):
            triple, data = parsed(message)
            if self.replies:
                assert triple[2] == self.replies.pop(0) and data["Success"], message
                if not self.replies:
                    super().onOpen()
                return
            payload, is_binary = self.p.unanswered.pop(0)
            if is_binary and is_refusal(message, is_binary):
                message, binary = payload.decode("latin-1"), True
            elif triple == TRIPLE:
                message = data
            super().onMessage(message, binary)

    return Registered


RUNS = {"unregistered": unregistered, "registered": registered}


def replace_cases(variant):
    build_index = _caseindex.build_index

    def index(*arguments):
        cases, groups = build_index(*arguments)
        return {number: variant(case) for number, case in cases.items()}, groups

    _caseindex.build_index = index


async def run(url, cases, concurrency):
    try:
        results = await kosoku.run_fuzzingclient(url, cases, concurrency=concurrency)
    except kosoku.FailureError as failure:
        results = failure.results
    return {it.case_id: it for it in results}


async def main(url, variant, *cases):
    replace_cases(RUNS[variant])
    results = await run(url, cases or None, CONCURRENCY)
    # The suite gives most cases half a second or one, which a busy machine can exceed.
    for _ in range(REPETITIONS):
        failed = [number for number, it in results.items() if not it.passed and it.behavior.value != "UNIMPLEMENTED"]
        if failed:
            results.update(await run(url, failed, 2))
    for it in results.values():
        print(it.case_id, it.behavior.value, it.behavior_close.value, it.remote_close_code, sep="\t")


asyncio.run(main(*sys.argv[1:]))
sys.stdout.flush()
# Ends the process without the interpreter's cleanup: a thread of kosoku that still waits for the interpreter then would abort
# the process (SIGABRT, without a message).
os._exit(0)
