"""Counts that noise doesn't touch: user-space instructions per request by callgrind, system calls by strace."""

import collections
import functools
import os
import pathlib
import re
import signal
import subprocess
import tempfile

from load import Load
from server import Server


def instructions(command, request, n):
    """Instructions per request: all, and without the filling of buffers by `rep stos` (a large `memset`), which
    callgrind counts for each byte and the processor does in a few cycles."""
    load = Load(request, 8)
    with tempfile.TemporaryDirectory() as files:
        callgrind = ["valgrind", "--tool=callgrind", "--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"]
        with Server(command, request, [*callgrind, f"--callgrind-out-file={files}/out.%p"]) as server:
            load.send(server.url, min(n, 2000))
            _control("--zero", server.pid)
            load.send(server.url, n)
            _control("--dump", server.pid)
            text = pathlib.Path(files, f"out.{server.pid}.1").read_text()
    total, costs = _costs(text)
    zeroing = sum(of[address] for program, of in costs.items() for address in _zeroing(program))
    return {"instructions": total / n, "without_zeroing": (total - zeroing) / n}


def _control(what, pid):
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)


def _costs(text):
    """The sum, and by object and address what callgrind counted."""
    costs, program, skip, total = collections.defaultdict(collections.Counter), "", False, 0
    for line in text.splitlines():
        if line.startswith("0x"):
            # The line after `calls=` tells what a callee cost, which its own lines tell as well.
            if not skip:
                address, _, cost = line.split()
                costs[program][int(address, 16)] += int(cost)
                total += int(cost)
            skip = False
        elif line.startswith("ob="):
            program = line[3:]
        elif line.startswith("calls="):
            skip = True
    return total, costs


@functools.cache
def _zeroing(program):
    if not os.path.isfile(program):
        return []
    listing = subprocess.run(["objdump", "--disassemble", program], check=True, capture_output=True, text=True).stdout
    return [int(match[1], 16) for match in re.finditer(r"^ *([0-9a-f]+):.*\trep stos", listing, re.MULTILINE)]


def system_calls(command, request, n):
    """System calls per request, all threads together, at 32 connections."""
    load = Load(request, 32)
    with Server(command, request) as server, tempfile.NamedTemporaryFile("r") as summary:
        load.send(server.url, 5000)
        strace = subprocess.Popen(
            ["strace", "-c", "-f", "-p", str(server.pid), "-o", summary.name], stderr=subprocess.PIPE, text=True
        )
        while "attached" not in strace.stderr.readline():
            if strace.poll() is not None:
                raise SystemExit("strace can't attach")
        load.send(server.url, n)
        strace.send_signal(signal.SIGINT)
        strace.wait()
        total = next(line.split() for line in summary.read().splitlines() if line.endswith("total"))
        return int(total[3]) / n
