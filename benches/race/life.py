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
