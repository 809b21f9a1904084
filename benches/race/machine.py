"""The machine that the figures come from: what it is, and what else ran on it meanwhile."""

import os
import pathlib
import platform
import re
import resource
import subprocess
import time

# Of one CPU: what others may have used of a round that still counts. Interrupts that belong to nobody, and ticks, by
# which the kernel counts, make 5 to 10 % of it on a machine that does nothing else.
TOLERATED = 0.15

EVERY_CPU = os.sched_getaffinity(0)
SERVER_CPU = {0}
LOAD_CPU = {1} if (os.cpu_count() or 1) > 1 else {0}


def describe():
    """What it is, in one line."""
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, {version('rustc')}"


def version(program):
    """What a program says of its version."""
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()


def load_average():
    """Of the last minute: whether the machine was at rest before."""
    return os.getloadavg()[0]


def cpu_of(pid):
    """Seconds of CPU that a process and its children have used, their ended threads included, to the nanosecond."""
    return sum(time.clock_gettime((~one << 3) | 2) for one in [pid, *children(pid)])


def children(pid):
    """The processes that a process has started and that run; not those that they have started."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def switches(pid):
    """How often the threads of a process were put aside so far, of themselves or not: as often have they woken."""
    status = "".join(task.read_text() for task in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status)))


def threads(pid):
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def pss(pid):
    """MiB of memory that are a process's own, and its part of what it shares with others."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no Pss of process {pid}")


class Attention:
    """Tells what part of a CPU others used while the block ran that this guards."""

    def __init__(self, pids):
        self._pids = pids

    def _ours(self):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(map(cpu_of, self._pids)) + time.process_time() + children.ru_utime + children.ru_stime

    @staticmethod
    def _busy():
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        self._begin = time.monotonic(), self._busy(), self._ours()
        return self

    def __exit__(self, *_):
        begin, busy, ours = self._begin
        self.seconds = time.monotonic() - begin
        self.others = max(0.0, (self._busy() - busy) - (self._ours() - ours)) / self.seconds

    @property
    def disturbed(self):
        """Whether something else ran."""
        return self.others > TOLERATED
