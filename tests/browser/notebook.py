"""One notebook in JupyterLab, as a person uses it: cells, outputs and the kernel's buttons."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from browser.browser import WAIT_S, Browser, BrowserError

if TYPE_CHECKING:
    from pathlib import Path

LOAD_S = 60.0
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
DIALOG_ACCEPT = ".jp-Dialog .jp-mod-accept"


class NotebookPage:
    """The notebook that is open in a browser."""

    def __init__(self, browser: Browser, url: str) -> None:
        """Open the notebook and wait until its kernel is idle."""
        self._browser = browser
        browser.open(url)
        self.wait_until_idle(deadline_s=LOAD_S)

    # --- where things are -------------------------------------------------------------------------

    def cell(self, number: int) -> str:
        """Select the cell with this number, from 0."""
        return f"{PANEL} .jp-Cell >> nth={number}"

    def output(self, number: int) -> str:
        """Select the outputs of a cell."""
        return f"{self.cell(number)} >> .jp-Cell-outputArea"

    def within(self, number: int, selector: str) -> str:
        """Select something in the outputs of a cell."""
        return f"{self.output(number)} >> {selector}"

    # --- what a person does -----------------------------------------------------------------------

    def start(self, number: int) -> None:
        """Run a cell; its outputs are waited for by whoever wants them."""
        self._browser.click(f"{self.cell(number)} >> .jp-InputArea-prompt")
        # Keyboard shortcuts come alive some time after the page; its buttons are there at once.
        self._press_button("run-cell-and-select-next")

    def run(self, number: int) -> str:
        """Run a cell to its end; give the text of its outputs."""
        self.start(number)
        self.wait_until_ended(number)
        return self.text(number)

    def click(self, number: int, selector: str) -> None:
        """Click something in a cell's outputs."""
        self._browser.click(self.within(number, selector))

    def move_slider(self, number: int, key: str) -> None:
        """Move the first slider in a cell's outputs by a key."""
        self._browser.focus(self.within(number, ".noUi-handle"))
        self._browser.press(key)

    def answer(self, number: int, text: str) -> None:
        """Answer the question that a cell asks."""
        self._browser.fill(self.within(number, "input.jp-Stdin-input"), text)
        self._browser.press("Enter")

    def interrupt(self) -> None:
        """Press the toolbar's stop button."""
        self._press_button("interrupt-kernel")

    def restart(self) -> None:
        """Press the toolbar's restart button, confirm, and wait until the kernel is there again."""
        self._press_button("restart-kernel")
        self.accept_dialog()
        self.wait_until_idle(deadline_s=LOAD_S)

    def accept_dialog(self) -> None:
        """Accept what a dialog says."""
        self._browser.click(DIALOG_ACCEPT)
        self._browser.miss(DIALOG_ACCEPT)

    def _press_button(self, command: str) -> None:
        self._browser.click(f'{PANEL} .jp-Toolbar [data-command="notebook:{command}"]')

    # --- what a person sees -----------------------------------------------------------------------

    def text(self, number: int) -> str:
        """Give the text of a cell's outputs now."""
        return "\n".join(self._browser.texts(self.output(number)))

    def prompt(self, number: int) -> str:
        """Give the prompt of a cell: ``[3]:``, ``[*]:`` while it runs."""
        prompts = self._browser.texts(f"{self.cell(number)} >> .jp-InputArea-prompt")
        return prompts[0].strip() if prompts else ""

    def image_width(self, number: int) -> int:
        """Give the width of the first picture in a cell's outputs; 0 when it is broken."""
        return self._browser.image_width(self.within(number, "img"))

    def wait_for_text(self, number: int, text: str, *, deadline_s: float = WAIT_S) -> None:
        """Wait until a cell's outputs have a text."""
        wanted = f"{self.output(number)}:has-text({json.dumps(text)})"
        try:
            self._browser.see(wanted, deadline_s=deadline_s)
        except BrowserError as error:
            raise BrowserError(f"cell {number} shows {self.text(number)!r}") from error

    def wait_until_running(self, number: int) -> None:
        """Wait until a cell has its star."""
        self._wait_for_prompt(number, running=True, deadline_s=WAIT_S)

    def wait_until_ended(self, number: int, *, deadline_s: float = WAIT_S) -> None:
        """Wait until a cell has its number."""
        self._wait_for_prompt(number, running=False, deadline_s=deadline_s)

    def _wait_for_prompt(self, number: int, *, running: bool, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            prompt = self.prompt(number)
            if prompt == "[*]:" if running else prompt.strip("[]: ").isdigit():
                return
            time.sleep(0.05)
        state = "begin" if running else "end"
        raise BrowserError(
            f"cell {number} did not {state}: {self.prompt(number)} {self.text(number)!r}"
        )

    def wait_until_idle(self, *, deadline_s: float = WAIT_S) -> None:
        """Wait until the status bar says that the kernel is there and has nothing to do."""
        # The notebook's own indicator says idle also while there is no kernel to be idle.
        self._browser.see("#jp-main-statusbar >> text=/[|] Idle/", deadline_s=deadline_s)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size in pixels, without the folder's files beside the notebook."""
        self._browser.resize(width, height)
        self._browser.press("Control+b")

    def picture(self, path: Path) -> None:
        """Keep a picture of the page."""
        self._browser.picture(path)
