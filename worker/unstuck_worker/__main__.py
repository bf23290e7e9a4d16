"""Run cells: ``python -P -m unstuck_worker MAIN THREAD OUTPUT SYNC BROKER STACK TRAY [TEMPLATE]``.

The arguments are descriptors: of the lanes, of the page shared with the broker (-1: none), of the
pipe for stacks, of the tray (-1: none), and of the socket on which a template of this process gets
its orders. BROKER is a process id.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING

from unstuck import heap
from unstuck.codec import Decoder
from unstuck.errors import WireError
from unstuck.protocol import Failed, Start, ToWorker
from unstuck_worker import process
from unstuck_worker.farewell import Farewell
from unstuck_worker.lane import OutputLane
from unstuck_worker.pipes import Pipes
from unstuck_worker.template import is_wanted, leave_template

if TYPE_CHECKING:
    from unstuck_worker.interpreter import Interpreter

READ_BYTES = 1 << 18
_NEEDED = (
    "unstuck_worker.app",
    "unstuck_worker.interpreter",
    "unstuck.caller",
    # What IPython imports while it builds a shell: a fork of the template has it already.
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.crashhandler",
    "IPython.core.magics",
    "IPython.core.oinspect",
    "IPython.core.shellapp",
    "IPython.extensions.storemagic",
    "IPython.terminal.pt_inputhooks",
    "IPython.utils.contexts",
    "IPython.utils.generics",
    "IPython.utils.wildcard",
    # What the first cell imports.
    "IPython.core.logger",
    "bdb",
    "unstuck.asyncio_host",
    "unstuck.bell",
)
_NEEDED_ON_LINUX = ("unstuck_worker.snapshots.keeper", "unstuck_worker.snapshots.site")


def main(arguments: list[int]) -> None:
    """Run the worker until its broker stops it or is gone."""
    main_lane, thread_lane, output_lane, sync_page, broker, stacks, tray, *template = arguments
    # The first to be registered is the last to be called.
    farewell = Farewell()
    atexit.register(farewell)
    # An interrupt during the start has nothing to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # Until all is there: a collection finds nothing.
    problem = _import_all()
    process.die_with_parent(broker)
    process.buffer_c_lines()
    process.show_stacks(stacks)
    descriptors = [main_lane, thread_lane, output_lane]
    main_sock, thread_sock, output_sock = [socket.socket(fileno=lane) for lane in descriptors]
    pipes = Pipes()
    lane = OutputLane(output_sock, pipes)
    pipes.watch(sync_page)
    farewell.lane = lane
    decoder: Decoder[ToWorker] = Decoder(ToWorker)
    try:
        if problem is not None:
            raise problem
        start, early = _read_start(main_sock, decoder)
        # They were imported, or have failed to be.
        from unstuck_worker.app import App  # noqa: PLC0415
        from unstuck_worker.interpreter import Interpreter  # noqa: PLC0415

        interpreter = Interpreter(start, lane)
        if template and _leave_template(interpreter, template[0], broker):
            process.show_stacks(stacks)
            pipes.watch(sync_page)
            start, early = _read_start(main_sock, decoder)
        os.register_at_fork(after_in_child=partial(process.leave_stacks, stacks))
        ends = [1, 2, *descriptors, sync_page, stacks, tray]
        process.keep_from_programs(ends[2:])
        app = App(interpreter, start, lane, farewell, main_sock, thread_sock, ends)
    except Exception as error:  # noqa: BLE001  (whatever it is, the broker says it)
        lane.send(Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
        sys.exit(1)
    gc.freeze()
    gc.enable()
    heap.trim()
    app.run(decoder, early)


def _leave_template(interpreter: Interpreter, template_fd: int, broker: int) -> bool:
    """Fork the template, if the broker wants one; True in each worker that is a fork of it."""
    if not is_wanted(template_fd):
        os.close(template_fd)
        return False
    interpreter.warm_up()
    return leave_template(template_fd, broker, interpreter.is_current)


def _import_all() -> Exception | None:
    """Load everything that a cell needs; give what stops it, a broken IPython for one."""
    try:
        for name in (*_NEEDED, *(_NEEDED_ON_LINUX if sys.platform == "linux" else ())):
            importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the broker is told
        return error
    return None


def _read_start(sock: socket.socket, decoder: Decoder[ToWorker]) -> tuple[Start, list[ToWorker]]:
    """Wait for the first message; the broker's start deadline bounds the wait."""
    messages: list[ToWorker] = []
    while not messages or (messages[1:] == [] and getattr(messages[0], "takes_over", False)):
        data = sock.recv(READ_BYTES)
        if not data:
            sys.exit(1)
        messages += decoder.feed(data)
    match messages:
        case [Start() as start, *early]:
            return start, early
        case _:
            raise WireError(f"the first message is {type(messages[0]).__name__}, not Start")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
