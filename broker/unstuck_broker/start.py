"""From the command line to a running broker: connection, sockets, core, loop.

The sockets are bound before the core and the loop are imported: a client that finds nobody tries
again only 100 ms later, so it has to find the sockets early.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from unstuck_broker.connection import new_connection, read_connection
from unstuck_broker.sockets import Sockets, exchange

if TYPE_CHECKING:
    from unstuck_broker.options import Options
    from unstuck_broker.process import WorkerProcess
    from unstuck_broker.template import Template

_LAUNCH_S = 1.0
"""More than passes between our launch and this module: no request for us is older."""


def run(options: Options, worker: WorkerProcess, template: Template) -> int:
    """Bind the sockets and serve until the kernel is shut down.

    Raises:
        ConfigError: the connection file, or an address in it, cannot be used.
    """
    named = options.connection_file
    asked = new_connection() if named is None else read_connection(named)
    sockets = Sockets.bind(asked)
    connection = sockets.connection
    try:
        if connection.created or connection.ports != asked.ports:
            connection.write()
        if connection.created:
            sys.stderr.write(f"unstuck: connect with --existing {connection.file}\n")
        _serve(options, sockets, worker, template)
    finally:
        sockets.close()
        connection.remove()
    return 0


def _serve(options: Options, sockets: Sockets, worker: WorkerProcess, template: Template) -> None:
    """Load the rest, and serve."""
    # asyncio does without ssl where there is none. It would cost the broker 13 ms and 1.3 MB, and
    # the broker speaks no TLS.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    import asyncio  # noqa: PLC0415 - after the sockets were bound

    del sys.modules["ssl"]
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    from unstuck_broker.app import App  # noqa: PLC0415
    from unstuck_broker.core import Core, KernelFacts  # noqa: PLC0415
    from unstuck_broker.registration import register  # noqa: PLC0415
    from unstuck_broker.wire import Wire  # noqa: PLC0415

    connection = sockets.connection
    register(connection, exchange)
    session = os.urandom(16).hex()
    key, scheme = connection.key, connection.signature_scheme
    wire = Wire(key, scheme, session, _username(), os.getpid())
    ports = {f"{channel}_port": port for channel, port in connection.ports.items()}
    copies_address = os.urandom(16).hex() if sys.platform == "linux" else ""
    started = datetime.now(UTC) - timedelta(seconds=_LAUNCH_S)
    facts = KernelFacts(session, connection.file, ports, copies_address, started.isoformat())
    core = Core(options.config, facts)
    gc.freeze()
    gc.enable()
    app = App(options.config, core, wire, sockets, worker, template, options.launcher_pid)
    asyncio.run(app.serve())


def _username() -> str:
    """Name the user for message headers; a user id without a name is a name too."""
    import getpass  # noqa: PLC0415 - as above

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
