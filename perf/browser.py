"""A page in headless Chromium, driven over its DevTools protocol: what a person sees, for tests and measurements."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it may be root that runs it, and the only page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",  # a mouse
    "--remote-debugging-port=0",
)
LISTENS = re.compile(r"DevTools listening on (ws://\S+)")


def chromium() -> str | None:
    """Return the path of Chromium; None where there is none on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Tab:
    """One tab. ``errors`` are what its console said in red, ``requests`` the addresses that it asked for."""

    connection: Connection
    session: str | None = None
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _events: list[dict[str, Any]] = field(default_factory=list)

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Send one command and return its result. Raises `RuntimeError` for what Chromium refuses, `TimeoutError` after 60 s."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": values}
        self.connection.send(json.dumps(command | ({"sessionId": self.session} if self.session else {})))
        while (told := self._receive()).get("id") != number:
            pass
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    def run(self, script: str) -> Any:
        """Return the value of an expression, or what its promise is kept with. Raises `RuntimeError` for an exception."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{script}: {_thrown(told['exceptionDetails'])}")
        return told["result"].get("value")

    def open(self, address: str) -> None:
        """Go to an address and wait until it has loaded."""
        self._events.clear()
        self.send("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()

    def until(self, condition: str, seconds: float = 20.0) -> None:
        """Wait, frame by frame, for an expression to be true. Raises `RuntimeError`, naming it, after ``seconds``."""
        self.run(
            "new Promise((done, fail) => { const begun = performance.now(); const look = () => {"
            f" if ({condition}) done();"
            f" else if (performance.now() - begun > {1000.0 * seconds}) fail(new Error('not so after {seconds} s'));"
            " else requestAnimationFrame(look); }; look(); })"
        )

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def key(self, key: str) -> None:
        """Press and let go of a key, as `KeyboardEvent.key` names it."""
        typed = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, script: str) -> None:
        """Click with the mouse in the middle of the element that ``script`` finds, once that is in view."""
        place = self.run(
            f"(() => {{ const found = {script}; found.scrollIntoView({{block: 'center'}});"
            " const box = found.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def picture(self, path: Path, script: str | None = None) -> None:
        """Write a PNG of what is in view, or of the element that ``script`` finds."""
        clip = {}
        if script is not None:
            box = self.run(
                f"(() => {{ const box = {script}.getBoundingClientRect(); return {{x: box.x + scrollX, y: box.y + scrollY,"
                " width: box.width, height: box.height, scale: 1}; })()"
            )
            clip = {"clip": box, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **clip)["data"]))

    def _receive(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.connection.recv(timeout=60))
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(_thrown(told["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["params"]["type"] in ("error", "assert"):
                self.errors.append(str([each.get("value") for each in told["params"]["args"]]))
            case "Log.entryAdded" if told["params"]["entry"]["level"] == "error":
                self.errors.append(told["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
        if "method" in told:
            self._events.append(told)
        return told


def _thrown(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


@contextmanager
def tab(width: int = 1400, height: int = 1000) -> Iterator[Tab]:
    """Start Chromium with an empty profile and one tab of so many pixels; it has ended on leaving.

    Raises `FileNotFoundError` without Chromium and `RuntimeError` where it does not start.
    """
    program = chromium()
    if program is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is on PATH")
    with tempfile.TemporaryDirectory(prefix="sy-", ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                with connect(_address(process), max_size=None, proxy=None) as connection:
                    yield _attached(connection, width, height)
            finally:
                process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    said = ""
    for line in process.stderr or ():
        if found := LISTENS.search(line):
            return found[1]
        said += line
    raise RuntimeError(f"Chromium did not start: {said.strip()}")


def _attached(connection: Connection, width: int, height: int) -> Tab:
    made = Tab(connection)
    target = made.send("Target.createTarget", url="about:blank")["targetId"]
    made.session = made.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        made.send(f"{domain}.enable")
    made.send("Emulation.setFocusEmulationEnabled", enabled=True)
    made.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    return made
