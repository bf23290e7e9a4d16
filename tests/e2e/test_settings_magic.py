"""``%unstuck`` in a kernel that was started with settings: it shows what holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from e2e.spec import ours
from unstuck.config import Config

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel

pytestmark = ours

SETTINGS = ("interrupt_grace_s=7", "stream_bytes=4096", "jedi=false")
GIVEN = {"interrupt_grace_s": "7.0", "stream_bytes": "4096", "jedi": "False"}


def _shown(kernel: Kernel) -> dict[str, tuple[str, bool]]:
    """Read the table: each setting's value, and whether it has its star."""
    rows = re.findall(r"^(\w+) +(\S+)( \*)?  ", kernel.run_ok("%unstuck").stdout, re.MULTILINE)
    return {name: (value, bool(star)) for name, value, star in rows}


def test_all_settings_are_shown_with_the_values_that_hold(kernel: Kernel) -> None:
    plain = {name: str(value) for name, value in msgspec.structs.asdict(Config()).items()}
    expected = {name: (value, False) for name, value in plain.items()}
    expected |= {name: (value, True) for name, value in GIVEN.items()}
    for name in ("ipython_arguments", "autosave_file", "restore_file"):
        expected[name] = ("(none)", False)
    assert _shown(kernel) == expected


def test_what_was_set_is_shown_after_a_restart_too(kernel: Kernel) -> None:
    kernel.run_ok("%unstuck interrupt_policy never")
    kernel.run_ok("%unstuck profile default")
    assert _shown(kernel)["interrupt_policy"] == ("never", True)
    kernel.run_ok("here = True")
    kernel.run_ok("%restart")
    assert kernel.evaluate("'here' in globals()") == "False"
    assert _shown(kernel)["interrupt_policy"] == ("never", True)
    kernel.run_ok("%unstuck interrupt_policy auto")


def test_what_is_read_once_cannot_be_set_and_says_where_it_can(kernel: Kernel) -> None:
    result = kernel.run("%unstuck stream_bytes 9000")
    assert result.stdout == ""
    said = result.stderr + str(result.content)
    assert "stream_bytes is read once, when the kernel starts, and stays 4096" in said
    assert "unstuck install --set stream_bytes=9000" in said
    assert _shown(kernel)["stream_bytes"] == ("4096", True)
