"""What a session has beside its variables: random state, figures, the folder it works in.

A part belongs to a library: it is read only when that is loaded, and written only when it came.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROCESS = "working folder and environment"
_PER_PROCESS = frozenset({"MPLBACKEND", "PYTHONPATH"})
_LEFT_OUT = frozenset({"backend", "backend_fallback"})
_OTHERWISE_IN_NOTEBOOKS = frozenset({"interactive"})
"""Settings of matplotlib whose default is another one here: the user may have gone back to it."""


def _random() -> Any:  # noqa: ANN401  (what a library gives, it takes)
    return random.getstate()


def _set_random(state: Any) -> None:  # noqa: ANN401
    random.setstate(state)


def _numpy_random() -> Any:  # noqa: ANN401
    return sys.modules["numpy"].random.get_state()


def _set_numpy_random(state: Any) -> None:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415  (the user's)

    np.random.set_state(state)


def _torch_random() -> Any:  # noqa: ANN401
    return sys.modules["torch"].get_rng_state().numpy()


def _set_torch_random(state: Any) -> None:  # noqa: ANN401
    import torch  # noqa: PLC0415  (the user's)

    torch.set_rng_state(torch.from_numpy(state.copy()))


def _settings_of_matplotlib() -> Any:  # noqa: ANN401
    matplotlib: Any = sys.modules["matplotlib"]
    now, default = dict(dict.items(matplotlib.rcParams)), matplotlib.rcParamsDefault
    return {
        name: value
        for name, value in now.items()
        if name not in _LEFT_OUT
        and (name in _OTHERWISE_IN_NOTEBOOKS or value != dict.get(default, name))
    }


def _set_settings_of_matplotlib(settings: Any) -> None:  # noqa: ANN401
    import matplotlib as mpl  # noqa: PLC0415  (the user's)

    mpl.rcParams.update(settings)


def _figures() -> Any:  # noqa: ANN401
    managers: Any = sys.modules["matplotlib._pylab_helpers"].Gcf.figs
    return [manager.canvas.figure for manager in managers.values()]


def _set_figures(figures: Any) -> None:  # noqa: ANN401
    del figures  # Each has registered itself with pyplot while it was read.


def _process() -> Any:  # noqa: ANN401
    environment = {k: v for k, v in os.environ.items() if k not in _PER_PROCESS}
    return {"folder": os.getcwd(), "path": list(sys.path), "environment": environment}  # noqa: PTH109


def _set_process(state: Any) -> None:  # noqa: ANN401
    os.environ.update(state["environment"])
    sys.path[:] = state["path"]
    os.chdir(state["folder"])


_PARTS: Mapping[str, tuple[str, Callable[[], Any], Callable[[Any], None]]] = {
    PROCESS: ("os", _process, _set_process),
    "random state": ("random", _random, _set_random),
    "random state of numpy": ("numpy.random", _numpy_random, _set_numpy_random),
    "random state of torch": ("torch", _torch_random, _set_torch_random),
    "settings of matplotlib": ("matplotlib", _settings_of_matplotlib, _set_settings_of_matplotlib),
    "open figures": ("matplotlib.pyplot", _figures, _set_figures),
}


def read_parts() -> tuple[dict[str, Any], dict[str, str]]:
    """Give the parts that there are, and why one cannot be read."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, (module, read, _) in _PARTS.items():
        if module in sys.modules:
            try:
                found[name] = read()
            except Exception as error:  # noqa: BLE001  (a library that is half loaded)
                missing[name] = f"{type(error).__name__}: {error}"
    return found, missing


def write_part(name: str, state: object) -> None:
    """Put a part in place; raises what its library raises."""
    _PARTS[name][2](state)


def is_part(name: str) -> bool:
    """Tell whether there is such a part."""
    return name in _PARTS
