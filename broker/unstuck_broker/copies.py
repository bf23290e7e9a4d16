"""The book of the worker's dormant copies: what each holds, which are kept, which one comes back.

A snapshot begins when the worker says that it forks; what ends after that has its effects in the
worker and not in the copy. `Copy.since` lists it: a copy with an empty list is *current*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from unstuck.protocol import CopyReady
from unstuck.typing import KernelConcurrencyMode

if TYPE_CHECKING:
    from collections.abc import Iterable


_GAP = 10
"""Of numbers: a worker that was asked to end may take a few snapshots while the next begins."""


class Effect(Struct, frozen=True):
    """A job that has ended and may have changed variables."""

    job: int
    cell: int | None
    """Its execution count, where it has one."""
    is_cell: bool


class Copy(Struct, eq=False):
    """One snapshot, from the fork on."""

    number: int
    name: str
    comms: frozenset[str]
    """The comms that were open at its moment."""
    mode: KernelConcurrencyMode
    """The concurrency mode at its moment."""
    since: list[Effect] = field(default_factory=list)
    """What the present has and the copy has not."""
    word: CopyReady | None = None
    """What it said of itself once it was there."""
    memory_bytes: int = -1
    """What dropping it would free; -1 where nobody has measured."""
    unfinished: frozenset[int] = frozenset()
    """Execution counts of the cells that ran at its moment."""
    spare: CopyReady | None = None
    """What a second process of it said, which stays when the first becomes the worker."""
    is_aside: bool = False
    """The present does not come from it: it was taken after the moment of a later rewind."""

    @property
    def cell(self) -> int:
        """Give the count of the last cell that had ended at its moment; 0 is the start."""
        count = 0 if self.word is None else self.word.cell
        while count in self.unfinished:
            count -= 1
        return count

    @property
    def is_current(self) -> bool:
        """Tell whether it holds the present variables."""
        return not self.since and not self.is_aside

    @property
    def is_promotable(self) -> bool:
        """Tell whether it can become the worker."""
        return self.word is not None and self.word.kind == "promotable"

    @property
    def is_faithful(self) -> bool:
        """Tell whether a kill costs nothing but what runs now."""
        return self.is_promotable and self.is_current and bool(self.word and self.word.is_faithful)


class Copies:
    """All copies that there are, the one that is being made included."""

    def __init__(self) -> None:
        """Begin with none."""
        self._copies: dict[int, Copy] = {}
        self.highest = 0
        """The highest number that was used."""
        self.last_skipped = ""
        """Why the newest snapshot that was due was not taken; empty where it was."""

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, number: int) -> Copy | None:
        """Give a copy that is ready, by its number."""
        copy = self._copies.get(number)
        return copy if copy is not None and copy.word is not None else None

    def ready(self) -> list[Copy]:
        """List the copies that are ready, oldest first."""
        return sorted(
            (copy for copy in self._copies.values() if copy.word is not None),
            key=lambda copy: copy.number,
        )

    def next_floor(self) -> int:
        """Give the number after which a new worker counts, beside one that may still count."""
        if self.highest:
            self.highest += _GAP
        return self.highest

    # --- coming and going -------------------------------------------------------------------------

    def begin(self, copy: Copy) -> None:
        """Take note of a fork that begins."""
        self._copies[copy.number] = copy
        self.highest = max(self.highest, copy.number)

    def skip(self, number: int, reason: str) -> None:
        """Take note that a snapshot was not taken."""
        self.last_skipped = reason
        self.highest = max(self.highest, number)
        copy = self._copies.get(number)
        if copy is not None and copy.word is None:
            del self._copies[number]

    def ended(self, effect: Effect) -> None:
        """Take note of a job that has ended: no copy has all of its effects."""
        for copy in self._copies.values():
            copy.since.append(effect)

    def appear(self, word: CopyReady, count: int) -> list[int]:
        """Take a copy that is ready; give the numbers of those that nobody needs any more.

        Args:
            word: what it says of itself; one that nobody expects any more is not needed either.
            count: how many named copies are kept.
        """
        copy = self._copies.get(word.number)
        if copy is not None and copy.word is not None and word.is_spare:
            copy.spare = word
            return []
        if copy is None or copy.word is not None:
            return [word.number]
        copy.word = word
        copy.name = word.name
        return self._take_out(superfluous(self.ready(), count))

    def forget(self, number: int, pid: int | None = None) -> None:
        """Take out a copy that has ended, or is to be the worker; its spare stands in for it.

        Args:
            number: of the copy.
            pid: the process that has ended; None for the first of the copy.
        """
        copy = self._copies.get(number)
        if copy is None or copy.spare is None:
            self._copies.pop(number, None)
            return
        if pid != copy.spare.pid:
            copy.word = copy.spare
        copy.spare = None

    def forget_unborn(self) -> None:
        """Take out what was being made when the worker died."""
        for copy in list(self._copies.values()):
            if copy.word is None:
                del self._copies[copy.number]

    def take_all(self) -> list[int]:
        """Take out all; give their numbers."""
        return self._take_out(list(self._copies))

    def promoted(self, chosen: Copy) -> list[int]:
        """Set all others in relation to a present that is ``chosen``'s moment.

        Gives the numbers of those that are of no use any more.
        """
        undone = {effect.job for effect in chosen.since}
        for copy in self._copies.values():
            copy.is_aside = copy.is_aside or copy.number > chosen.number
            copy.since = [effect for effect in copy.since if effect.job not in undone]
        useless = [c.number for c in self._copies.values() if c.is_aside and not c.name]
        return self._take_out(useless)

    # --- choice -----------------------------------------------------------------------------------

    def newest(self) -> Copy | None:
        """Give the copy that has most of the present."""
        return next((copy for copy in reversed(self.ready()) if not copy.is_aside), None)

    def one_cell_back(self) -> Copy | None:
        """Give the newest copy that has not the effects of the last cell."""
        before = (copy for copy in reversed(self.ready()) if _lacks_a_cell(copy))
        return next(before, None)

    def named(self, to: str) -> Copy | None:
        """Give the newest copy of a name, else the one of a number."""
        ready = self.ready()
        found = next((copy for copy in reversed(ready) if copy.name == to), None)
        return found if found is not None or not to.isdigit() else self.get(int(to))

    # --- memory -----------------------------------------------------------------------------------

    def measured(self, memory: dict[int, int], total_bytes: int, budget_bytes: int) -> list[int]:
        """Take what the copies cost; give the numbers of those that cost too much.

        Args:
            memory: by number, what dropping this copy alone would free.
            total_bytes: what dropping all would free.
            budget_bytes: what they may cost.
        """
        for number, size_bytes in memory.items():
            if number in self._copies:
                self._copies[number].memory_bytes = size_bytes
        dropped: list[int] = []
        for copy in by_worth(self.ready(), budget_bytes):
            if total_bytes <= budget_bytes:
                break
            dropped.append(copy.number)
            total_bytes -= max(copy.memory_bytes, 0)
        if dropped:
            self.last_skipped = (
                f"snapshots were dropped: they cost more than {budget_bytes / 1e6:,.0f} MB"
            )
        return self._take_out(dropped)

    def _take_out(self, numbers: Iterable[int]) -> list[int]:
        taken = sorted(numbers)
        for number in taken:
            del self._copies[number]
        return taken


def superfluous(copies: list[Copy], count: int) -> list[int]:
    """Name the copies that nobody needs: of those that are ready, oldest first.

    Kept are the newest, the newest from before the last cell (for a rewind by one cell), and the
    ``count`` newest that have a name; of two with the same name the newer.
    """
    present = [copy for copy in copies if not copy.is_aside]
    kept = {copy.number for copy in present[-1:]}
    kept |= {copy.number for copy in [copy for copy in present if _lacks_a_cell(copy)][-1:]}
    by_name = {copy.name: copy.number for copy in copies if copy.name}
    if count:
        kept |= set(sorted(by_name.values())[-count:])
    return [copy.number for copy in copies if copy.number not in kept]


def by_worth(copies: list[Copy], budget_bytes: int) -> list[Copy]:
    """Order copies from the one that is dropped first: what costs too much alone, then the oldest.

    The newest goes last: it is what a crash falls back on.
    """
    newest = next((copy for copy in reversed(copies) if not copy.is_aside), None)

    def worth(copy: Copy) -> tuple[bool, bool, int]:
        return copy.memory_bytes <= budget_bytes, copy is newest, copy.number

    return sorted(copies, key=worth)


def _lacks_a_cell(copy: Copy) -> bool:
    return any(effect.is_cell for effect in copy.since) and not copy.is_aside
