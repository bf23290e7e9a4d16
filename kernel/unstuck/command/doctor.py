"""``unstuck doctor``: look at everything that a kernel needs, and say what is wrong in words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from unstuck.command import examples
from unstuck.command.imports import skip_grammar_of_iris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unstuck.command.checks.finding import Finding, Level

    Check = Callable[[], Iterator[Finding]]

EXIT_WRONG = 1


@click.command("doctor", epilog=examples("unstuck doctor", "unstuck doctor --no-start"))
@click.option("--no-start", is_flag=True, help="Do not start a kernel.")
@click.pass_context
def doctor_command(ctx: click.Context, *, no_start: bool) -> None:
    """Check this machine and say what is wrong and what to do; exit code 1 when something is."""
    from unstuck.command.checks.finding import Level

    skip_grammar_of_iris()
    count = dict.fromkeys(Level, 0)
    for check in all_checks(start=not no_start):
        for finding in findings(check):
            count[finding.level] += 1
            show(finding)
    click.echo(summary(count))
    ctx.exit(EXIT_WRONG if count[Level.wrong] else 0)


def all_checks(*, start: bool) -> list[Check]:
    """List the checks in the order in which they are worth reading."""
    from unstuck.command.checks import kernels, machine, python

    checks: list[Check] = [
        python.check_python,
        python.check_system,
        python.check_own_modules,
        python.check_packages,
        lambda: python.check_variables(os.environ),
        machine.check_process_control,
        machine.check_limits,
        machine.check_memory,
        machine.check_runtime_folder,
        machine.check_jupyter,
        kernels.check_kernelspecs,
    ]
    return [*checks, kernels.check_start] if start else checks


def findings(check: Check) -> Iterator[Finding]:
    """Run one check; one that breaks is a finding too, and does not hide the others."""
    from unstuck.command.checks.finding import wrong

    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the top of one check: told, and the next one runs
        name = getattr(check, "__name__", "check").removeprefix("check_")
        seen = f"could not be checked: {type(error).__name__}: {error}"
        yield wrong(name.capitalize(), seen, "please report this, with the output of this command")


def show(finding: Finding) -> None:
    """Print one finding, what to do on a line of its own."""
    from unstuck.command.checks.finding import Level

    colour = {Level.good: "green", Level.note: "yellow", Level.wrong: "red"}[finding.level]
    mark = {Level.good: "ok   ", Level.note: "note ", Level.wrong: "wrong"}[finding.level]
    first, *more = finding.seen.splitlines() or [""]
    click.echo(f"{click.style(mark, fg=colour)} {finding.subject}: {first}")
    for line in more:
        click.echo(f"      {line}")
    if finding.remedy:
        click.echo(f"      -> {finding.remedy}")


def summary(count: dict[Level, int]) -> str:
    """Say in one line what the findings come to."""
    from unstuck.command.checks.finding import Level

    checked = f"{sum(count.values())} things checked"
    if not count[Level.wrong]:
        return f"{checked}: nothing is wrong."
    verb = "is" if count[Level.wrong] == 1 else "are"
    return f"{checked}: {count[Level.wrong]} {verb} wrong."
