"""The vocabulary: what each name equals, prints, hashes and pickles as (reference, section 2)."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING

import msgspec
import pytest

from unstuck.typing import (
    NO_VALUE,
    BrokerMsgType,
    KernelConcurrencyMode,
    MetadataKeys,
    MsgType,
    NoValue,
    RunMode,
    SocketID,
    Tags,
)

if TYPE_CHECKING:
    from enum import StrEnum

MODES = ["queue", "task", "thread", "blocking", "process"]


# --- RunMode --------------------------------------------------------------------------------------


def test_the_modes_are_these_in_this_order() -> None:
    assert [mode.name for mode in RunMode] == [mode.value for mode in RunMode] == MODES


@pytest.mark.parametrize("mode", RunMode)
def test_a_mode_prints_as_its_directive(mode: RunMode) -> None:
    directive = f"##{mode.value}"
    assert str(mode) == directive
    assert f"{mode}" == directive
    assert f"{mode!s:>12}" == directive.rjust(12)
    assert f"{mode:>12}" == directive.rjust(12)
    assert "{}".format(mode) == directive  # noqa: UP032 - the other spelling
    assert "%s" % mode == directive  # noqa: UP031 - the other spelling


@pytest.mark.parametrize("mode", RunMode)
def test_a_mode_has_a_repr_of_its_own(mode: RunMode) -> None:
    assert repr(mode) == f"<RunMode.{mode.value}: '{mode.value}'>"


@pytest.mark.parametrize("name", MODES)
def test_a_mode_equals_its_name_its_directive_and_its_repr_in_both_orders(name: str) -> None:
    mode = RunMode(name)
    for same in (name, f"##{name}", f"<RunMode.{name}: '{name}'>", mode):
        assert mode == same
        assert same == mode
        assert not mode != same  # noqa: SIM202 - __ne__ is a method of its own
        assert not same != mode  # noqa: SIM202
    others: list[object] = [f"RunMode.{name}", f"## {name}", name.upper(), "", None, 5, [name]]
    for other in others:
        assert mode != other
        assert other != mode
        assert not mode == other  # noqa: SIM201
        assert not other == mode  # noqa: SIM201


def test_modes_differ_from_each_other() -> None:
    for one in RunMode:
        assert [one == other for other in RunMode].count(True) == 1
        assert [one != other for other in RunMode].count(False) == 1


def test_lists_of_modes_compare_with_their_directives_names_and_reprs() -> None:
    modes = list(RunMode)
    assert modes == [f"##{name}" for name in MODES]
    assert modes == MODES
    assert modes == [f"<RunMode.{name}: '{name}'>" for name in MODES]


@pytest.mark.parametrize("mode", RunMode)
def test_a_mode_hashes_as_its_name(mode: RunMode) -> None:
    assert hash(mode) == hash(mode.value)
    assert mode in {mode.value}
    assert {mode: 1}[mode.value] == 1  # type: ignore[index] # a mode is its name
    assert f"##{mode.value}" not in {mode}


@pytest.mark.parametrize("mode", RunMode)
def test_a_mode_serialises_as_its_name(mode: RunMode) -> None:
    assert json.dumps(mode) == f'"{mode.value}"'
    assert msgspec.json.encode(mode) == f'"{mode.value}"'.encode()
    assert msgspec.json.decode(f'"{mode.value}"', type=RunMode) is mode
    assert pickle.loads(pickle.dumps(mode)) is mode
    assert copy.deepcopy(mode) is mode


def test_a_mode_is_made_from_its_name_alone() -> None:
    for text in ("##task", "RunMode.task", "Task", "", "# task"):
        with pytest.raises(ValueError, match="is not a valid RunMode"):
            RunMode(text)


def test_the_mode_that_a_cell_asks_for_can_be_read() -> None:
    assert RunMode.get_mode("\n ##task\nx") is RunMode.task
    assert RunMode.get_mode("RunMode.thread  # noqa: B018") is RunMode.thread
    assert RunMode.get_mode("x\n##task") is None
    with pytest.raises(ValueError, match="takes no options"):
        RunMode.get_mode("##task name=a")


def test_text_methods_act_on_the_name() -> None:
    assert RunMode.task.replace("##", "") == "task"
    assert RunMode.task.upper() == "TASK"
    assert isinstance(RunMode.task, str)


def test_pandas_takes_the_directive_off_as_the_page_does() -> None:
    pandas = pytest.importorskip("pandas")
    assert list(pandas.Series(list(RunMode)).str.replace("##", "")) == MODES


# --- the other names ------------------------------------------------------------------------------


def values(enum: type[StrEnum]) -> list[str]:
    """Give what an enum's members print as, which is their value."""
    assert [str(member) for member in enum] == [member.value for member in enum]
    return [member.value for member in enum]


def test_the_channels_are_named_as_in_a_connection_file() -> None:
    assert {member.name: member.value for member in SocketID} == {
        "heartbeat": "hb",
        "shell": "shell",
        "stdin": "stdin",
        "control": "control",
        "iopub": "iopub",
    }


def test_the_message_types_are_those_of_the_reference_in_its_order() -> None:
    assert values(MsgType) == [
        "kernel_info_request",
        "comm_info_request",
        "execute_request",
        "complete_request",
        "is_complete_request",
        "inspect_request",
        "history_request",
        "comm_open",
        "comm_msg",
        "comm_close",
        "interrupt_request",
        "shutdown_request",
        "debug_request",
    ]
    assert all(member.name == member.value for member in MsgType)


def test_message_types_of_the_broker_are_kept_apart() -> None:
    assert not set(values(BrokerMsgType)) & set(values(MsgType))
    assert all(member.name == member.value for member in BrokerMsgType)


def test_the_concurrency_modes_print_as_their_value() -> None:
    assert values(KernelConcurrencyMode) == ["default", "blocking"]


def test_metadata_keys_and_tags_find_themselves_in_a_dict_by_their_value() -> None:
    assert values(MetadataKeys) == ["tags", "timeout", "suppress-error-message"]
    assert {"suppress-error-message": 1}.get(MetadataKeys.suppress_error_message) == 1
    assert Tags.suppress_error in ["suppress-error"]
    assert values(Tags) == [
        "suppress-error",
        "raises-exception",
        "stop-on-error=",
        "timeout=",
        "snapshot",
        "no-snapshot",
    ]


@pytest.mark.parametrize("member", [*MetadataKeys, *Tags])
def test_metadata_keys_and_tags_equal_their_name_too_and_hash_as_their_value(
    member: MetadataKeys | Tags,
) -> None:
    for same in (member.name, member.value, member):
        assert member == same
        assert same == member
        assert not member != same  # noqa: SIM202 - __ne__ is a method of its own
    assert [other == member for other in type(member)].count(True) == 1
    for other in ("", member.name.upper(), None, 5):
        assert member != other
        assert not member == other  # noqa: SIM201
    assert hash(member) == hash(member.value)


def test_no_value_is_neither_none_nor_anything_else() -> None:
    assert NO_VALUE is NoValue.token
    assert NO_VALUE is not None
    assert list(NoValue) == [NO_VALUE]
