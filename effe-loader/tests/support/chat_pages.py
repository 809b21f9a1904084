"""Two pages of the example chat in Chromium, by chromedriver: chat_pages.py URL DIRECTORY.

Each hears what the other one says, and sees the effe's socket open. Its last line says how many messages there were.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

URL, DIRECTORY = sys.argv[1:]
MESSAGES = 20
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage""".split()
# The name that the protocol of WebDriver has for an element.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise SystemExit(f"it never came to this: {what}")


class Driver:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def is_ready(self):
        try:
            return self.ask("GET", "/status")["ready"]
        except urllib.error.URLError:
            return False

    def begin(self):
        options = {"args": [*FLAGS, f"--user-data-dir={DIRECTORY}"]}
        always = {"browserName": "chrome", "goog:chromeOptions": options}
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self.base += f"/session/{session['sessionId']}"

    def text(self, selector):
        found = self.ask("POST", "/elements", {"using": "css selector", "value": selector})
        return [self.ask("GET", f"/element/{element[ELEMENT]}/text") for element in found]

    def say(self, text):
        element = self.ask("POST", "/element", {"using": "css selector", "value": "form input"})
        # The last key is Enter.
        self.ask("POST", f"/element/{element[ELEMENT]}/value", {"text": text + "\ue007"})


port = free_port()
process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
try:
    driver = Driver(port)
    until("chromedriver is ready", driver.is_ready)
    driver.begin()
    windows = [driver.ask("GET", "/window"), driver.ask("POST", "/window/new", {"type": "window"})["handle"]]

    def at(window):
        driver.ask("POST", "/window", {"handle": window})

    for window in windows:
        at(window)
        driver.ask("POST", "/url", {"url": URL})
        until("the page is connected", lambda: driver.text("#state") == ["connected"])
    said = []
    for n in range(MESSAGES):
        at(windows[n % 2])
        driver.say(f"message {n}")
        said.append(f"somebody: message {n}")
        for window in windows:
            at(window)
            until(f"both have heard {said[-1]}", lambda: driver.text("#said li") == said)
    print(f"{MESSAGES} messages between two pages of the chat, each heard by both")
    driver.ask("DELETE", "")
finally:
    process.terminate()
    process.wait()
