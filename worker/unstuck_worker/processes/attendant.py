"""The thread that stands for a ``##process`` cell in this process, from its start to its reply.

Threads: `attend` is a thread of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.jobcontext import current_job
from unstuck_worker.execute import describe_error
from unstuck_worker.processes.errand import Errand

if TYPE_CHECKING:
    from unstuck.jobcontext import JobContext
    from unstuck_worker.runner import Runner


def attend(runner: Runner, context: JobContext) -> None:
    """Run the cell elsewhere and send its end; never raises."""
    current_job.set(context)
    running = runner.interrupts.start(context)
    try:
        errand = Errand(runner.shell, context, runner.session)
        running.cancel = errand.interrupt
        reply = errand.run()
    except BaseException as error:  # noqa: BLE001  (the end of a job, whatever ended it)
        reply = describe_error(error)
    runner.end(running, reply)
