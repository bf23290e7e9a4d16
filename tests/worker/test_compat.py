"""Imports of async_kernel and ipykernel: what notebooks written for them get."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HIDE = """
import sys
class WithoutAsyncKernel:
    '''Make the installed async_kernel look absent.'''
    def __init__(self, inner): self.inner = inner
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "async_kernel":
            return None
        return self.inner.find_spec(name, path, target)
sys.meta_path[:] = [WithoutAsyncKernel(finder) for finder in sys.meta_path]
"""
INSTALL = "from unstuck_worker import compat; compat.install(); compat.install()\n"


def python(program: str, folder: Path | None = None) -> str:
    """Run a program in a process of its own; give what it printed."""
    paths = ([str(folder)] if folder else []) + sys.path
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_where_async_kernel_is_absent_its_names_are_ours() -> None:
    python(
        HIDE
        + INSTALL
        + """
import unstuck, unstuck.typing, unstuck.caller, unstuck.future
from async_kernel import Caller, Future, utils, Kernel, __version__, kernel_protocol_version
from async_kernel.typing import (
    KernelConcurrencyMode, MsgType, RunMode, SocketID, Tags, MetadataKeys, Job, Message, NoValue,
    ExecuteContent, MsgHeader, Channel,
)
from async_kernel.caller import Caller as SameCaller, Future as SameFuture, FutureCancelledError
from async_kernel.caller import InvalidStateError, AsyncLock, ReentrantAsyncLock
from async_kernel.kernel import Kernel as SameKernel
import async_kernel, async_kernel.utils, async_kernel.typing as typing
assert Caller is SameCaller is unstuck.Caller and Future is SameFuture is unstuck.Future
assert RunMode is unstuck.RunMode is async_kernel.typing.RunMode
assert Channel is SocketID
assert utils is unstuck.utils and async_kernel.utils.get_job is unstuck.utils.get_job
assert Kernel is SameKernel
assert __version__ == unstuck.__version__
assert async_kernel.kernel_protocol_version_info["name"] == "python"
assert {"Caller", "Kernel", "utils"} <= set(dir(async_kernel))
"""
    )


def test_backends_and_comms_are_found_where_the_reference_has_them() -> None:
    python(
        HIDE
        + INSTALL
        + """
import comm
from plainshell import Record
from unstuck_worker import comms
manager = comms.install(Record().publish)
from async_kernel.comm import Comm, CommManager
assert Comm is comm.create_comm and isinstance(manager, CommManager)
from async_kernel import Caller
from async_kernel.typing import Backend
from async_kernel.kernelspec import Backend as SameBackend
assert list(Backend) == ["asyncio", "trio"] and Backend is SameBackend
for backend in Backend:
    caller = Caller.start_new(backend=backend)
    assert caller.backend == backend
    assert caller is Caller.get(name=caller.thread.name, backend=backend)
    assert caller.call_soon(lambda: 5).wait_sync(timeout=20) == 5
    assert caller.call_using_backend(backend, Caller).wait_sync(timeout=20) is caller
    caller.stop()
"""
    )


def test_a_star_import_gives_the_public_names() -> None:
    python(
        HIDE
        + INSTALL
        + """
from async_kernel.typing import *
from async_kernel.caller import *
assert RunMode.task == "##task" and Caller.__name__ == "Caller"
"""
    )


def test_names_and_modules_that_are_not_there_raise_the_usual_errors() -> None:
    python(
        HIDE
        + INSTALL
        + """
import async_kernel
try:
    from async_kernel import NoSuchName
except ImportError as error:
    assert "NoSuchName" in str(error)
else:
    raise SystemExit("imported a name that is not there")
try:
    import async_kernel.no_such_module
except ModuleNotFoundError as error:
    assert "no_such_module" in str(error)
else:
    raise SystemExit("imported a module that is not there")
assert not hasattr(async_kernel, "asyncshell")
"""
    )


def test_an_installed_async_kernel_wins(tmp_path: Path) -> None:
    package = tmp_path / "async_kernel"
    package.mkdir()
    (package / "__init__.py").write_text("MINE = True\n")
    python(
        INSTALL
        + """
import async_kernel
assert async_kernel.MINE
try:
    import async_kernel.caller
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("a module of ours stands in a foreign package")
""",
        tmp_path,
    )


def test_the_kernel_class_gives_the_running_kernel_or_says_that_there_is_none() -> None:
    python(
        HIDE
        + INSTALL
        + """
from async_kernel import Kernel
from unstuck.jobcontext import set_kernel
try:
    Kernel()
except RuntimeError as error:
    assert "no kernel" in str(error)
else:
    raise SystemExit("a kernel from nowhere")
running = object()
set_kernel(running)
assert Kernel() is running is Kernel({"quiet": True})
"""
    )


def test_importing_the_compatibility_costs_no_heavy_import() -> None:
    shown = (
        "heavy = ('zmq', 'tornado', 'jupyter_client', 'ipykernel.connect', 'jedi')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    heavy = python(f"import sys\n{INSTALL}{shown}")
    assert heavy.strip() == "[]"


def test_ipykernel_s_comms_are_ours_and_importing_it_leaves_our_hooks() -> None:
    python(
        INSTALL
        + """
import comm
from plainshell import Record
from unstuck_worker import comms
record = Record()
manager = comms.install(record.publish)
import warnings
warnings.simplefilter("ignore")
from ipykernel.comm import Comm, CommManager
import ipykernel.ipkernel
assert comm.get_comm_manager() is manager
assert comm.create_comm is comms.Comm is Comm
Comm(target_name="bokeh", data={}).send({"a": 1})
assert record.types == ["comm_open", "comm_msg"]
import ipykernel.comm.comm, inspect
assert "class Comm" in inspect.getsource(ipykernel.comm.comm), "the module keeps its loader"
"""
    )


def test_ipykernel_finds_our_connection_file() -> None:
    python(
        INSTALL
        + """
import types
from unstuck.jobcontext import set_kernel
import warnings
warnings.simplefilter("ignore")
import ipykernel
try:
    ipykernel.get_connection_file()
except RuntimeError:
    pass
else:
    raise SystemExit("a connection file from nowhere")
set_kernel(types.SimpleNamespace(connection_file="/run/kernel-1.json"))
assert ipykernel.get_connection_file() == "/run/kernel-1.json"
from ipykernel.connect import get_connection_file
assert get_connection_file() == "/run/kernel-1.json"
"""
    )


WITHOUT_IPYKERNEL = HIDE.replace("async_kernel", "ipykernel").replace("AsyncKernel", "Ipykernel")


def test_ipykernel_is_there_to_be_seen_and_not_imported_for_that() -> None:
    python(
        INSTALL
        + """
import importlib.util, inspect, sys
assert "ipykernel" in sys.modules and "ipykernel.zmqshell" in sys.modules
assert importlib.util.find_spec("ipykernel") is not None
for module in list(sys.modules.values()):
    getattr(module, "__file__", None), getattr(module, "anything", None)
assert inspect.getmodule(len) is not None
import ipykernel, ipywidgets.comm
assert not ipywidgets.comm.requires_ipykernel_shim()
from unstuck_worker import shell, streams
assert ipykernel.zmqshell.ZMQInteractiveShell is shell.UnstuckShell  # loguru asks in this way
assert ipykernel.iostream.OutStream is streams.OutStream
from ipykernel.zmqshell import ZMQInteractiveShell
assert ZMQInteractiveShell is shell.UnstuckShell
assert not {"zmq", "tornado", "ipykernel.connect"} & set(sys.modules), "all that needs no import"
"""
    )


def test_ipykernel_is_imported_when_somebody_wants_more_of_it() -> None:
    python(
        INSTALL
        + """
import sys, warnings
warnings.simplefilter("ignore")
import ipykernel
seen = sys.modules["ipykernel"]
from ipykernel.kernelbase import Kernel
import ipykernel.kernelapp, ipykernel.inprocess
assert sys.modules["ipykernel"] is not seen and sys.modules["ipykernel"].__file__
assert ipykernel.kernelbase.Kernel is Kernel
from ipykernel.zmqshell import KernelMagics, ZMQInteractiveShell
from unstuck_worker import shell
assert sys.modules["ipykernel.zmqshell"].KernelMagics is KernelMagics
assert sys.modules["ipykernel.zmqshell"].ZMQInteractiveShell is shell.UnstuckShell
"""
    )


def test_the_first_thing_wanted_of_ipykernel_may_be_anything() -> None:
    for first in (
        "import ipykernel; ipykernel.kernel_protocol_version",
        "import ipykernel; ipykernel.get_connection_info",
        "import ipykernel.zmqshell as shell; shell.KernelMagics",
        "from ipykernel.iostream import IOPubThread",
        "from ipykernel import zmqshell; zmqshell.KernelMagics",
        "from ipykernel import connect; connect.connect_qtconsole",
    ):
        python(f"import warnings\n{INSTALL}warnings.simplefilter('ignore')\n{first}\n")


def test_where_ipykernel_is_absent_the_names_that_libraries_want_are_ours() -> None:
    python(
        WITHOUT_IPYKERNEL
        + INSTALL
        + """
import sys, types
import ipykernel
assert ipykernel.version_info >= (6, 18)
import ipywidgets.comm
assert not ipywidgets.comm.requires_ipykernel_shim()
from ipykernel.comm import Comm
from unstuck_worker import comms, shell, streams
assert Comm is comms.Comm
from ipykernel.zmqshell import ZMQInteractiveShell
from ipykernel.iostream import OutStream
assert ZMQInteractiveShell is shell.UnstuckShell and OutStream is streams.OutStream
from unstuck.jobcontext import set_kernel
set_kernel(types.SimpleNamespace(connection_file="/run/kernel-1.json"))
assert ipykernel.get_connection_file() == "/run/kernel-1.json"
try:
    import ipykernel.kernelapp
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("there is no such module")
"""
    )
