"""From the command line to a running broker: connection, sockets, core, loop."""

from __future__ import annotations

import asyncio
import gc
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck_broker.app import App
from unstuck_broker.connection import new_connection, read_connection
from unstuck_broker.core import Core, KernelFacts
from unstuck_broker.registration import register
from unstuck_broker.sockets import Sockets, exchange
from unstuck_broker.wire import Wire

if TYPE_CHECKING:
    from unstuck_broker.options import Options
    from unstuck_broker.process import WorkerProcess
    from unstuck_broker.template import Template


def run(options: Options, worker: WorkerProcess, template: Template) -> int:
    """Bind the sockets and serve until the kernel is shut down.

    Raises:
        ConfigError: the connection file, or an address in it, cannot be used.
    """
    named = options.connection_file
    asked = new_connection() if named is None else read_connection(Path(named))
    session = os.urandom(16).hex()
    wire = Wire(asked.key, asked.signature_scheme, session, _username(), os.getpid())
    sockets = Sockets.bind(asked)
    connection = sockets.connection
    try:
        if connection.created or connection.ports != asked.ports:
            connection.write()
        register(connection, exchange)
        if connection.created:
            sys.stderr.write(f"unstuck: connect with --existing {connection.path}\n")
        ports = {f"{channel}_port": port for channel, port in connection.ports.items()}
        core = Core(options.config, KernelFacts(session, str(connection.path), ports))
        gc.freeze()
        gc.enable()
        app = App(options.config, core, wire, sockets, worker, template, options.launcher_pid)
        asyncio.run(app.serve())
    finally:
        sockets.close()
        connection.remove()
    return 0


def _username() -> str:
    """Name the user for message headers; a user id without a name is a name too."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
