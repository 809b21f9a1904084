"""Races the loader against its controls: `scripts/bench [ROW]...`; what comes out is in benches/results."""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

import life
import machine
import report
from rows import ROWS
from server import ROOT

RESULTS = ROOT / "benches" / "results"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = ", ".join(ROWS)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {names}; all, if none is named")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--seconds", type=int, default=1, help="length of each run of a round (1)")
    parser.add_argument("--effes", type=int, default=1000, help="idle servers of each kind, for `idle` (1000)")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="directory (benches/results)")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {names}")
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    failed = []
    for name in options.rows or ROWS:
        print(f"{name}: {ROWS[name].__doc__.strip()}", file=sys.stderr)
        circumstances = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%F %H:%M"),
            "commit": commit(),
            "machine": machine.describe(),
            "load": machine.load_average(),
        }
        try:
            known[name] = circumstances | ROWS[name](options)
        except SystemExit as failure:
            print(f"    no figure: {failure}", file=sys.stderr)
            failed.append(name)
            continue
        for line in report.lines(known[name]):
            print(f"    {line}", file=sys.stderr)
        # After each row: an interrupted run loses none that is done.
        path.write_text(json.dumps({name: known[name] for name in ROWS if name in known}, indent=1) + "\n")
        written = json.loads(path.read_text())
        report.write(written, options.results)
    return f"no new figures for {', '.join(failed)}" if failed else None


def commit():
    def git(*args):
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True).stdout.strip()

    changed = "+" if git("status", "--porcelain", "--", "effe-abi", "effe-loader", "examples", "Cargo.lock") else ""
    return git("rev-parse", "--short=10", "HEAD") + changed


sys.exit(main())
