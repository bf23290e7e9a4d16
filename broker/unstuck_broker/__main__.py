"""Start a kernel: ``python -P -m unstuck_broker -f CONNECTION_FILE [--set NAME=VALUE ...]``.

The worker is started as soon as what both need is imported: then they load side by side.
"""

from __future__ import annotations

import gc
import os
import sys

from unstuck_broker.process import kill_all
from unstuck_broker.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unstuck_broker.process import WorkerProcess

USAGE = "usage: python -P -m unstuck_broker [-f CONNECTION_FILE] [--set NAME=VALUE ...]"


def main(arguments: list[str]) -> int:
    """Run a kernel until it is shut down; give the exit code, 2 for bad settings or files."""
    parent = os.getppid()  # Now: a launcher that dies while we start has gone unseen.
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(USAGE + "\n")
        return 0
    if sys.platform == "win32":
        sys.stderr.write("unstuck: Windows is not supported yet\n")
        return 2
    gc.disable()  # Until all is imported: a collection finds nothing there.
    template = Template()
    worker = template.first_worker()
    from unstuck.errors import ConfigError  # noqa: PLC0415 - after the worker was started

    try:
        return _run(arguments, parent, worker, template)
    except ConfigError as error:
        kill_all({worker.pid})
        template.end()
        sys.stderr.write(f"unstuck: {error}\n")
        return 2


def _run(arguments: list[str], parent: int, worker: WorkerProcess, template: Template) -> int:
    from unstuck_broker.options import parse  # noqa: PLC0415 - after the worker was started

    options = parse(arguments, os.environ, parent)
    from unstuck_broker.start import run  # noqa: PLC0415

    return run(options, worker, template)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
