"""What user code and libraries find at ``get_ipython().kernel``.

Threads: any. Nothing here runs the kernel: requests come from the broker, and each attribute is
either a fact about it or a way to send it a message.
"""

from __future__ import annotations

import builtins
import getpass
import logging
import sys
import uuid
from typing import TYPE_CHECKING, Any

from unstuck import __version__, kernel_protocol_version, runmode
from unstuck.jobcontext import JobContext, get_context
from unstuck.protocol import SetConcurrencyMode
from unstuck.typing import NO_VALUE, KernelConcurrencyMode, MsgType, NoValue, RunMode, SocketID
from unstuck_worker import comms
from unstuck_worker.asking import Asking
from unstuck_worker.session import Channel, KernelSession
from unstuck_worker.snapshotname import NO_SNAPSHOTS, as_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.protocol import ControlParent, ToBroker
    from unstuck.typing import Content, Job
    from unstuck_worker.comms import Publish
    from unstuck_worker.snapshots.keeper import Snapshots

HELP_LINKS = (
    ("Python Reference", "https://docs.python.org/{}.{}".format(*sys.version_info[:2])),
    ("IPython Reference", "https://ipython.readthedocs.io/en/stable/"),
    ("NumPy Reference", "https://docs.scipy.org/doc/numpy/reference/"),
    ("SciPy Reference", "https://docs.scipy.org/doc/scipy/reference/"),
    ("Matplotlib Reference", "https://matplotlib.org/contents.html"),
    ("SymPy Reference", "https://docs.sympy.org/latest/index.html"),
    ("pandas Reference", "https://pandas.pydata.org/pandas-docs/stable/"),
)


class UnstuckKernel:
    """The kernel, as a cell sees it."""

    implementation = "unstuck"
    implementation_version = __version__
    protocol_version = kernel_protocol_version
    language_info: Mapping[str, Any] = {
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }

    def __init__(
        self,
        shell: InteractiveShell,
        publish: Publish,
        send: Callable[[ToBroker], None],
        *,
        session: str = "",
        connection_file: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the kernel that ``shell`` runs in.

        Args:
            shell: the one shell of this process.
            publish: sends a message on iopub, from any thread.
            send: sends a message to the broker, from any thread.
            session: the kernel's session id.
            connection_file: its path.
            settings: the settings that this worker was started with, by name.
        """
        self.shell = shell
        self.publish = publish
        self.send_to_broker = send
        self.comm_manager = comms.install(publish)
        self.session = KernelSession(session, publish)
        self.connection_file = connection_file
        self.settings: dict[str, Any] = dict(settings or {})
        self.list_subshells: Callable[[], Iterable[str]] = tuple
        """Gives the ids of the open subshells."""
        self.asking = Asking(send)
        self.snapshots: Snapshots | None = None
        """Makes the copies of this process; None where there are none."""
        self._control_parent = JobContext.under({})
        """The newest request on control that was answered without us."""
        self.log = logging.getLogger("unstuck")
        self.ident = str(uuid.uuid4())
        self.int_id = -1
        self.help_links = [{"text": text, "url": url} for text, url in HELP_LINKS]
        self.eventloop: object = None
        self._concurrency_mode = KernelConcurrencyMode.default
        self._add_places()

    def _add_places(self) -> None:
        """Add what libraries hand back to the kernel, or look up without using it."""
        self.iopub_socket = self.iopub_thread = Channel("iopub")
        self.shell_stream = self.shell_socket = Channel("shell")
        self.control_stream = Channel("control")
        self.stdin_socket = Channel("stdin")
        self.shell_streams = [self.shell_stream]
        self.shell_handlers: dict[str, Any] = {
            name: getattr(self.comm_manager, name)
            for name in ("comm_open", "comm_msg", "comm_close")
        }
        self.control_handlers: dict[str, Any] = {}
        self.msg_types = [str(kind) for kind in MsgType]
        self.control_msg_types = list(self.msg_types)
        self.debugger = None
        self.parent = None
        self.processes: dict[int, Any] = {}

    def take_snapshot(self, name: str = "") -> None:
        """Keep the variables as they are once the running cell has ended.

        Raises:
            RuntimeError: there are none here.
            TypeError: the name is no string.
        """
        if self.snapshots is None:
            raise RuntimeError(NO_SNAPSHOTS)
        self.snapshots.request(as_name(name))

    # --- facts ------------------------------------------------------------------------------------

    @property
    def banner(self) -> str:
        """What a console shows at its start."""
        return str(self.shell.banner)

    @property
    def kernel_info(self) -> Content:
        """The content of a kernel_info_reply, as far as the worker knows it."""
        return {
            "protocol_version": self.protocol_version,
            "implementation": self.implementation,
            "implementation_version": self.implementation_version,
            "language_info": dict(self.language_info),
            "banner": self.banner,
            "help_links": self.help_links,
            "supported_features": ["kernel subshells"],
        }

    @property
    def execution_count(self) -> int:
        """The number of the next cell."""
        return self.shell.execution_count

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        # ipykernel ignores the assignment too: the shell counts.
        del value

    @property
    def user_ns(self) -> dict[str, Any]:
        """The variables of the cells."""
        return self.shell.user_ns  # type: ignore[no-any-return]  # a traitlet

    @property
    def user_module(self) -> object:
        """The module that the variables of the cells live in."""
        return self.shell.user_module

    @property
    def profile_dir(self) -> object:
        """IPython's profile directory."""
        return self.shell.profile_dir

    @property
    def config(self) -> object:
        """IPython's configuration."""
        return self.shell.config

    # --- run modes --------------------------------------------------------------------------------

    @property
    def concurrency_mode(self) -> KernelConcurrencyMode:
        """Whether requests run side by side (``default``) or one after the other (``blocking``)."""
        return self._concurrency_mode

    @concurrency_mode.setter
    def concurrency_mode(self, mode: KernelConcurrencyMode | str) -> None:
        try:
            self._concurrency_mode = KernelConcurrencyMode(mode)
        except ValueError:
            names = ", ".join(KernelConcurrencyMode)
            raise ValueError(f"unknown concurrency mode {mode!r}: use one of {names}") from None
        self.send_to_broker(SetConcurrencyMode(self._concurrency_mode))

    def get_run_mode(
        self,
        msg_type: MsgType | str,
        *,
        socket_id: SocketID | str = SocketID.shell,
        concurrency_mode: KernelConcurrencyMode | str | NoValue | type[NoValue] = NO_VALUE,
        job: Job | None = None,
    ) -> RunMode:
        """Say how a request runs.

        Args:
            msg_type: the type of the request.
            socket_id: the channel that it comes on.
            concurrency_mode: the kernel's, if not given.
            job: the request itself, whose code, header and metadata may choose.

        Raises:
            ValueError: the type is not allowed on this channel, or an unknown mode is named.
        """
        # The reference's NoValue is the value itself.
        given = concurrency_mode if isinstance(concurrency_mode, str) else None
        return runmode.get_run_mode(
            MsgType(msg_type),
            channel=SocketID(socket_id),
            concurrency_mode=KernelConcurrencyMode(given or self._concurrency_mode),
            request=_request_of(job),
            allow_hash=bool(self.settings.get("hash_directive", False)),
        )

    def all_concurrency_run_modes(
        self,
        socket_ids: Iterable[SocketID] = (SocketID.shell, SocketID.control),
        msg_types: Iterable[MsgType] = tuple(MsgType),
    ) -> dict[str, tuple[SocketID | KernelConcurrencyMode | MsgType | RunMode | None, ...]]:
        """List the run mode of every channel, concurrency mode and message type, as columns."""
        return runmode.all_concurrency_run_modes(socket_ids, msg_types)

    # --- the running request ----------------------------------------------------------------------

    def get_parent(self, channel: str | None = None) -> Any:  # noqa: ANN401  (a message, or {})
        """Give the message of the running job, if it came on ``channel``; else an empty dict.

        Of control it is the newest request, as in ipykernel, although others answer most of them.
        """
        context = self._parent_on(channel)
        return context.message if context and context.header else {}

    def _parent_on(self, channel: str | None) -> JobContext | None:
        context = get_context()
        if channel is None or (context is not None and channel == context.channel):
            return context
        return self._control_parent if channel == SocketID.control else None

    def take_control_parent(self, parent: ControlParent) -> None:
        """Learn of a request on control that the broker has answered; in any thread."""
        self._control_parent = JobContext.of_control(parent)

    def set_parent(self, ident: object, parent: dict[str, Any], channel: str = "shell") -> None:
        """Make the outputs of this context those of ``parent``."""
        del ident
        if channel == "shell":
            self.shell.set_parent(parent)  # type: ignore[attr-defined]

    @property
    def _parent_header(self) -> Any:  # noqa: ANN401
        return self.get_parent()

    @property
    def _parents(self) -> dict[str, Any]:
        return {str(at): self.get_parent(at) for at in (SocketID.shell, SocketID.control)}

    @property
    def _parent_ident(self) -> dict[str, list[bytes]]:
        return {
            str(at): context.idents if (context := self._parent_on(at)) else []
            for at in (SocketID.shell, SocketID.control)
        }

    @property
    def _allow_stdin(self) -> bool:
        context = get_context()
        return context is not None and context.allow_stdin

    # --- messages and input -----------------------------------------------------------------------

    def send_response(
        self,
        stream: object,
        msg_or_type: str | dict[str, Any],
        content: dict[str, Any] | None = None,
        ident: bytes | None = None,
        buffers: Sequence[Any] | None = None,
        track: bool = False,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        channel: str | None = None,
    ) -> dict[str, Any]:
        """Send a message on iopub under the running request."""
        parent = self.get_parent(channel)
        return self.session.send(
            stream, msg_or_type, content, parent, ident, buffers, track, header, metadata
        )

    def iopub_send(
        self,
        msg_or_type: str | dict[str, Any],
        content: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        parent: Mapping[str, Any] | NoValue | None = NO_VALUE,
        ident: bytes | None = None,
        buffers: Sequence[Any] | None = None,
    ) -> None:
        """Send a message on iopub; without a parent given, under the running request."""
        given = None if parent is NO_VALUE else parent
        self.session.send(
            self.iopub_socket, msg_or_type, content, given, ident, buffers, metadata=metadata
        )

    def raw_input(self, prompt: str = "") -> str:
        """Ask the frontend for a line."""
        return builtins.input(prompt)

    def getpass(self, prompt: str = "", stream: object = None) -> str:
        """Ask the frontend for a password."""
        del stream
        return getpass.getpass(prompt)

    def _topic(self, topic: str) -> bytes:
        return f"kernel.{self.ident}.{topic}".encode()

    # --- what other kernels offer -----------------------------------------------------------------

    def do_complete(self, code: str, cursor_pos: int | None = None) -> Content:
        """Complete ``code`` at the cursor."""
        from unstuck_worker.introspect import complete  # noqa: PLC0415  (slow: not at start-up)

        return complete(self.shell, {"code": code, "cursor_pos": cursor_pos})

    def do_inspect(
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Iterable[str] = ()
    ) -> Content:
        """Describe the object at the cursor."""
        from unstuck_worker.introspect import inspect  # noqa: PLC0415  (slow: not at start-up)

        asked = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        return inspect(self.shell, {**asked, "omit_sections": list(omit_sections)})

    def do_is_complete(self, code: str) -> Content:
        """Say whether ``code`` can run as it is."""
        from unstuck_worker.introspect import is_complete  # noqa: PLC0415  (slow: not at start-up)

        return is_complete(self.shell, {"code": code})

    def do_history(self, hist_access_type: str, output: bool, raw: bool, **how: Any) -> Content:  # noqa: ANN401
        """Look up the cells' history."""
        from unstuck_worker.history import history  # noqa: PLC0415  (slow: not at start-up)

        asked = {"hist_access_type": hist_access_type, "output": output, "raw": raw}
        return history(self.shell, asked | how)

    def do_one_iteration(self) -> comms.Handled:
        """Do nothing: comm messages and control requests are served while a cell runs."""
        return comms.HANDLED

    def pre_handler_hook(self) -> None:
        """Do nothing; ipykernel sets a signal handler."""

    def post_handler_hook(self) -> None:
        """Do nothing; ipykernel takes back its signal handler."""


def _request_of(job: Job | None) -> runmode.RunModeRequest | None:
    """Read from a job what may choose its run mode."""
    if job is None:
        return None
    message: Mapping[str, Any] = job["msg"]
    content = message.get("content") or {}
    return runmode.RunModeRequest(
        code=content.get("code", ""),
        header_mode=(message.get("header") or {}).get("run_mode"),
        metadata=message.get("metadata") or {},
        silent=bool(content.get("silent", False)),
    )
