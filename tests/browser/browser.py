"""A page in headless Chromium, driven through a node process by playwright-core.

Threads: one; an order is answered before the next is given.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("driver.mjs")
PLAYWRIGHT = ROOT / ".ci" / "node_modules" / "playwright-core" / "index.js"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

WAIT_S = 30.0
"""How long a fact on the page may take; far beyond what an idle machine needs."""
CLOSE_S = 10.0
ANSWER_SLACK_S = 10.0
"""The driver gives up by its own deadline; this much later it is taken for dead."""


def missing_parts() -> list[str]:
    """List what a browser test needs and this machine lacks."""
    missing: list[str] = []
    if find_chromium() is None:
        missing.append("Chromium")
    if shutil.which("node") is None:
        missing.append("node")
    if not PLAYWRIGHT.exists():
        missing.append("playwright-core (npm install --prefix .ci --no-save playwright-core)")
    return missing


def find_chromium() -> str | None:
    """Find the browser's executable."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


class BrowserError(AssertionError):
    """The page did not do what it was asked to in time."""


class Browser:
    """One page of one Chromium with an empty profile."""

    def __init__(self, folder: Path) -> None:
        """Start Chromium; its profile and its log go into ``folder``."""
        chromium = find_chromium()
        assert chromium is not None
        self._log = folder / "browser.log"
        with self._log.open("wb") as log:
            self._node = subprocess.Popen(
                ["node", str(DRIVER), str(PLAYWRIGHT), chromium, str(folder / "profile")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HOME": str(folder)},
            )
        self._pending = b""
        self._family: set[psutil.Process] = {psutil.Process(self._node.pid)}
        try:
            self._answer(WAIT_S * 2)
            self._note_family()
        except BaseException:
            self.close()
            raise

    def open(self, url: str) -> None:
        """Load an address."""
        self._order("open", url=url)

    def click(self, selector: str) -> None:
        """Click the first element that matches, once it is there."""
        self._order("click", selector=selector)

    def focus(self, selector: str) -> None:
        """Give the keyboard to an element."""
        self._order("focus", selector=selector)

    def fill(self, selector: str, text: str) -> None:
        """Write text into an input field."""
        self._order("fill", selector=selector, text=text)

    def press(self, keys: str) -> None:
        """Press keys, as in ``Control+Enter``."""
        self._order("press", keys=keys)

    def see(self, selector: str, *, deadline_s: float = WAIT_S) -> None:
        """Wait until an element is visible."""
        self._order("see", deadline_s, selector=selector)

    def miss(self, selector: str, *, deadline_s: float = WAIT_S) -> None:
        """Wait until no such element is visible."""
        self._order("miss", deadline_s, selector=selector)

    def texts(self, selector: str) -> list[str]:
        """Give the text of every element that matches now."""
        texts = self._order("texts", selector=selector)
        assert isinstance(texts, list)
        return texts

    def image_width(self, selector: str) -> int:
        """Give the width of an image in its own pixels; 0 is an image that is broken."""
        width = self._order("width", selector=selector)
        assert isinstance(width, int)
        return width

    def resize(self, width: int, height: int) -> None:
        """Give the window another size in pixels."""
        self._order("resize", width=width, height=height)

    def picture(self, path: Path) -> None:
        """Keep a picture of what is visible."""
        self._order("picture", path=str(path))

    def close(self) -> None:
        """End Chromium and the driver, and see that all their processes are gone."""
        self._note_family()
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.close()
        _, left = psutil.wait_procs(list(self._family), timeout=CLOSE_S)
        for process in left:
            process.kill()
        self._node.stdout.close()
        self._node.wait(CLOSE_S)
        assert not left, f"the browser left processes: {left}"

    def _note_family(self) -> None:
        """Remember all processes below ours: a parent's end would hide its children."""
        try:
            self._family.update(psutil.Process(self._node.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def _order(
        self,
        order: str,
        deadline_s: float = WAIT_S,
        **fields: str | int,
    ) -> list[str] | int | None:
        """Give one order and wait for its answer."""
        line = json.dumps({"do": order, "timeout": int(deadline_s * 1000), **fields})
        assert self._node.stdin is not None
        self._node.stdin.write(line.encode() + b"\n")
        self._node.stdin.flush()
        answer = self._answer(deadline_s + ANSWER_SLACK_S)
        if "error" in answer:
            raise BrowserError(f"{order} {fields}: {answer['error']}")
        value: list[str] | int | None = answer["value"]
        return value

    def _answer(self, deadline_s: float) -> dict[str, Any]:
        """Read one line of the driver."""
        end = time.monotonic() + deadline_s
        assert self._node.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._node.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                ready = selector.select(max(0.0, end - time.monotonic()))
                chunk = os.read(self._node.stdout.fileno(), 1 << 16) if ready else b""
                if not chunk:
                    reason = "ended" if ready else f"gave no answer in {deadline_s} s"
                    raise BrowserError(f"the browser {reason}: {self._log.read_text()[-4000:]}")
                self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer
