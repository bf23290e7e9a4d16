"""Write a session as parts, and read it from parts; what both a donor and a file do.

Reading has two steps, so that a file is checked whole before anything of it runs: `take` only looks
at bytes, `Luggage.unpack` makes the values.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unstuck.version import __version__
from unstuck_worker.transplant import parts
from unstuck_worker.transplant.dumping import DEADLINE_S, Dumping
from unstuck_worker.transplant.hand import Hand
from unstuck_worker.transplant.loading import Loading
from unstuck_worker.transplant.names import is_users
from unstuck_worker.transplant.session import adopt, collect, first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from unstuck_worker.transplant.pickling import Pickled

    Write = Callable[[list[parts.Chunk]], None]
    Tell = Callable[[int, int, str], None]

MAX_PACKAGES = 500


@dataclass(frozen=True)
class Carried:
    """What has come of a session, and what has not."""

    came: int
    """Variables."""
    missing: dict[str, str]
    """Why something has not come, by its name."""
    size_bytes: int


@dataclass(frozen=True)
class Contents:
    """What of a session is carried."""

    values: dict[str, object]
    missing: dict[str, str] = field(default_factory=dict)
    """What is known not to come, with its reason."""
    others: Mapping[str, object] | None = None
    takes_along: bool = False
    """Those of the others that a value needs come too; else the reader has them."""

    @classmethod
    def of_session(cls, shell: Any, *, same_machine: bool) -> Contents:  # noqa: ANN401
        """Carry all."""
        return cls(*collect(shell, same_machine=same_machine))


def pack(
    shell: Any,  # noqa: ANN401  (IPython's is untyped)
    write: Write,
    contents: Contents,
    *,
    deadline_s: float = DEADLINE_S,
    progress: Tell | None = None,
) -> Carried:
    """Write some of a session; raises only what ``write`` and ``progress`` raise."""
    values, missing = contents.values, dict(contents.missing)
    write([parts.start()])
    write(parts.encode(_header(shell, [*values, *missing])))
    dumping = Dumping(
        values,
        shell.user_ns,
        others=contents.others,
        takes_along=contents.takes_along,
        deadline_s=deadline_s,
        progress=progress,
    )
    groups = size_bytes = 0
    for pickled in _in_order(dumping, first_of(values)):
        group, data = _as_part(pickled)
        if progress is not None:
            progress(len(values), len(values), pickled.names[0])
        write(parts.encode(group, data))
        groups += 1
        size_bytes += pickled.size_bytes
    missing |= dumping.missing
    for name, reason in missing.items():
        write(parts.encode(parts.Missing(name, reason)))
    write(parts.encode(parts.End(groups)))
    return Carried(sum(map(is_users, values.keys() - missing.keys())), missing, size_bytes)


def _in_order(dumping: Dumping, first: Mapping[str, object]) -> Iterator[Pickled]:
    """Give first what says where modules are found."""
    later: list[Pickled] = []
    is_first_out = not first
    for pickled in dumping.groups():
        if is_first_out:
            yield pickled
        elif first.keys() & set(pickled.names):
            is_first_out = True
            yield pickled
            yield from later
            later.clear()
        else:
            later.append(pickled)
    yield from later


def _as_part(pickled: Pickled) -> tuple[parts.Group, list[parts.Chunk]]:
    raws = [buffer.raw() for buffer in pickled.buffers]
    buffers = [parts.Buffer(raw.nbytes, raw.readonly) for raw in raws]
    group = parts.Group(list(pickled.names), len(pickled.body), buffers, pickled.has_code)
    return group, [pickled.body, *raws]


def _header(shell: Any, names: list[str]) -> parts.Header:  # noqa: ANN401
    return parts.Header(
        unstuck=__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        saved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=shell.counter - 1,
        names=names,
        packages=_packages(),
    )


def _packages() -> dict[str, str]:
    """Give the versions that loaded libraries say they have."""
    found: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in sys.stdlib_module_names or len(found) >= MAX_PACKAGES:
            continue
        version = getattr(module, "__dict__", {}).get("__version__")
        if isinstance(version, str):
            found[name] = "".join(version)  # A plain str: torch has its own.
    return found


@dataclass
class Luggage:
    """A session as it was read and checked: bytes, of which nothing has run yet."""

    header: parts.Header
    groups: list[tuple[parts.Group, list[parts.Block]]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """How much it is."""
        return sum(len(block) for _, blocks in self.groups for block in blocks)

    def unpack(
        self,
        shell: Any,  # noqa: ANN401
        *,
        is_fresh: bool,
        deadline_s: float,
        progress: Tell | None = None,
    ) -> Carried:
        """Make the values, each group within the deadline, and put them into the shell."""
        size_bytes, total = self.size_bytes, len(self.groups)
        unpacking = Unpacking(shell, self.header, deadline_s)
        with unpacking:
            for at in range(total):
                group, blocks = self.groups[at]
                self.groups[at] = (group, [])  # Its memory goes with it.
                if progress is not None:
                    progress(at, total, group.names[0])
                unpacking.take(group, blocks)
        return unpacking.finish(self.missing, size_bytes, is_fresh=is_fresh)


class Unpacking:
    """Values on their way out of groups into a shell."""

    def __init__(
        self,
        shell: Any,  # noqa: ANN401
        header: parts.Header,
        deadline_s: float,
        known: Mapping[str, object] | None = None,
    ) -> None:
        """Read what a session of that header has written; ``known`` did not have to come."""
        self._shell = shell
        self._header = header
        self._loading = Loading(shell.user_ns, header.python, known=known, deadline_s=deadline_s)
        self._hand = Hand()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._hand.close()

    def take(self, group: parts.Group, blocks: list[parts.Block]) -> None:
        """Read one group."""
        body, *memory = blocks
        buffers = [
            memoryview(block).toreadonly() if told.is_readonly else block
            for block, told in zip(memory, group.buffers, strict=True)
        ]
        self._loading.read(self._hand, group.names, body, buffers, has_code=group.has_code)
        for name, value in first_of(self._loading.values).items():
            if name in group.names:
                adopt(self._shell, {name: value}, is_fresh=False)

    def finish(self, missing: Mapping[str, str], size_bytes: int, *, is_fresh: bool) -> Carried:
        """Put the values into the shell; what was neither read nor named is missing as well."""
        values = self._loading.values
        cut = dict.fromkeys(self._header.names, "the other process ended before it")
        lost = {**cut, **missing, **self._loading.missing}
        lost = {name: reason for name, reason in lost.items() if name not in values}
        lost |= adopt(self._shell, values, is_fresh=is_fresh)
        return Carried(sum(map(is_users, values)), lost, size_bytes)


def take(reader: parts.Reader) -> Luggage:
    """Read a whole session as bytes and check all of it.

    Raises:
        parts.Damaged: it is damaged, incomplete or newer than this code.
    """
    reader.read_start()
    luggage: Luggage | None = None
    for meta, blocks in reader.parts():
        match meta:
            case parts.Header() if luggage is None:
                luggage = Luggage(meta)
            case parts.Group() if luggage is not None:
                luggage.groups.append((meta, blocks))
            case parts.Missing() if luggage is not None:
                luggage.missing[meta.name] = meta.reason
            case parts.End() | parts.Progress() if luggage is not None:
                pass
            case _:
                raise parts.Damaged("it is damaged: its parts are out of order")
    assert luggage is not None
    return luggage
