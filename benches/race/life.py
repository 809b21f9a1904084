"""Rows for real life: databases, an open load, more than one CPU, large uploads, and many effes that nobody asks."""

import contextlib
import dataclasses
import time

import guestbook as books
import machine
import race
from load import Request
from rows import HELLO, entries, result, row
from server import Server, control, loader

MIB = 1 << 20
# Megabytes of an upload, and how many uploads are a run.
UPLOAD, UPLOADS = 100, 16
# Of what the App can do, in percent; the one with the target; and over how many connections.
SHARES, TARGET_SHARE, CLIENTS = (25, 50, 75, 90), 75, 256
# After how many seconds what a server does after its last request is done, and how long idle ones are watched.
SETTLED, WATCHED = 12, 10


def labelled(raced, label):
    """A race whose servers have the label in their names."""
    figures = {f"{name}, {label}": of for name, of in raced["figures"].items()}
    rounds = [{f"{name}, {label}": of for name, of in one.items()} for one in raced["rounds"]]
    return raced | {"figures": figures, "rounds": rounds}


def all_of(races, results):
    """Several races as one row."""
    return {
        "rounds": [one for raced in races for one in raced["rounds"]],
        "left_out": sum(raced["left_out"] for raced in races),
        "figures": {name: of for raced in races for name, of in raced["figures"].items()},
        "results": results,
    }


def of_books(options, commands, over, title, target):
    """Races of guest books that are read, and then are written by one request of ten: CPU of `effe` over others'."""
    books.fill(commands)
    races, results = [], []
    for label, request in {"read": books.READ, "mix": books.MIX}.items():
        raced = race.run(commands, request, 32, options.rounds, options.seconds)
        for name in over:
            ratio = race.ratios(raced["rounds"], "cpu", "effe", name)
            results.append(result(title.format(label, name), ratio, target if name == over[0] else None))
        races.append(labelled(raced, label))
    return all_of(races, results)


@row
def guestbook(options):
    """A guest book in SQLite, read and a tenth written: over the same with r2d2 in actix-web and axum."""
    with books.databases() as path:
        commands = {
            "effe": loader("guestbook", "--set", f"path={path('effe')}"),
            "actix": control("guestbook-actix", path("actix")),
            "axum": control("guestbook-axum", path("axum")),
        }
        return of_books(options, commands, ("actix", "axum"), "`guestbook`, {}: CPU over the same in {} with r2d2", 0.70)


@row
def sqlx(options):
    """An axum Router with a pool of sqlx, as a lambda and served by axum itself."""
    with books.databases() as path:
        commands = {
            "effe": loader("pooled", "--set", f"path={path('effe')}"),
            "axum": control("pooled", path("axum")),
        }
        return of_books(options, commands, ("axum",), "an axum Router with sqlx, {}: CPU over the same served by {}", None)


@row
def open(options):
    """Constant rates, of what the App can do: latencies from when each request was due."""
    most = race.run({"actix": control("actix")}, HELLO, 32, 5, options.seconds)["figures"]["actix"]["rate"]["median"]
    races, results = [], []
    for share in SHARES:
        request = dataclasses.replace(HELLO, rate=int(most * share / 100))
        raced = race.run(entries("hello"), request, CLIENTS, options.rounds, 2 * options.seconds)
        if share == TARGET_SHARE:
            ratio = race.ratios(raced["rounds"], "p999", "effe", "hyper")
            what = f"constant rate, {share} % of what the App can do: p99.9 over bare hyper's"
            results.append(result(what, ratio, 1.1))
        races.append(labelled(raced, f"{share} %"))
    return all_of(races, results)


@row
def cpus(options):
    """Throughput of two workers over that of one, with the load on the same CPUs."""
    commands = {"effe": loader("hello"), "hyper": control("hyper")}
    commands |= {"effe, 2 workers": loader("hello", workers=2), "hyper, 2 workers": control("hyper", "2")}
    raced = race.run(commands, HELLO, 64, options.rounds, options.seconds, pinned=False)
    gains = [
        {name: {"gain": one[f"{name}, 2 workers"]["rate"] / one[name]["rate"]} for name in ("effe", "hyper")}
        for one in raced["rounds"]
    ]
    spreads = {name: race.spread(one[name]["gain"] for one in gains) for name in ("effe", "hyper")}
    what = "2 workers over 1, load on the same two CPUs: requests/s of"
    results = [result(f"{what} {name}", gain, None, more=True) for name, gain in spreads.items()]
    ratio = race.ratios(gains, "gain", "effe", "hyper")
    return raced | {"results": [*results, result("the same: effe over hyper", ratio, 0.95, more=True)]}


@row
def uploads(options):
    """CPU and memory for bodies of 100 MiB that are read as they come."""
    request = Request("/upload", b"x" * UPLOAD * MIB, "application/octet-stream", b"%d\n" % (UPLOAD * MIB), run=UPLOADS)
    limit = ("--body-limit", f"{2 * UPLOAD}M")
    commands = entries("hello") | {"effe": loader("upload", *limit), "effe, async": loader("upload_async", *limit)}
    raced = race.run(commands, request, 4, options.rounds, options.seconds)
    for of in (of for one in raced["rounds"] for of in one.values()):
        of["cpu_mib"] = of.pop("cpu") / UPLOAD
    for name, figures in raced["figures"].items():
        figures.pop("cpu")
        figures["cpu_mib"] = race.spread(one[name]["cpu_mib"] for one in raced["rounds"])
    whats = {"effe": f"uploads of {UPLOAD} MiB over bare hyper, CPU", "effe, async": "the same: an async lambda"}
    ratios = {name: race.ratios(raced["rounds"], "cpu_mib", name, "hyper") for name in whats}
    return raced | {"results": [result(what, ratios[name], None) for name, what in whats.items()]}


@row
def idle(options):
    """Many servers of each kind that have answered once, and are asked no more: memory, wake-ups and CPU of one."""
    figures = {name: watched(command, options.effes) for name, command in entries("hello").items()}
    effe = figures["effe"]
    return {
        "figures": figures,
        "results": [
            result(f"an idle effe of {options.effes}: CPU per second", effe["idle_cpu"], 20, "us"),
            result("the same: threads", effe["threads"], 5, ""),
            result("the same: memory (PSS)", effe["pss"], 1.2, "MiB"),
        ],
    }


def watched(command, n):
    """What so many idle servers have and do, each."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(command, HELLO, cpu=machine.EVERY_CPU)) for _ in range(n)]
        # Side by side: one after the other would take minutes.
        stack.callback(lambda: [server.end() for server in servers])
        pids = [server.pid for server in servers]
        time.sleep(SETTLED)
        begun, cpu, switches = time.monotonic(), sum(map(machine.cpu_of, pids)), sum(map(machine.switches, pids))
        time.sleep(WATCHED)
        seconds = time.monotonic() - begun
        # A mean: most may do nothing while they are watched.
        return {
            "pss": race.spread(map(machine.pss, pids)),
            "threads": race.spread(map(machine.threads, pids)),
            "wakeups": race.spread([(sum(map(machine.switches, pids)) - switches) / n / seconds]),
            "idle_cpu": race.spread([(sum(map(machine.cpu_of, pids)) - cpu) / n / seconds * 1e6]),
        }
