"""Tell plain Python from IPython's syntax, fast: most cells need none of IPython's transformations.

IPython tokenises each cell several times to find magics, which takes a fifth of the time of a small
cell. What passes here would come out of its transformations as it went in.
"""

from __future__ import annotations

import builtins
import re
from typing import TYPE_CHECKING, Any

from IPython.core.autocall import IPyAutocall
from IPython.core.macro import Macro

if TYPE_CHECKING:
    from unstuck_worker.shell import UnstuckShell

_SPECIAL = re.compile(
    r"""\A\s | \A(?:In\ \[|>>>|\.\.\.)     # indented, or pasted with a prompt
      | ^[ \t]*[%!?,;/]                    # escapes at the start of a line
      | =\s*[%!]                           # their results assigned
      | [?\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]  # help; what splitlines() takes for a line's end
    """,
    re.VERBOSE | re.MULTILINE,
)
_WORD = re.compile(r"[^\W\d]\w*")


class PlainCode:
    """Knows what the transformations of a fresh shell are, and whether they are still those."""

    def __init__(self, shell: UnstuckShell) -> None:
        """Remember the transformers of ``shell``."""
        self._shell = shell
        self._transformers = self._list()

    def is_plain(self, code: str) -> bool:
        """Tell whether IPython would leave ``code`` as it is, but for a newline at its end."""
        if not code or _SPECIAL.search(code) or self._list() != self._transformers:
            return False
        return "\n" in code.rstrip("\n") or self._is_plain_line(code)

    def _list(self) -> list[object]:
        """List all transformers; equal lists hold the same objects."""
        manager = self._shell.input_transformer_manager
        prefilter: Any = self._shell.prefilter_manager
        return [
            *manager.cleanup_transforms,
            *manager.line_transforms,
            *manager.token_transformers,
            *self._shell.input_transformers_post,
            *prefilter._transformers,  # noqa: SLF001 - its property copies and sorts
            *prefilter._checkers,  # noqa: SLF001
        ]

    def _is_plain_line(self, line: str) -> bool:
        """Tell whether a single line is no magic without its sign, no macro and no autocall."""
        shell = self._shell
        if shell.autocall:
            return False
        match = _WORD.match(line)
        if match is None:
            return True
        word = match[0]
        magics: Any = shell
        if magics.find_magic(word) is not None:
            return False
        value = shell.user_ns.get(word, getattr(builtins, word, None))
        return not isinstance(value, IPyAutocall | Macro)
