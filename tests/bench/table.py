"""The numbers as a table in Markdown, and the targets that ours are held against."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.peers import OURS, REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Samples = dict[str, dict[str, list[float]]]
"""Row, kernel, one number a round."""


@dataclass(frozen=True)
class Target:
    """What our median has to be: at most ``factor`` times that of ``peer``."""

    row: str
    factor: float
    peer: str


TARGETS = (
    Target("execute round trip, p50", 0.25, REFERENCE),
    Target("execute round trip, p50", 1.0, "xeus-python"),
    Target("300 pipelined executes", 1.0, "xeus-python"),
    Target("launch to kernel_info", 0.35, REFERENCE),
    Target("launch to kernel_info", 1.0, "xeus-python"),
    Target("100,000 prints", 0.5, REFERENCE),
    Target("PSS of the process tree", 1.0, REFERENCE),
)
COMPLETE = ("characters of the prints received", "the same, by a client that sleeps 3 s")
"""Rows in which ours has to be exactly 1."""


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """Take the median of each row and kernel."""
    return {
        row: {name: median(numbers) for name, numbers in kernels.items() if numbers}
        for row, kernels in samples.items()
    }


def missed(values: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Say which targets were not met; those against a kernel that is absent are left out."""
    for target in TARGETS:
        row = values.get(target.row, {})
        if OURS in row and target.peer in row:
            ratio = row[OURS] / row[target.peer]
            if ratio > target.factor:
                yield f"{target.row}: {ratio:.2f} of {target.peer}'s, not {target.factor:g}"
    for name in COMPLETE:
        if values.get(name, {}).get(OURS, 1.0) != 1.0:
            yield f"{name}: {values[name][OURS]:.4f}, not all"


def _cell(row: str, value: float | None, reference: float | None) -> str:
    if value is None:
        return "failed"
    if row in COMPLETE:
        return f"{value:.1%}"
    shown = f"{value / 2**20:.1f} MiB" if row.startswith("PSS") else f"{value * 1000:.2f} ms"
    return shown if reference is None else f"{shown} ({value / reference:.2f})"


def markdown(
    values: Mapping[str, Mapping[str, float]], names: Sequence[str], notes: Sequence[str]
) -> str:
    """Write the table; the numbers in parentheses are ratios to ipykernel's."""
    lines = ["| median (ratio to ipykernel) | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for row, kernels in values.items():
        reference = kernels.get(REFERENCE)
        cells = [_cell(row, kernels.get(name), reference) for name in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *[f"- {note}" for note in notes]])
