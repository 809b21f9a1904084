"""Guest books in SQLite: their databases, what is asked of them, and whether they all answer the same."""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import tempfile

from load import Request
from server import Server

# Of ten entries; what is left of a beginning is that there are some.
READ = Request("/?newest=10", answer=b'[{"id":')
ENTRY = {"name": "Ada Lovelace", "text": "It might act upon other things besides number."}
MIX = dataclasses.replace(READ, insert=json.dumps(ENTRY).encode())

# Headers that say something of the answer, and not of the server.
TOLD = ("content-type", "content-length", "cache-control", "vary", "set-cookie")


@contextlib.contextmanager
def databases():
    """A function from a name to the path of a database, in memory if that can be: what a disk is busy with is no
    server's doing, and differs from one minute to the next."""
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield lambda name: pathlib.Path(directory, name)


def fill(commands):
    """Has each server make its database with fifty entries, and fails if one answers otherwise than the first."""
    told = {name: _answers(command) for name, command in commands.items()}
    (first, right), *others = told.items()
    for name, answers in others:
        for one, other in zip(right, answers, strict=True):
            if one != other:
                raise SystemExit(f"{name} answers otherwise than {first}: {other}, not {one}")


def _answers(command):
    # Before there are entries, the beginning of the answer is another one.
    with Server(command, dataclasses.replace(READ, answer=b"[")) as server:
        return [
            *(_ask(server, "POST", "/", ENTRY) for _ in range(49)),
            # A name that becomes a cookie.
            _ask(server, "POST", "/", {"name": "Grace", "text": "x"}),
            _ask(server, "GET", READ.target),
            _ask(server, "GET", "/?newest=99"),
        ]


def _ask(server, method, target, entry=None):
    """Status, headers, and body without times."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"content-type": "application/json"} if entry else {}
    connection.request(method, target, entry and json.dumps(entry), headers)
    answer = connection.getresponse()
    body = re.sub(r'"at":"[^"]{20}"', '"at":""', answer.read().decode())
    connection.close()
    return answer.status, {name: answer.getheader(name) for name in TOLD}, body
