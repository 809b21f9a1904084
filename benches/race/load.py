"""Load: requests, and the programs that send them, on a CPU of their own."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.parse

import machine
from server import RELEASE

# Prints what wrk measured, as JSON. With an insert, one request of ten is that.
SCRIPT = """
local body = os.getenv("RACE_BODY")
wrk.method = os.getenv("RACE_METHOD")
if body then wrk.body = assert(io.open(body, "rb")):read("*a") end
local kind = os.getenv("RACE_TYPE")
if kind then wrk.headers["content-type"] = kind end
local insert = os.getenv("RACE_INSERT")
if insert then
    local n, select = 0, nil
    function init()
        select = wrk.format()
        insert = wrk.format("POST", "/", {["content-type"] = "application/json"}, insert)
    end
    function request()
        n = n + 1
        return n % 10 == 0 and insert or select
    end
end
function done(summary, latency)
    local e = summary.errors
    local at = function(part) return latency:percentile(100 * part) end
    io.write(string.format(
        '\\n{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"p999":%f,"max":%f,"failed":%d}\\n',
        summary.requests, summary.duration / 1e6, at(.5), at(.99), at(.999), latency.max,
        e.connect + e.read + e.write + e.status + e.timeout))
end
"""


# Connections that ask for what waits 50 ms: 20 requests a second each, one of a hundred if the rest are 32,000.
OTHERS = 16
# Calls of gRPC at once on a connection.
CALLS = 8


@dataclasses.dataclass
class Request:
    """What is asked for, and how the right answer is known."""

    target: str = "/"
    body: bytes | None = None
    kind: str | None = None
    answer: bytes | None = None
    insert: bytes | None = None
    """What one request of ten posts to `/` instead, JSON."""
    other: str | None = None
    ramp: int | None = None
    """Seconds that many connections need before anything counts."""
    rate: int | None = None
    """Requests a second, whether or not there are answers."""
    run: int | None = None
    """So many are a run, instead of those of a second: of those that take long none is left half done."""
    over: str = "http/1.1"
    """What carries it: `http/1.1`, the same over `tls`, `h2` in clear, `grpc` over that, or a `websocket`."""

    @property
    def scheme(self):
        """Of its URL."""
        return "https" if self.over == "tls" else "http"

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


def _run(command, cpu=machine.LOAD_CPU, **options):
    def pin():
        os.sched_setaffinity(0, cpu)

    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin, **options)
    if ran.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


class Load:
    """Sends one kind of request, with one thread, or with one for each CPU of several."""

    def __init__(self, request, connections, cpu=machine.LOAD_CPU):
        self._request, self._connections, self._cpu = request, connections, cpu
        self._files = tempfile.TemporaryDirectory()
        self._script = pathlib.Path(self._files.name, "wrk.lua")
        self._script.write_text(SCRIPT)
        self._body = pathlib.Path(self._files.name, "body")
        self._body.write_bytes(request.body or b"")

    def race(self, url, seconds):
        """As fast as the answers come, with wrk; times are in microseconds."""
        request = self._request
        if request.other:
            return self._mixed(url, seconds)
        if request.ramp is not None:
            return self._ramped(url, seconds, request.ramp)
        where = urllib.parse.urlsplit(url)
        if request.rate:
            numbers = map(str, (self._connections, seconds, request.rate))
            return json.loads(_run([RELEASE / "load-open", where.netloc, where.path, *numbers]))
        if request.over == "websocket":
            numbers = map(str, (self._connections, seconds, len(request.body)))
            return json.loads(_run([RELEASE / "load-websocket", where.netloc, where.path, *numbers]))
        if request.run:
            return self._counted(url)
        if request.over == "grpc":
            headers = ["-H", f"content-type: {request.kind}", "-H", "te: trailers"]
            return self._timed(url, seconds, "-m", str(CALLS), "-d", str(self._body), *headers)
        if request.over == "h2":
            return self._timed(url, seconds, "-d", str(self._body), "-H", f"content-type: {request.kind}")
        settings = {"RACE_METHOD": request.method}
        if request.body is not None:
            settings["RACE_BODY"] = str(self._body)
        if request.kind:
            settings["RACE_TYPE"] = request.kind
        if request.insert:
            settings["RACE_INSERT"] = request.insert.decode()
        many = [f"-t{len(self._cpu)}", f"-c{self._connections}", f"-d{seconds}s"]
        command = ["wrk", *many, "--timeout", "20s", "-s", self._script, url]
        text = _run(command, self._cpu, env={**os.environ, **settings})
        result = json.loads(text.strip().splitlines()[-1])
        if result["failed"] or not result["requests"]:
            raise SystemExit(f"requests to {url} failed: {result}")
        return result

    def _mixed(self, url, seconds):
        """About one request of a hundred goes to the other target, over connections of its own; figures are of the
        rest."""
        other = Load(Request(url.rsplit("/", 1)[0] + self._request.other), OTHERS)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            others = pool.submit(other.race, other._request.target, seconds + 2)
            rest = self._ramped(url, seconds, 1)
            others = others.result()
        rate = others["requests"] / others["seconds"]
        return rest | {"share": rate / (rate + rest["requests"] / seconds)}

    def _ramped(self, url, seconds, ramp):
        """What counts begins after the ramp. With h2load: wrk counts from its first connection on, and invents
        latencies beside those that are much longer than the mean."""
        return self._timed(url, seconds, "--h1", f"--warm-up-time={ramp}") | {"ramp": ramp}

    def _timed(self, url, seconds, *flags):
        """As fast as the answers come, with h2load."""
        return self._logged(url, f"-D{seconds}", *flags) | {"seconds": seconds}

    def _counted(self, url):
        """So many as are a run, with h2load."""
        begun = time.monotonic()
        result = self._logged(url, "--h1", f"-n{self._request.run}", "-d", str(self._body))
        if result["requests"] != self._request.run:
            raise SystemExit(f"requests to {url} failed")
        return result | {"seconds": time.monotonic() - begun}

    def _logged(self, url, *flags):
        log = pathlib.Path(self._files.name, "log")
        log.unlink(missing_ok=True)
        _run(["h2load", "-t1", f"-c{self._connections}", *flags, f"--log-file={log}", url])
        fields = [line.split("\t") for line in log.read_text().splitlines()]
        if not fields or any(status != "200" for _, status, _ in fields):
            raise SystemExit(f"requests to {url} failed")
        micros = sorted(int(micros) for _, _, micros in fields)
        at = {name: micros[int(len(micros) * part)] for name, part in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]}
        return {"requests": len(fields), "failed": 0, **at}

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
