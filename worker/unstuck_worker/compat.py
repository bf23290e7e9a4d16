"""Make notebooks written for other kernels work: what they import of async-kernel and ipykernel.

Where these are not installed, importing them gives ours. An installed ipykernel is imported, but
its comms, its shell and its streams are ours, and it finds our connection file.
"""

from __future__ import annotations

import importlib
import sys
from enum import StrEnum
from functools import partial
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from unstuck.jobcontext import get_kernel
from unstuck_worker import comms, standins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.abc import Loader
    from types import ModuleType

ROOT = "async_kernel"
IPYKERNEL = "ipykernel"


class Kernel:
    """What ``async_kernel.Kernel()`` gives: the one kernel that is there."""

    def __new__(cls, settings: object = None, /) -> Any:  # noqa: ANN401
        del settings
        kernel = get_kernel()
        if kernel is None:
            raise RuntimeError("no kernel runs in this process")
        return kernel


class Backend(StrEnum):
    """The event loops that a Caller can have, as async_kernel names them; text with us."""

    asyncio = "asyncio"
    trio = "trio"


class Facade(NamedTuple):
    """One module of another kernel: where its names are found here."""

    names: Mapping[str, str] = {}
    """Name to ``module`` or ``module:other name``."""
    all_of: str = ""
    """A module whose names are offered too."""


_CALLER = {
    "Caller": "unstuck.caller",
    "Future": "unstuck.future",
    "Pending": "unstuck.future:Future",
    "FutureCancelledError": "unstuck.cancelled",
    "InvalidStateError": "unstuck.future",
}
_FACADES = {
    ROOT: Facade(
        {
            **_CALLER,
            "Kernel": __name__,
            "utils": "unstuck:utils",
            "__version__": "unstuck",
            "kernel_protocol_version": "unstuck",
            "kernel_protocol_version_info": f"{__name__}:PROTOCOL_INFO",
        }
    ),
    f"{ROOT}.caller": Facade(_CALLER, "unstuck.caller"),
    f"{ROOT}.comm": Facade({"Comm": "unstuck_worker.comms", "CommManager": "unstuck_worker.comms"}),
    f"{ROOT}.kernelspec": Facade({"Backend": __name__}),
    f"{ROOT}.pending": Facade(_CALLER, "unstuck.future"),
    f"{ROOT}.kernel": Facade({"Kernel": __name__}),
    f"{ROOT}.typing": Facade(
        {"Backend": __name__, "Channel": "unstuck.typing:SocketID"}, "unstuck.typing"
    ),
    f"{ROOT}.utils": Facade(all_of="unstuck.utils"),
    IPYKERNEL: Facade(
        {
            "__version__": f"{__name__}:IPYKERNEL_VERSION",
            "version_info": f"{__name__}:IPYKERNEL_VERSION_INFO",
            "get_connection_file": f"{__name__}:find_connection_file",
        }
    ),
    f"{IPYKERNEL}.comm": Facade(
        {"Comm": "unstuck_worker.comms", "CommManager": "unstuck_worker.comms"}
    ),
    f"{IPYKERNEL}.connect": Facade({"get_connection_file": f"{__name__}:find_connection_file"}),
    f"{IPYKERNEL}.iostream": Facade({"OutStream": "unstuck_worker.streams"}),
    f"{IPYKERNEL}.zmqshell": Facade(
        {
            "ZMQInteractiveShell": "unstuck_worker.shell:UnstuckShell",
            "ZMQDisplayPublisher": "unstuck_worker.display:CellDisplayPublisher",
        }
    ),
}
IPYKERNEL_VERSION = "7.4.0"
"""Whose behaviour is ours: libraries ask, and work around what older ones lack."""
IPYKERNEL_VERSION_INFO = tuple(map(int, IPYKERNEL_VERSION.split(".")))
PROTOCOL_INFO = {
    "name": "python",
    "version": ".".join(map(str, sys.version_info[:3])),
    "mimetype": "text/x-python",
    "codemirror_mode": {"name": "ipython", "version": 3},
    "pygments_lexer": "ipython3",
    "nbconvert_exporter": "python",
    "file_extension": ".py",
}


class FacadeFinder:
    """Find other kernels and their modules here, behind all finders: an installed one wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for a module of another kernel, unless its package is a real one."""
        del path, target
        if fullname not in _FACADES:
            return None
        root = fullname.partition(".")[0]
        if fullname != root and not isinstance(_loader_of(sys.modules.get(root)), FacadeFinder):
            return None
        return ModuleSpec(fullname, cast("Loader", self), is_package=fullname == root)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the module look up its names when they are asked for."""
        facade = _FACADES[module.__name__]
        names = set(facade.names)
        if facade.all_of:
            source = importlib.import_module(facade.all_of)
            names |= {name for name in vars(source) if not name.startswith("_")}
        module.__dict__["__getattr__"] = partial(_look_up, module.__name__)
        module.__dict__["__all__"] = sorted(names)
        module.__dict__["__dir__"] = lambda: sorted(names)


def _look_up(module: str, name: str) -> object:
    """Find a name of a facade."""
    facade = _FACADES[module]
    if name in facade.names:
        home, _, other = facade.names[name].partition(":")
        return getattr(importlib.import_module(home), other or name)
    if facade.all_of and not name.startswith("__"):
        source = importlib.import_module(facade.all_of)
        if hasattr(source, name):
            return getattr(source, name)
    raise AttributeError(f"module {module!r} of unstuck has no attribute {name!r}")


def _loader_of(module: ModuleType | None) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)


class IpykernelFinder:
    """Patch modules of ipykernel right after their import."""

    def __init__(self, inner: Loader | None = None) -> None:
        """Find modules, or load one with its own loader ``inner``."""
        self._inner = inner

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the other finders find the module, and load it through us."""
        if fullname not in _PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = cast("Loader", IpykernelFinder(spec.loader))
                return spec
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        return self._inner.create_module(spec) if self._inner else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module with its own loader, then patch it."""
        if self._inner is None or module.__spec__ is None:
            return
        module.__spec__.loader = module.__loader__ = self._inner
        self._inner.exec_module(module)
        _PATCHES[module.__name__](module)


def find_connection_file(app: object = None) -> str:
    """Give the path of this kernel's connection file."""
    del app
    kernel = get_kernel()
    if kernel is None or not kernel.connection_file:
        raise RuntimeError("no kernel runs in this process")
    return str(kernel.connection_file)


def _patch_comm(module: ModuleType) -> None:
    """Give ``from ipykernel.comm import Comm`` (bokeh has it) comms that reach the frontend."""
    vars(module).update(Comm=comms.Comm, CommManager=comms.CommManager)


def _patch_ipkernel(module: ModuleType) -> None:
    """Take back the hooks of the package ``comm``, which importing this module has set."""
    del module
    if comms.Comm.manager is not None:
        comms.set_hooks(comms.Comm.manager)


def _patch_connect(module: ModuleType) -> None:
    """Answer ``ipykernel.get_connection_file()`` with ours."""
    original: Callable[[object], str] = vars(module)["get_connection_file"]

    def get_connection_file(app: object = None) -> str:
        """Give the path of this kernel's connection file."""
        kernel = get_kernel()
        if app is None and kernel is not None and kernel.connection_file:
            return str(kernel.connection_file)
        return original(app)

    vars(module)["get_connection_file"] = get_connection_file


def _patch_iostream(module: ModuleType) -> None:
    """Let ``isinstance(sys.stdout, OutStream)`` be true, as loguru asks for its colours."""
    from unstuck_worker.streams import OutStream  # noqa: PLC0415  (who imports this has it)

    vars(module)["OutStream"] = OutStream


def _patch_zmqshell(module: ModuleType) -> None:
    """Let ``isinstance(get_ipython(), ZMQInteractiveShell)`` be true."""
    from unstuck_worker.shell import UnstuckShell  # noqa: PLC0415  (who imports this has it)

    vars(module)["ZMQInteractiveShell"] = UnstuckShell


_PATCHES: Mapping[str, Callable[[ModuleType], None]] = {
    "ipykernel.comm": _patch_comm,
    "ipykernel.connect": _patch_connect,
    "ipykernel.iostream": _patch_iostream,
    "ipykernel.ipkernel": _patch_ipkernel,
    "ipykernel.zmqshell": _patch_zmqshell,
}


def install() -> None:
    """Put both finders and the stand-ins in place; once a process."""
    if not any(isinstance(finder, FacadeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, IpykernelFinder())
        sys.meta_path.append(FacadeFinder())
        standins.install(_look_up)
