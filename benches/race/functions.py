"""Functions of Lambda's under a mock of its Runtime API: the loader as `bootstrap`, and hellos on AWS's own crates."""

import contextlib
import http.client
import os
import signal
import subprocess
import time

import machine
from load import Request
from server import ENVIRONMENT, RELEASE, Server, control

# Where no path is anything, the mock answers 0: nothing was wrong.
NOTHING = Request("/run/0", answer=b"0")


class Api(Server):
    """A mock of the Runtime API, on the CPU of those who make load."""

    def __init__(self):
        super().__init__(control("runtime-api"), NOTHING, cpu=machine.LOAD_CPU)

    @contextlib.contextmanager
    def asking(self, target):
        """Asks for something, and gives what waits for the answer: text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        connection.request("GET", target)
        yield lambda: connection.getresponse().read().decode()
        connection.close()

    def run(self, n):
        """Has so many invocations answered."""
        with self.asking(f"/run/{n}") as answer:
            wrong = answer()
        if wrong != "0":
            raise SystemExit(f"{wrong} of {n} results were wrong")


class Function:
    """A function's process; leaving the block ends it."""

    def __init__(self, command, api):
        environment = ENVIRONMENT | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}",
            "AWS_LAMBDA_FUNCTION_NAME": "hello",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "LAMBDA_TASK_ROOT": str(RELEASE),
            "_HANDLER": "libhello.so",
        }
        with api.asking("/first") as first:
            # The mock must know that it is asked before there is a function.
            api.ask()
            begun = time.monotonic()
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                preexec_fn=lambda: os.sched_setaffinity(0, machine.SERVER_CPU),
            )
            first()
            self.first_next = time.monotonic() - begun
        self.pid = self._process.pid

    def cpu(self):
        """Seconds of CPU so far."""
        return machine.cpu_of(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Functions on AWS's crates know no signal.
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def bootstrap():
    """The command of the loader as a function."""
    return [RELEASE / "effe-loader-aws"]
