"""The rows: what is measured, against what, and what it must reach. Each runs by its name."""

import contextlib
import dataclasses
import statistics
import subprocess
import threading
import time

import counts
import functions
import machine
import race
from load import Load, Request
from server import ROOT, Server, certificate, control, loader

HELLO = Request(answer=b"Hello from Effe:  ")
JSON = Request(
    "/json",
    b'{"name":"Ada Lovelace","count":41,"tags":["a","b","c"]}',
    "application/json",
    b'{"greeting":"Hello, Ada Lovelace","count":42,"tags":3}',
)
ECHO_SMALL = Request("/echo", b"x" * 256, "application/octet-stream")
ECHO_LARGE = Request("/echo", b"x" * (1 << 20), "application/octet-stream")
PIPE = Request("/pipe", b"x" * (1 << 20), "application/octet-stream")
# Of the patterns, those of 1 and of 17 match.
MATCHED = Request("/articles/17/on-patterns", answer=b"2 of 200 patterns\n")
MESSAGE = Request("/", bytes(range(64)), over="websocket")
# A message of gRPC's: not compressed, its length, and the text "a word and another"; the answer counts four words.
CALL = Request(
    "/words.v1.Words/Count",
    b"\0\0\0\0\x14\x0a\x12a word and another",
    "application/grpc",
    b"\0\0\0\0\x02\x08\x04",
    over="grpc",
)
# The loader answers every path alike: all are asked for the control's.
THREE = {
    "hello": (HELLO, "hello"),
    "json": (JSON, "json"),
    "echo-256": (ECHO_SMALL, "echo"),
    "echo-1m": (ECHO_LARGE, "echo"),
}
ROWS = {}


def row(function):
    """A row that is asked for by its function's name."""
    ROWS[function.__name__.replace("_", "-")] = function
    return function


def sleeping(ms, **other):
    """A request that waits."""
    return Request(f"/sleep?ms={ms}", answer=f"slept {ms} ms\n".encode(), **other)


def entries(lam):
    """The loader and both controls."""
    return {"effe": loader(lam), "actix": control("actix"), "hyper": control("hyper")}


def result(what, value, target, unit="x", more=False):
    """One line of the table of targets: at most `target`, or at least, if `more`; `None` if none is set."""
    return {"what": what, "value": value, "target": target, "unit": unit, "more": more}


def against_controls(name, options, targets, connections=32):
    """A race of a lambda with the controls."""
    request, lam = THREE[name]
    raced = race.run(entries(lam), request, connections, options.rounds, options.seconds)
    raced["results"] = [
        result(f"CPU per `{name}` request over {title}", race.ratios(raced["rounds"], "cpu", "effe", over), target)
        for over, title, target in targets
    ]
    return raced


def cpu_of_two(options, both, what, target, **how):
    """A race of two that answer `hello`: CPU per request, the first over the second."""
    raced = race.run(both, HELLO, 32, options.rounds, options.seconds, **how)
    return raced | {"results": [result(what, race.ratios(raced["rounds"], "cpu", *both), target)]}


@row
def hello(options):
    """CPU per request of `hello`."""
    targets = [("actix", "the plain actix-web App", 0.90), ("hyper", "bare hyper", 1.03)]
    return against_controls("hello", options, targets)


@row
def in_c(options):
    """CPU per request of `hello` in C, over the same in Rust."""
    both = {"effe, C": loader("hello_in_c"), "effe": loader("hello")}
    return cpu_of_two(options, both, "`hello` in C over `hello` in Rust, CPU", 1.00)


@row
def json(options):
    """CPU per request of `json`."""
    return against_controls("json", options, [("actix", "the plain actix-web App", 0.95)])


@row
def echo_256(options):
    """CPU per request of `echo`, 256 bytes."""
    return against_controls("echo-256", options, [("actix", "the plain actix-web App", 0.95)])


@row
def echo_1m(options):
    """CPU per request of `echo`, 1 MiB."""
    return against_controls("echo-1m", options, [("actix", "the plain actix-web App", 1.0)], connections=8)


def piped(options, commands, over="http/1.1", carried=""):
    """A race of `pipe` with the plain App, and with bare hyper if that is among them."""
    raced = race.run(commands, dataclasses.replace(PIPE, over=over), 8, options.rounds, options.seconds)
    what = f"throughput of `pipe`{carried}, 1 MiB each way, over the plain actix-web App's"
    results = [result(what, race.ratios(raced["rounds"], "rate", "effe", "actix"), 0.95, more=True)]
    if "hyper" in commands:
        ratio = race.ratios(raced["rounds"], "rate", "effe", "hyper")
        results.append(result("the same over bare hyper's", ratio, 1.0, more=True))
    if carried:
        cpu = race.ratios(raced["rounds"], "cpu", "effe", "actix")
        results.append(result(f"the same: CPU per MiB{carried}", cpu, round(1 / 0.95, 2)))
    return raced | {"results": results}


@row
def pipe(options):
    """Throughput of `pipe`, 1 MiB in each direction as it comes."""
    return piped(options, entries("pipe"))


@row
def pipe_tls(options):
    """The same over TLS, HTTP/1.1."""
    with certificate() as (cert, key):
        flags = ["--tls-cert", cert, "--tls-key", key]
        both = {"effe": loader("pipe", *flags, program="effe-loader-tls"), "actix": control("tls", cert, key)}
        return piped(options, both, "tls", " over TLS")


@row
def pipe_h2(options):
    """The same over HTTP/2, in clear."""
    both = {"effe": loader("pipe", program="effe-loader-tls"), "actix": control("tls")}
    return piped(options, both, "h2", " over HTTP/2")


@row
def pool(options):
    """`hello` on the pool over `hello` inline, many connections and one."""
    both = {"effe, pool": loader("hello", "--execution", "pool"), "effe": loader("hello")}
    many = race.run(both, HELLO, 32, options.rounds, options.seconds)
    one = race.run(both, HELLO, 1, options.rounds, options.seconds)
    many["results"] = [
        result(
            "`hello` on the pool over inline, CPU at 32 connections",
            race.ratios(many["rounds"], "cpu", "effe, pool", "effe"),
            1.4,
        ),
        result(
            "`hello` on the pool over inline, p50 at one connection",
            race.ratios(one["rounds"], "p50", "effe, pool", "effe"),
            1.4,
        ),
    ]
    many["left_out"] += one["left_out"]
    many["figures"] |= {f"{name}, one connection": figures for name, figures in one["figures"].items()}
    many["rounds"] += one["rounds"]
    return many


@row
def sleep_10(options):
    """`sleep` of 10 ms: a lambda that waits, against controls that wait without a thread."""
    all_three = entries("sleep") | {"effe": loader("sleep", "--max-concurrency", "1000")}
    return race.run(all_three, sleeping(10), 32, options.rounds, options.seconds) | {"results": []}


@row
def sleep_100(options):
    """`sleep` of 100 ms at 1,000 connections: ideally 10,000 requests per second."""
    both = {"effe": loader("sleep", "--max-concurrency", "1000"), "actix": control("actix")}
    # Long rounds: the first tenths of a second go to a thousand connections.
    raced = race.run(both, sleeping(100), 1000, max(5, options.rounds // 3), 10 * options.seconds, warm=4)
    share = race.spread(one["effe"]["rate"] / 10_000 for one in raced["rounds"])
    memory = race.spread([raced["figures"]["effe"]["memory"]])
    return raced | {
        "results": [
            result("`sleep` 100 ms, 1,000 connections: requests/s over the ideal", share, 0.95, more=True),
            result("the same: peak memory", memory, 64, "MiB"),
        ]
    }


@row
def ten(options):
    """Ten runs of one second at once."""
    seconds = []
    with Server(loader("sleep"), sleeping(0)) as server:
        server.request = sleeping(1000)
        for _ in range(5):
            begin = time.monotonic()
            threads = [threading.Thread(target=server.ask) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds.append(time.monotonic() - begin)
    return {"results": [result("ten 1-second runs at once: all done after", race.spread(seconds), 1.2, "s")]}


@row
def mixed(options):
    """One run of a hundred waits 50 ms: what the others notice of it."""
    both = {"effe": loader("sleep"), "effe, pool": loader("sleep", "--execution", "pool")}
    request = sleeping(0, other="/sleep?ms=50")
    raced = race.run(both, request, 32, max(5, options.rounds // 3), 4 * options.seconds)
    ratio = race.ratios(raced["rounds"], "p999", "effe", "effe, pool")
    what = "1 % of runs wait 50 ms: p99.9 of the other 99 %, auto over pool"
    return raced | {"results": [result(what, ratio, 1.1)]}


@row
def ready_at_once(options):
    """`hello` as an async lambda that never waits, over `hello`."""
    both = {"effe, async": loader("patient"), "effe": loader("hello")}
    return cpu_of_two(options, both, "async `hello` that is ready at once over `hello` inline, CPU", 1.06)


@row
def supervised(options):
    """`hello` in a process under a supervisor, over `hello` in a single process; memory of supervisor and process."""
    program = "effe-loader-processes"
    one, two = (loader("hello", "--processes", n, program=program) for n in "12")
    both = {"effe, --processes 1": one, "effe": loader("hello", program=program)}
    raced = cpu_of_two(options, both, "`hello` under a supervisor over `hello` in a single process, CPU", 1.01)
    load = Load(HELLO, 32)
    with Server(one, HELLO) as fewer, Server(two, HELLO) as more:
        for server in (fewer, more):
            load.send(server.url, 100_000)
        supervisor = machine.pss(more.pid)
        further = sum(map(machine.pss, machine.children(more.pid))) - sum(map(machine.pss, machine.children(fewer.pid)))
    raced["results"] += [
        result("the same: memory (PSS) of the supervisor", race.spread([supervisor]), 1.2, "MiB"),
        result("the same: memory (PSS) of a second process", race.spread([further]), 2.7, "MiB"),
    ]
    return raced


@row
def axum(options):
    """`hello` of an axum Router, as a lambda and served by axum itself."""
    both = {"effe": loader("router"), "axum": control("axum")}
    return cpu_of_two(options, both, "an axum Router as a lambda over the same served by axum, CPU", 1.10)


@row
def websocket(options):
    """CPU per echo of 64 bytes over a WebSocket: in effe's way and in axum's as a lambda, over axum's own server."""
    entries = {
        "effe": loader("socket"),
        "effe, task": loader("socket", "--set", "task=yes"),
        "effe, axum": loader("axum_socket"),
        "axum": control("websocket"),
    }
    whats = {
        "effe": "64 bytes over a WebSocket and back over the same in axum, CPU",
        "effe, task": "the same: each socket in a task of the lambda's runtime",
        "effe, axum": "the same: axum's own handler as a lambda",
    }
    raced = race.run(entries, MESSAGE, 32, options.rounds, options.seconds)
    results = [result(what, race.ratios(raced["rounds"], "cpu", name, "axum"), 1.10) for name, what in whats.items()]
    return raced | {"results": results}


@row
def grpc(options):
    """CPU per unary call of a tonic service: as a lambda, over tonic's own server."""
    both = {"effe": loader("grpc", program="effe-loader-tls"), "tonic": control("grpc")}
    raced = race.run(both, CALL, 8, options.rounds, options.seconds)
    ratio = race.ratios(raced["rounds"], "cpu", *both)
    return raced | {"results": [result("a unary gRPC call over the same served by tonic, CPU", ratio, 1.15)]}


@row
def waiting(options):
    """10,000 connections, each request waits a second in an async lambda: ideally 10,000 requests per second."""
    n = 10_000
    both = {
        "effe": loader("patient", "--max-connections", str(n + 100)),
        "actix": control("actix"),
    }
    # A ramp of a few seconds: until then the connections ask in one wave.
    request = sleeping(1000, ramp=6)
    raced = race.run(both, request, n, max(3, options.rounds // 5), 10 * options.seconds)
    share = race.spread(one["effe"]["rate"] / n for one in raced["rounds"])
    memory = race.spread([raced["figures"]["effe"]["memory"]])
    return raced | {
        "results": [
            result("10,000 connections, each waits 1 s: requests/s over the ideal", share, 0.95, more=True),
            result("the same: peak memory", memory, 150, "MiB"),
        ]
    }


@row
def proxy(options):
    """`proxy` and the same written in actix-web and reqwest, before the same upstream."""
    with Server(control("hyper"), HELLO, cpu=machine.LOAD_CPU) as upstream:
        both = {
            "effe": loader("proxy", "--set", f"upstream={upstream.origin}"),
            "actix and reqwest": control("proxy", upstream.origin),
        }
        what = "`proxy` over the same in actix-web and reqwest, CPU"
        return cpu_of_two(options, both, what, 1.10, beside=[upstream.pid])


def of_starts(options, what, measure, targets):
    """How long `what` takes from the start of each process, which `measure` returns by name in milliseconds. Each
    target is a title, the one and the other of a ratio, and what it may be."""
    rounds, left_out = race.undisturbed(
        options.rounds, lambda: {name: {what: ms} for name, ms in measure().items()}
    )
    figures = {name: {what: race.spread(one[name][what] for one in rounds)} for name in rounds[0]}
    results = [result(title, race.ratios(rounds, what, *both), target) for title, *both, target in targets]
    return {"rounds": rounds, "left_out": left_out, "figures": figures, "results": results}


def first_answers():
    """From the start of each server to its first right answer: of `hello`, and of what has much to do in its Init, or
    in its main."""
    with_init = {"effe, Init": loader("matcher"), "actix, Init": control("matcher")}
    times = {}
    for commands, request in ((entries("hello"), HELLO), (with_init, MATCHED)):
        for name, command in commands.items():
            with Server(command, request) as server:
                times[name] = server.first_answer * 1e3
    return times


@row
def start(options):
    """From the start of a process to its first right answer."""
    title = "start of process to first right answer over the plain actix-web App's"
    with_init = "the same: an Init that compiles 200 patterns, over an App whose main does"
    targets = [(title, "effe", "actix", 1.2), (with_init, "effe, Init", "actix, Init", None)]
    return of_starts(options, "first_answer", first_answers, targets)


def first_nexts():
    """From the start of each function's process until it asks for an invocation."""
    times = {}
    with functions.Api() as api:
        for name, command in {"effe": functions.bootstrap(), "lambda_runtime": control("event")}.items():
            with functions.Function(command, api) as function:
                times[name] = function.first_next * 1e3
    return times


@row
def bootstrap(options):
    """From the start of the loader as a function to its first question for an invocation."""
    title = "start of a function to its first `next` over a hello on lambda_runtime"
    return of_starts(options, "first_next", first_nexts, [(title, "effe", "lambda_runtime", 1.5)])


@row
def invocation(options):
    """CPU per invocation through the Runtime API, of an event of a Function URL."""
    commands = {"effe": functions.bootstrap(), "lambda_http": control("http-event")}
    rounds, left_out = [], 0
    with contextlib.ExitStack() as stack:
        apis = {name: stack.enter_context(functions.Api()) for name in commands}
        started = {
            name: stack.enter_context(functions.Function(command, apis[name])) for name, command in commands.items()
        }
        # So many that each run takes about as long as is asked for.
        begun = time.monotonic()
        for api in apis.values():
            api.run(2000)
        n = max(1000, int(4000 / (time.monotonic() - begun) * options.seconds))
        while len(rounds) < options.rounds and left_out <= 2 * options.rounds:
            one, disturbed = {}, []
            names = list(commands) if (len(rounds) + left_out) % 2 == 0 else list(reversed(commands))
            for name in names:
                function, api = started[name], apis[name]
                with machine.Attention([function.pid, api.pid]) as attention:
                    cpu = function.cpu()
                    api.run(n)
                    cpu = function.cpu() - cpu
                one[name] = {"cpu": cpu / n * 1e6, "rate": n / attention.seconds}
                disturbed.append(attention.disturbed)
            if any(disturbed):
                left_out += 1
            else:
                rounds.append(one)
    if not rounds:
        raise SystemExit("something else ran in every round: no figure is worth keeping")
    ratio = race.ratios(rounds, "cpu", "effe", "lambda_http")
    figures = {
        name: {what: race.spread(one[name][what] for one in rounds) for what in ("cpu", "rate")} for name in commands
    }
    what = "CPU per invocation over a hello on lambda_http"
    return {"rounds": rounds, "left_out": left_out, "figures": figures, "results": [result(what, ratio, 1.05)]}


@row
def memory(options):
    """Memory after a million requests, and whether it still grows."""
    load = Load(HELLO, 32)
    with Server(loader("hello"), HELLO) as server:
        sizes = []
        for _ in range(10):
            load.send(server.url, 100_000)
            sizes.append(server.memory("VmRSS"))
        peak = server.memory()
    growth = statistics.mean(sizes[-3:]) - statistics.mean(sizes[:3])
    return {
        "results": [
            result("memory after 1,000,000 requests", race.spread([peak]), 12, "MiB"),
            result("the same: growth over the last 700,000", race.spread([growth]), 0.25, "MiB"),
        ]
    }


def tally(command, request, n=10_000):
    """All that is counted of a server."""
    return counts.instructions(command, request, n) | {"system_calls": counts.system_calls(command, request, n)}


@row
def count(options):
    """Instructions and system calls per request."""
    counted = {}
    for name in ("hello", "json", "echo-256"):
        request, lam = THREE[name]
        # Under valgrind no run is short: the decision that `auto` comes to is made for it.
        commands = entries(lam) | {"effe": loader(lam, "--execution", "inline")}
        counted[name] = {who: tally(command, request) for who, command in commands.items()}
    pooled = loader("hello", "--execution", "pool")
    counted["hello"]["effe, pool"] = tally(pooled, HELLO)
    counted["hello"]["effe, async"] = tally(loader("patient", "--execution", "inline"), HELLO)
    counted["hello"]["effe, C"] = tally(loader("hello_in_c", "--execution", "inline"), HELLO)
    counted["axum"] = {
        "effe": tally(loader("router", "--execution", "inline"), HELLO),
        "axum": tally(control("axum"), HELLO),
    }
    return {"counted": counted, "results": []}


@row
def boundary(options):
    """What it costs to cross into a lambda and back, without HTTP."""
    del options
    bench = ["cargo", "bench", "--quiet", "--package", "boundary"]
    table = subprocess.run(bench, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {"text": table.strip(), "results": []}
