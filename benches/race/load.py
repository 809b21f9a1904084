"""Load: requests, and the programs that send them, on a CPU of their own."""

import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile

import machine

# Prints what wrk measured, as JSON. `share` of the requests go to the target in `other`.
SCRIPT = """
local body = os.getenv("RACE_BODY")
wrk.method = os.getenv("RACE_METHOD")
if body then wrk.body = assert(io.open(body, "rb")):read("*a") end
local kind = os.getenv("RACE_TYPE")
if kind then wrk.headers["content-type"] = kind end
local other, share = os.getenv("RACE_OTHER"), tonumber(os.getenv("RACE_SHARE") or 0)
local thread
function setup(t) thread = t end
function init()
    n_other = 0
    math.randomseed(tonumber(os.getenv("RACE_SEED")))
    local usual, unusual = wrk.format(), other and wrk.format(nil, other)
    if other then
        request = function()
            if math.random() < share then n_other = n_other + 1; return unusual end
            return usual
        end
    end
end
function done(summary, latency)
    local e = summary.errors
    local others = thread:get("n_other")
    -- The others take longer than the rest, so that the rest are the lower part of all.
    local rest = 1 - others / math.max(summary.requests, 1)
    local at = function(part) return latency:percentile(100 * part * rest) end
    io.write(string.format(
        '\\n{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"p999":%f,"max":%f,"failed":%d,"others":%d}\\n',
        summary.requests, summary.duration / 1e6, at(.5), at(.99), at(.999), latency.max,
        e.connect + e.read + e.write + e.status + e.timeout, others))
end
"""


@dataclasses.dataclass
class Request:
    """What is asked for, and how the right answer is known."""

    target: str = "/"
    body: bytes | None = None
    kind: str | None = None
    answer: bytes | None = None
    other: str | None = None

    @property
    def method(self):
        """GET without a body."""
        return "GET" if self.body is None else "POST"

    @property
    def headers(self):
        """The body's type."""
        return {"content-type": self.kind} if self.kind else {}

    def is_right(self, body):
        """Whether this is the answer, or the beginning of it."""
        return body.startswith(self.answer) if self.answer is not None else body == self.body


def _run(command, **options):
    def pin():
        os.sched_setaffinity(0, machine.LOAD_CPU)

    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin, **options)
    if ran.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


class Load:
    """Sends one kind of request."""

    def __init__(self, request, connections, share=0.0):
        self._request, self._connections, self._share = request, connections, share
        self._files = tempfile.TemporaryDirectory()
        self._script = pathlib.Path(self._files.name, "wrk.lua")
        self._script.write_text(SCRIPT)
        self._body = pathlib.Path(self._files.name, "body")
        self._body.write_bytes(request.body or b"")
        self._seed = 0

    def race(self, url, seconds):
        """As fast as the answers come, with wrk; times are in microseconds."""
        self._seed += 1
        request = self._request
        settings = {"RACE_METHOD": request.method, "RACE_SEED": str(self._seed), "RACE_SHARE": str(self._share)}
        if request.body is not None:
            settings["RACE_BODY"] = str(self._body)
        if request.kind:
            settings["RACE_TYPE"] = request.kind
        if request.other:
            settings["RACE_OTHER"] = request.other
        command = ["wrk", "-t1", f"-c{self._connections}", f"-d{seconds}s", "--timeout", "20s", "-s", self._script, url]
        text = _run(command, env={**os.environ, **settings})
        result = json.loads(text.strip().splitlines()[-1])
        if result["failed"] or not result["requests"]:
            raise SystemExit(f"requests to {url} failed: {result}")
        return result

    def send(self, url, n):
        """So many requests, with h2load."""
        command = ["h2load", "--h1", "-t1", f"-n{n}", f"-c{self._connections}"]
        if self._request.body is not None:
            command += ["-d", str(self._body)]
        if self._request.kind:
            command += ["-H", f"content-type: {self._request.kind}"]
        text = _run([*command, url])
        if f"{n} succeeded" not in text:
            raise SystemExit(f"requests to {url} failed:\n{text}")
