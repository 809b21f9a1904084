"""Servers under load: the loader with a lambda, and the controls."""

import contextlib
import http.client
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"

# What the caller's shell says to an effe is not meant for these.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PORT" and not name.startswith("EFFE_")}


def loader(lam, *flags, program="effe-loader", workers=1):
    """The command of a loader that serves a lambda; the port follows."""
    plugin = RELEASE / f"lib{lam}.so"
    return [RELEASE / program, "--plugin", plugin, "--workers", str(workers), "--host", "127.0.0.1", *flags, "--port"]


def control(name, *arguments):
    """The command of a control; the port follows."""
    return [RELEASE / f"control-{name}", *arguments]


@contextlib.contextmanager
def certificate():
    """One for a server of TLS that nobody need trust, and its key, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as files:
        cert, key = (pathlib.Path(files, name) for name in ("cert", "key"))
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2"
        subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
        yield cert, key


class Server:
    """A running server; leaving the block ends it."""

    def __init__(self, command, request, wrapper=(), cpu=machine.SERVER_CPU):
        self.request = request
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            [*wrapper, *command, str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            preexec_fn=lambda: os.sched_setaffinity(0, cpu),
        )
        self._is_told = False
        self.pid = self._process.pid
        self.first_answer = self._wait() - self.begun

    def _wait(self):
        while True:
            if self._process.poll() is not None:
                raise SystemExit(f"{self._process.args[0]} ended with {self._process.returncode}")
            with contextlib.suppress(ConnectionRefusedError):
                self.ask()
                return time.monotonic()
            time.sleep(0.0002)

    def ask(self):
        """One request, whose answer must be the right one."""
        want = self.request
        if want.over == "websocket":
            return self._echo(want)
        if want.over == "grpc":
            return self._call(want)
        if want.over == "tls":
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        else:
            # Whoever speaks HTTP/2 in clear speaks both.
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        connection.request(want.method, want.target, want.body, want.headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200 or not want.is_right(body):
            raise SystemExit(f"{self._process.args}: a wrong answer, {answer.status} {body[:80]!r}")

    def _echo(self, want):
        """One message over a WebSocket, whose echo must be the same."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(
                f"GET {want.target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            stream = connection.makefile("rb")
            head = list(iter(stream.readline, b"\r\n"))
            # As short as it is, its length is in one byte; the mask is nothing.
            connection.sendall(bytes([0x82, 0x80 | len(want.body), 0, 0, 0, 0]) + want.body)
            if b" 101 " not in head[0] or stream.read(2 + len(want.body))[2:] != want.body:
                raise SystemExit(f"{self._process.args}: a wrong answer, {head[0]}")

    def _call(self, want):
        """One call of gRPC, whose message must be the right one. Python has no client of HTTP/2."""
        with tempfile.NamedTemporaryFile() as body:
            body.write(want.body)
            body.flush()
            headers = ["-H", f"content-type: {want.kind}", "-H", "te: trailers"]
            command = ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", f"@{body.name}", *headers, self.url]
            ran = subprocess.run(command, capture_output=True, check=False)
        # Curl's number for a connection that is refused.
        if ran.returncode == 7:
            raise ConnectionRefusedError
        if ran.returncode != 0 or not want.is_right(ran.stdout):
            raise SystemExit(f"{self._process.args}: a wrong answer, {ran.stdout[:80]!r} {ran.stderr.decode()}")

    @property
    def origin(self):
        """Where it listens."""
        return f"{self.request.scheme}://127.0.0.1:{self.port}"

    @property
    def url(self):
        """Where the request goes."""
        return self.origin + self.request.target

    def cpu(self):
        """Seconds of CPU so far."""
        return machine.cpu_of(self.pid)

    def memory(self, which="VmHWM"):
        """MiB that are resident: at most so far, or `VmRSS`: now."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(which + ":"):
                return int(line.split()[1]) / 1024
        raise SystemExit(f"no {which} of process {self.pid}")

    def end(self):
        """Tells it to end, and doesn't wait for that."""
        if not self._is_told:
            self._is_told = True
            self._process.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
