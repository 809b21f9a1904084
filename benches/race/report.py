"""What the figures say: a table of targets, a table of figures, plots."""


import plot

KINDS = {
    "cpu": "CPU per request (us)",
    "cpu_mib": "CPU per MiB (us)",
    "rate": "requests/s",
    "p50": "p50 (us)",
    "p99": "p99 (us)",
    "p999": "p99.9 (us)",
    "late": "sent late, p99 (us)",
    "memory": "peak memory (MiB)",
    "first_answer": "first answer (ms)",
    "first_next": "first `next` (ms)",
}
# Of a server that nobody asks.
IDLE = {
    "pss": "memory (PSS, MiB)",
    "threads": "threads",
    "wakeups": "wake-ups a second",
    "idle_cpu": "CPU per second (us)",
}


def number(value):
    """Three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def spread(value, unit=""):
    """Median, and quartiles if they differ from it."""
    if not isinstance(value, dict):
        return number(value) + unit
    median, low, high = (number(value[key]) for key in ("median", "low", "high"))
    return f"{median}{unit}" + (f" ({low} to {high})" if low != high else "")


def verdict(result):
    """Whether a target is met: clearly, or only by the median; nothing where there is none."""
    if result["target"] is None:
        return ""
    value, target = result["value"], result["target"]
    sign = -1 if result["more"] else 1
    worst = value["low"] if result["more"] else value["high"]
    best = value["high"] if result["more"] else value["low"]
    if sign * worst <= sign * target:
        return "met"
    if sign * best > sign * target:
        return "missed"
    return "met by the median" if sign * value["median"] <= sign * target else "missed by the median"


def unit(result):
    """The unit after a number; ratios have none."""
    return "" if result["unit"] in ("x", "") else " " + result["unit"]


def target(result):
    """What a figure must reach, if anything."""
    sign = ">=" if result["more"] else "<="
    return "" if result["target"] is None else f"{sign} {result['target']}{unit(result)}"


def lines(row):
    """What a row found, for a terminal."""
    for one in row["results"]:
        told = f"{one['what']}: {spread(one['value'], unit(one))}"
        yield told if one["target"] is None else f"{told}, {target(one)}: {verdict(one)}"
    yield from row.get("text", "").splitlines()
    for name, counts in row.get("counted", {}).items():
        for who, of in counts.items():
            yield f"{name}, {who}: " + ", ".join(f"{key} {number(value)}" for key, value in of.items())


def table(head, rows):
    """A table of Markdown."""
    rule = ["---"] * len(head)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [head, rule, *rows])


def targets(rows):
    """The table of targets."""
    body = []
    for name, row in rows.items():
        for one in row["results"]:
            kept = str(len(row["rounds"])) if "rounds" in row else ""
            left_out = str(row.get("left_out", ""))
            value = spread(one["value"], unit(one))
            body.append([one["what"], target(one), value, verdict(one), kept, left_out, f"`{name}`"])
    return table(["what", "target", "median (quartiles)", "", "rounds", "left out", "row"], body)


def figures(rows, kinds):
    """The table of such figures, without servers that have none of them."""
    body = []
    for name, row in rows.items():
        for who, of in row.get("figures", {}).items():
            if any(kind in of for kind in kinds):
                body.append([f"`{name}`", who, *(spread(of[kind]) if kind in of else "" for kind in kinds)])
    return table(["row", "server", *kinds.values()], body)


def counted(rows):
    """The table of counts."""
    body = []
    for name, counts in rows.get("count", {}).get("counted", {}).items():
        for who, of in counts.items():
            body.append([f"`{name}`", who, *(number(of[key]) for key in ("instructions", "without_zeroing"))])
            body[-1].append(f"{of['system_calls']:.2f}")
    return table(["lambda", "server", "instructions", "without zeroing", "system calls"], body)


def circumstances(rows):
    """When, at which commit, on what, and how busy it had been."""
    body = [[f"`{n}`", r["date"], r["commit"], f"{r['load']:.2f}", r["machine"]] for n, r in rows.items()]
    return table(["row", "date (UTC)", "commit", "load average before", "machine"], body)


def write(rows, directory):
    """Writes the tables and the plots."""
    (directory / "README.md").write_text(
        "# Results\n\nWritten by `scripts/bench`; [how they are measured](../README.md).\n\n"
        f"## Targets\n\n{targets(rows)}\n![ratios](ratios.svg)\n\n"
        f"## Figures\n\nMedians, with quartiles.\n\n{figures(rows, KINDS)}\n"
        "![CPU per request](cpu.svg)\n\n![latency](latency.svg)\n\n"
        f"## Servers that nobody asks\n\n{figures(rows, IDLE)}\n"
        f"## Counts per request\n\n{counted(rows)}\n"
        f"## Crossing into a lambda and back\n\n```text\n{rows.get('boundary', {}).get('text', '')}\n```\n\n"
        f"## Circumstances\n\n{circumstances(rows)}"
    )
    ratios = [
        (one["what"].replace("`", ""), one["value"], one["target"])
        for row in rows.values()
        for one in row["results"]
        if one["unit"] == "x" and not one["more"] and one["target"] is not None
    ]
    (directory / "ratios.svg").write_text(plot.ratios("Ratios: further left is better; the mark is the target", ratios))
    races = {name: rows[name]["figures"] for name in ("hello", "json", "echo-256", "sleep-10") if name in rows}
    cpu = {name: {who: of["cpu"] for who, of in servers.items()} for name, servers in races.items()}
    (directory / "cpu.svg").write_text(plot.bars("CPU per request, microseconds", cpu))
    hello = rows.get("hello", {}).get("figures", {})
    latency = {KINDS[kind]: {who: of[kind] for who, of in hello.items()} for kind in ("p50", "p99", "p999")}
    if hello:
        (directory / "latency.svg").write_text(plot.bars("hello, 32 connections: latency", latency))
