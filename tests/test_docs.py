"""The documentation says what the tree holds: commands, settings, dependencies, links, pictures."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest

from imports import ROOT
from unstuck.command import COMMANDS
from unstuck.config import Config
from unstuck.runmode import all_concurrency_run_modes
from unstuck.typing import KernelConcurrencyMode, MsgType, SocketID

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FIRST_SCREEN_LINES = 25


def test_the_first_screen_of_the_readme_has_the_picture_and_both_commands() -> None:
    screen = "\n".join(TEXTS["README.md"].splitlines()[:FIRST_SCREEN_LINES])
    assert "docs/images/interrupt.gif" in screen
    assert "unstuck run docs/notebooks/" in screen
    assert "-m pytest" in screen


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^readonly RUN_\w+='(.*)'$", script, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert f"```bash\n{command}\n```" in TEXTS["README.md"]


def test_the_notebook_that_the_readme_runs_is_there() -> None:
    (notebook,) = set(re.findall(r"unstuck run (docs/notebooks/\w+\.ipynb)", TEXTS["README.md"]))
    assert (ROOT / notebook).is_file()


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file_of_ours(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXTS[page]) if "://" not in link]
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_that_a_page_names_exists(page: str) -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", TEXTS[page], re.DOTALL))
    named = re.findall(r"(?:^|bin/)unstuck ([a-z]+)", blocks, re.MULTILINE)
    named += re.findall(r"`unstuck ([a-z]+)", TEXTS[page])
    assert set(named) <= set(COMMANDS)


def test_the_page_of_settings_has_each_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXTS["docs/settings.md"], re.MULTILINE))
    assert set(rows) == set(Config.__struct_fields__)
    shown = {name: _value(text) for name, text in rows.items()}
    config = Config()
    assert {name: getattr(config, name) for name in shown} == shown


def _value(text: str) -> object:
    """Read a default as the page shows it."""
    match shlex.split(text.replace("`", "'")):
        case ["(none)"]:
            return []
        case [("true" | "false") as word]:
            return word == "true"
        case [number, ("KiB" | "MiB") as unit]:
            return int(number) << (10 if unit == "KiB" else 20)
        case [word]:
            return float(word) if re.fullmatch(r"[\d.]+", word) else word
        case other:
            return other


def test_the_page_of_run_modes_has_the_table() -> None:
    columns = all_concurrency_run_modes()
    rows = zip(*(columns[name] for name in columns), strict=True)
    modes = {
        (channel, kind): "not allowed" if mode is None else mode.value
        for channel, concurrency, kind, mode in rows
        if concurrency is KernelConcurrencyMode.default
    }
    for kind in MsgType:
        shell, control = (modes[channel, kind] for channel in (SocketID.shell, SocketID.control))
        assert f"| `{kind.value}` | {shell} | {control} |" in TEXTS["docs/run-modes.md"]


def test_each_dependency_has_its_reason() -> None:
    requirements = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in requirements}
    reasons = set(re.findall(r"\*\*([\w-]+)\*\*", TEXTS["docs/dependencies.md"]))
    assert names - {"unstuck"} - reasons == set()
    assert reasons - names == {"playwright-core"}
