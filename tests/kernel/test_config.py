"""Settings: each is reachable by name, converted to its type, bounded, or refused in one line."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck import config as config_module
from unstuck.config import (
    SETTINGS,
    Config,
    WorkerConfig,
    make_config,
    parse_settings,
    settings_of,
)
from unstuck.errors import ConfigError

DEFAULTS = msgspec.structs.asdict(Config())


def example(default: object) -> tuple[str, Any]:
    """Give another value of a setting, as text and as it is read."""
    match default:
        case bool():
            return str(not default).lower(), not default
        case int():
            return str(default + 7), default + 7
        case float():
            return str(default / 2 + 0.001), default / 2 + 0.001
        case list():
            return "--Class.trait=value", ["--Class.trait=value"]
        case _:
            return "always", "always"


# --- every setting --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_can_be_set_by_its_name(name: str) -> None:
    text, value = example(DEFAULTS[name])
    config = parse_settings([f"{name}={text}"])
    assert msgspec.structs.asdict(config) == {**DEFAULTS, name: value}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_says_what_it_means_and_has_its_unit_in_its_name(name: str) -> None:
    source = inspect.getsource(config_module)
    described = re.search(rf'^    {name}: .*(?:\n        .*)*\n    """\S', source, re.MULTILINE)
    assert described, f"{name} has no description below it"
    default = DEFAULTS[name]
    if isinstance(default, float):
        assert name.endswith(("_s", "_share"))
    elif isinstance(default, int) and default > 1:
        assert "bytes" in name or name.endswith("_count")


def test_the_defaults_need_no_setting() -> None:
    assert parse_settings([]) == Config() == make_config({})


def test_several_settings_are_read_and_the_last_of_one_name_wins() -> None:
    config = parse_settings(["history=false", "memory_bytes=5", "history=true", "jedi=0"])
    assert config.history is True
    assert config.jedi is False
    assert config.memory_bytes == 5


def test_arguments_for_ipython_are_collected_and_may_hold_an_equals_sign() -> None:
    config = parse_settings(
        ["ipython_arguments=--A.b=c", "ipython_arguments=--D.e=f=g", "matplotlib_backend=x=y"]
    )
    assert config.ipython_arguments == ["--A.b=c", "--D.e=f=g"]
    assert config.matplotlib_backend == "x=y"


def test_settings_of_their_own_type_are_taken_as_they_are() -> None:
    config = make_config({"history": False, "interrupt_grace_s": 3, "processes": 4})
    assert (config.history, config.interrupt_grace_s, config.processes) == (False, 3.0, 4)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().history = False  # type: ignore[misc] # that is what must fail


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("history", "setting 'history' has no value: write NAME=VALUE"),
        ("", "setting '' has no value: write NAME=VALUE"),
        ("=5", "unknown setting ''"),
        ("historie=1", "unknown setting 'historie': it is one of autosave_every_s, "),
        ("History=1", "unknown setting 'History'"),
        (" history=1", "unknown setting ' history'"),
        ("history=maybe", "$.history"),
        ("history=", "$.history"),
        ("interrupt_policy=sometimes", "$.interrupt_policy"),
        ("interrupt_grace_s=soon", "$.interrupt_grace_s"),
        ("interrupt_grace_s=-1", "$.interrupt_grace_s"),
        ("memory_bytes=1.5", "$.memory_bytes"),
        ("memory_bytes=-1", "$.memory_bytes"),
        ("memory_bytes=1GB", "$.memory_bytes"),
        ("processes=-1", "$.processes"),
        ("stream_flush_s=0.2", "$.stream_flush_s"),
        ("stream_bytes=0", "$.stream_bytes"),
        ("subscription_wait_s=6", "$.subscription_wait_s"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it(pair: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings([pair])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(n for n in SETTINGS if n.endswith("_s")))
def test_a_duration_is_a_number_and_not_negative(name: str) -> None:
    for text in ("nan", "-0.1", "-inf"):
        with pytest.raises(ConfigError, match=name):
            parse_settings([f"{name}={text}"])


@pytest.mark.parametrize(
    "values", [{"no_such": 1}, {"history": None}, {"processes": True}, {"profile": 5}]
)
def test_values_of_a_wrong_type_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_config(values)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.text(), st.tuples(st.sampled_from(sorted(SETTINGS)), st.text()))))
def test_no_text_raises_anything_but_a_config_error(pairs: list[str | tuple[str, str]]) -> None:
    try:
        parse_settings([pair if isinstance(pair, str) else "=".join(pair) for pair in pairs])
    except ConfigError:
        return


# --- what the worker is told ----------------------------------------------------------------------


def test_the_worker_is_told_all_settings_and_reads_them_as_they_were_sent() -> None:
    config = parse_settings(["history=false", "ipython_arguments=--A.b=1", "interrupt_grace_s=9"])
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(settings_of(config)))
    assert set(sent) == SETTINGS
    assert msgspec.convert(sent, Config) == config


def test_the_broker_has_every_setting_of_the_worker() -> None:
    assert set(WorkerConfig.__struct_fields__) < SETTINGS
