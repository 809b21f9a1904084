"""Races: several servers in turns, round by round, and what is told of them: ratios within a round."""

import contextlib
import statistics

import machine
from load import Load
from server import Server


def spread(values):
    """Median and quartiles."""
    values = list(values)
    if len(values) < 2:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def ratios(rounds, what, of, over):
    """The spread of the ratio of two servers, taken round by round."""
    return spread(one[of][what] / one[over][what] for one in rounds)


def undisturbed(rounds, measure):
    """What `measure` returns, for so many rounds in which nothing else ran, and how many others were left out."""
    kept, left_out = [], 0
    while len(kept) < rounds and left_out <= 2 * rounds:
        # What the servers used counts among the children of this process once they have ended.
        with machine.Attention([]) as attention:
            one = measure()
        if attention.disturbed:
            left_out += 1
        else:
            kept.append(one)
    if not kept:
        raise SystemExit("something else ran in every round: no figure is worth keeping")
    return kept, left_out


def run(entries, request, connections, rounds, seconds, warm=2, beside=(), pinned=True, say=print):
    """Races `entries`, commands by name: every round runs each of them once, and counts only if nothing else ran than
    the processes `beside`. If they aren't pinned, servers and load share all CPUs."""
    server_cpu, load_cpu = (machine.SERVER_CPU, machine.LOAD_CPU) if pinned else (machine.EVERY_CPU,) * 2
    load = Load(request, connections, load_cpu)
    kept, left_out = [], 0
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(command, request, cpu=server_cpu)) for name, command in entries.items()
        }
        for server in servers.values():
            load.race(server.url, warm)
        while len(kept) < rounds and left_out <= 2 * rounds:
            one, disturbed = {}, []
            # Whoever begins this round ends the next one: what drifts meets all of them.
            names = list(servers) if (len(kept) + left_out) % 2 == 0 else list(reversed(servers))
            for name in names:
                server = servers[name]
                with machine.Attention([server.pid, *beside]) as attention:
                    cpu = server.cpu()
                    result = load.race(server.url, seconds)
                    cpu = server.cpu() - cpu
                one[name] = {
                    # What a ramp used belongs to no request that counts.
                    **({} if "ramp" in result else {"cpu": cpu / result["requests"] * 1e6}),
                    "rate": result["requests"] / result["seconds"],
                    **{key: result[key] for key in ("p50", "p99", "p999", "share", "late") if key in result},
                }
                # A load that says so itself was without its CPU for this part of the time.
                disturbed.append(max(attention.others, result.get("paused", 0)))
            if max(disturbed) > machine.TOLERATED:
                left_out += 1
                say(f"    left out: others used {max(disturbed):.0%} of a CPU")
            else:
                kept.append(one)
        memory = {name: server.memory() for name, server in servers.items()}
    if not kept:
        raise SystemExit("something else ran in every round: no figure is worth keeping")
    figures = {
        name: {
            "memory": memory[name],
            **{what: spread(one[name][what] for one in kept) for what in kept[0][name]},
        }
        for name in entries
    }
    return {"rounds": kept, "left_out": left_out, "figures": figures}
