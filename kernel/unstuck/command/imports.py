"""Make what a command has to import quick to import."""

from __future__ import annotations

import sys
from typing import Any


def skip_grammar_of_iris() -> None:
    """Keep nbformat from compiling a grammar that no notebook needs.

    Where jsonschema is installed with all its formats, as JupyterLab has it, importing nbformat
    imports rfc3987_syntax, which compiles the grammar of internationalised URLs for three seconds
    (measured). jsonschema does without when the import fails, and this process checks no such URL.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("rfc3987_syntax", None)
