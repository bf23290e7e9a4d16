"""The broker's command line."""

from __future__ import annotations

import pytest

from unstuck.config import Config
from unstuck.errors import ConfigError
from unstuck_broker import options as command_line
from unstuck_broker.options import Options


def parse(arguments: list[str]) -> Options:
    return command_line.parse(arguments, {})


@pytest.mark.parametrize(
    "arguments",
    [
        ["-f", "/run/kernel.json"],
        ["-f=/run/kernel.json"],
        ["--f=/run/kernel.json"],
        ["--connection-file", "/run/kernel.json"],
        ["--connection-file=/run/kernel.json"],
    ],
)
def test_the_connection_file_is_named_in_all_the_ways_of_ipykernel(arguments: list[str]) -> None:
    assert parse(arguments) == Options(Config(), "/run/kernel.json")


def test_nothing_gives_the_defaults() -> None:
    assert parse([]) == Options(Config())


def test_settings_are_read_with_both_spellings() -> None:
    options = parse(["--set", "interrupt_grace_s=5", "--set=interrupt_policy=never"])
    assert options.config == Config(interrupt_grace_s=5.0, interrupt_policy="never")


def test_the_value_of_a_setting_may_hold_an_equals_sign() -> None:
    assert parse(["--set", "profile=a=b"]).config.profile == "a=b"


def test_traits_go_to_ipython() -> None:
    trait = "--IPCompleter.use_jedi=False\nx"
    assert parse([trait, "--A.b=1"]).config.ipython_arguments == [trait, "--A.b=1"]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--profile-dir", "/p"], ["--profile-dir=/p"]),
        (["--matplotlib", "--ext=autoreload"], ["--matplotlib", "--ext=autoreload"]),
        (["--matplotlib", "inline", "--no-pdb"], ["--matplotlib=inline", "--no-pdb"]),
    ],
)
def test_the_short_names_of_ipython_go_to_ipython(arguments: list[str], given: list[str]) -> None:
    assert parse(arguments).config.ipython_arguments == given


def test_a_profile_may_be_named_as_for_ipython() -> None:
    assert parse(["--profile", "mine"]) == parse(["--profile=mine"])
    assert parse(["--profile=mine"]).config.profile == "mine"


def test_options_that_servers_pass_to_any_kernel_are_ignored() -> None:
    assert parse(["--debug", "--log-level=10", "--quiet"]) == Options(Config())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f"], "option -f needs a value"),
        (["--set"], "option --set needs a value"),
        (["--profile"], "option --profile needs a value"),
        (["--cache-size"], "option --cache-size needs a value"),
        (["--set", "interrupt_grace_s"], "has no value"),
        (["--set", "colour=red"], "unknown setting 'colour'"),
        (["--set", "interrupt_grace_s=soon"], "bad setting"),
        (["--set", "interrupt_grace_s=-1"], "bad setting"),
        (["--dance"], "unknown option '--dance'"),
        (["stray"], "unknown option 'stray'"),
    ],
)
def test_a_wrong_command_line_is_refused_in_words(arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(arguments)


@pytest.mark.parametrize(("value", "pid"), [("12", 12), ("13", None), ("", None), ("x", None)])
def test_the_launcher_is_our_parent_if_the_environment_says_so(value: str, pid: int | None) -> None:
    assert command_line.parse([], {"JPY_PARENT_PID": value}, 12).launcher_pid == pid
