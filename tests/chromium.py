"""A headless Chromium that is driven by its own protocol (DevTools) over a pipe, with a real mouse and a real keyboard."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {
    "Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " "), "ArrowDown": ("ArrowDown", 40, ""),
}  # fmt: skip
SHIFT = 8


class Browser:
    """The process and its pipe: commands go in at file descriptor 3, answers and events come out at 4."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None, "no Chromium on this machine; type apt-get install chromium"
        inner_in, self._out = self._pipe()
        self._in, inner_out = self._pipe()
        command = f'exec "$@" 3<&{inner_in} 4>&{inner_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(inner_in, inner_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(inner_in)
        os.close(inner_out)
        self._rest, self._number, self.events = b"", 0, list[dict[str, Any]]()

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """A pipe's ends for reading and writing, numbered beyond those that the browser wants."""
        ends = os.pipe()
        high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
        for end in ends:
            os.close(end)
        return high[0], high[1]

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The answer to a command. Events that come before it are kept. Raises AssertionError where it is refused."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._in, 1 << 16)
            assert got, "the browser has gone"
            self._rest += got
        line, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(line))

    def close(self) -> None:
        self.send("Browser.close")
        self.process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """A tab. Its size is that of the window in CSS pixels."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **params)

    def look(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise waited for; it may run whatever the page's policy says."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        while not self.look(f"document.readyState === 'complete' && location.href === {json.dumps(address)}"):
            time.sleep(0.02)

    def emulate(self, medium: str) -> None:
        """Show the page as on a "light" or a "dark" screen, or as it would be printed ("print")."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if medium == "dark" else "light"}
        self.send("Emulation.setEmulatedMedia", media="print" if medium == "print" else "screen", features=[feature])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=False)["data"])

    def click(self, element: str) -> None:
        """Press and release the left button over the middle of what the expression finds, scrolled into view."""
        box = self.look(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', inline: 'center'}});"
            "const b = e.getBoundingClientRect(); const [x, y] = [b.x + b.width / 2, b.y + b.height / 2];"
            "const top = document.elementFromPoint(x, y); return [x, y, top === e || e.contains(top)]; })()"
        )
        assert box[2], f"{element} is covered, or out of view"
        for kind in "mousePressed", "mouseReleased":
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, modifiers: int = 0) -> None:
        code, number, text = KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        for letter in text:
            for kind in "keyDown", "keyUp":
                self.send(
                    "Input.dispatchKeyEvent", type=kind, key=letter, **({"text": letter} if kind == "keyDown" else {})
                )

    def tab_to(self, element: str, modifiers: int = 0) -> None:
        """Tab until the focus is where the expression points, as a reader without a mouse does."""
        stops = self.look("document.querySelectorAll('a, button, input, select, summary, [tabindex]').length") + 1
        for _ in range(stops):
            if self.look(f"document.activeElement === {element}"):
                return
            self.press("Tab", modifiers)
        raise AssertionError(f"the Tab key does not come to {element}")

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What the browser has told of this tab so far, by the protocol's names."""
        self.look("1")
        found = (e for e in self.browser.events if e.get("sessionId") == self.session)
        return [event["params"] for event in found if event["method"] in methods]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings on the console, exceptions, and what the policy refused."""
        logged = [
            e["entry"]["text"] for e in self.events("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")
        ]
        said = [str(e["args"]) for e in self.events("Runtime.consoleAPICalled")]
        return [*logged, *said, *(str(e["exceptionDetails"]) for e in self.events("Runtime.exceptionThrown"))]

    @property
    def requests(self) -> list[str]:
        """Every address that was asked for, but for those that hold their own data."""
        asked = (e["request"]["url"] for e in self.events("Network.requestWillBeSent"))
        return [address for address in asked if not address.startswith(("data:", "blob:"))]


@contextmanager
def tab(browser: Browser, address: str, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A fresh tab of so many CSS pixels with the page open, its console and its requests listened to."""
    target = browser.send("Target.createTarget", url="about:blank")["targetId"]
    page = Page(browser, browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
    for domain in "Page", "Runtime", "Log", "Network":
        page.send(f"{domain}.enable")
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.send("Emulation.setFocusEmulationEnabled", enabled=True)
    page.open(address)
    yield page
    browser.send("Target.closeTarget", targetId=target)
