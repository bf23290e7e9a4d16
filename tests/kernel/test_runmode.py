"""The one decision how a request runs: the reference's table, the precedence, the directives."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from unstuck.runmode import (
    RunModeRequest,
    all_concurrency_run_modes,
    get_run_mode,
    parse_run_mode,
)
from unstuck.typing import BrokerMsgType, KernelConcurrencyMode, MsgType, RunMode, SocketID

# The pivot that the concurrency page prints:
# default on shell, blocking on shell, default on control, blocking on control.
PAGE = """
comm_close          | blocking | blocking | blocking | blocking
comm_info_request   | blocking | blocking | blocking | blocking
comm_msg            | task     | blocking | task     | blocking
comm_open           | blocking | blocking | blocking | blocking
complete_request    | thread   | blocking | thread   | blocking
debug_request       | None     | blocking | task     | blocking
execute_request     | queue    | blocking | task     | blocking
history_request     | thread   | blocking | thread   | blocking
inspect_request     | thread   | blocking | thread   | blocking
interrupt_request   | task     | blocking | task     | blocking
is_complete_request | thread   | blocking | thread   | blocking
kernel_info_request | blocking | blocking | blocking | blocking
shutdown_request    | None     | blocking | task     | blocking
"""
COLUMNS = [
    (SocketID.shell, KernelConcurrencyMode.default),
    (SocketID.shell, KernelConcurrencyMode.blocking),
    (SocketID.control, KernelConcurrencyMode.default),
    (SocketID.control, KernelConcurrencyMode.blocking),
]
TABLE = {
    (channel, concurrency_mode, MsgType(name)): None if mode == "None" else RunMode(mode)
    for line in PAGE.strip().splitlines()
    for name, *modes in [[cell.strip() for cell in line.split("|")]]
    for (channel, concurrency_mode), mode in zip(COLUMNS, modes, strict=True)
}


def execute(code: str = "1", **says: Any) -> RunMode:  # noqa: ANN401 - fields of RunModeRequest
    """Decide an execute request on shell in default mode."""
    return get_run_mode(MsgType.execute_request, request=RunModeRequest(code, **says))


# --- the table ------------------------------------------------------------------------------------


def test_the_page_has_52_cells() -> None:
    assert len(TABLE) == 52
    places = itertools.product((SocketID.shell, SocketID.control), KernelConcurrencyMode, MsgType)
    assert set(TABLE) == set(places)


@pytest.mark.parametrize(("channel", "concurrency_mode", "kind"), TABLE)
def test_the_table_of_the_page_holds_cell_for_cell(
    channel: SocketID, concurrency_mode: KernelConcurrencyMode, kind: MsgType
) -> None:
    expected = TABLE[channel, concurrency_mode, kind]
    if expected is None:
        with pytest.raises(ValueError, match=f"{kind} is not allowed on shell: send it on control"):
            get_run_mode(kind, channel=channel, concurrency_mode=concurrency_mode)
    else:
        mode = get_run_mode(kind, channel=channel, concurrency_mode=concurrency_mode)
        assert mode is expected


def test_all_run_modes_are_listed_as_columns_in_the_order_of_the_reference() -> None:
    columns = all_concurrency_run_modes()
    assert list(columns) == ["SocketID", "KernelConcurrencyMode", "MsgType", "RunMode"]
    assert {len(column) for column in columns.values()} == {52}
    rows = list(zip(*columns.values(), strict=True))
    places = [
        (channel, mode, kind)
        for channel in (SocketID.shell, SocketID.control)
        for mode in KernelConcurrencyMode
        for kind in MsgType
    ]
    assert rows == [(*place, TABLE[place]) for place in places]
    assert all(isinstance(mode, RunMode | None) for mode in columns["RunMode"])


def test_a_part_of_the_table_can_be_asked_for_with_iterators_too() -> None:
    columns = all_concurrency_run_modes(
        iter([SocketID.shell]), iter([MsgType.comm_msg, MsgType.debug_request])
    )
    assert columns["RunMode"] == (RunMode.task, None, RunMode.blocking, RunMode.blocking)


def test_the_pandas_pivot_of_the_page_prints_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame(all_concurrency_run_modes())
    data["RunMode"] = data.RunMode.str.replace("##", "")
    pivot = data.pivot(
        index="MsgType", columns=["KernelConcurrencyMode", "SocketID"], values="RunMode"
    )
    assert pivot.shape == (13, 4)
    assert list(pivot.index) == [line.split("|")[0].strip() for line in PAGE.strip().splitlines()]
    for (channel, concurrency_mode, kind), expected in TABLE.items():
        cell = pivot.loc[kind, (concurrency_mode, channel)]
        assert cell == expected if expected else pandas.isna(cell) or cell is None


@pytest.mark.parametrize("kind", BrokerMsgType)
@pytest.mark.parametrize("channel", [SocketID.shell, SocketID.control])
def test_what_the_broker_serves_by_itself_is_blocking(
    kind: BrokerMsgType, channel: SocketID
) -> None:
    assert get_run_mode(kind, channel=channel) is RunMode.blocking


# --- the precedence -------------------------------------------------------------------------------

# Each level of the precedence with a value of its own, the strongest first.
LEVELS: list[tuple[str, dict[str, Any], RunMode]] = [
    ("code", {"code": "##thread"}, RunMode.thread),
    ("header", {"header_mode": "blocking"}, RunMode.blocking),
    ("metadata", {"metadata": {"run_mode": "queue"}}, RunMode.queue),
    ("silent", {"silent": True}, RunMode.task),
    ("tag", {"metadata": {"tags": ["thread"]}}, RunMode.thread),
]


@pytest.mark.parametrize("chosen", range(32))
def test_the_strongest_of_all_that_is_said_wins(chosen: int) -> None:
    said = [level for at, level in enumerate(LEVELS) if chosen & 1 << at]
    request: dict[str, Any] = {"metadata": {}}
    for _, fields, _ in said:
        for name, value in fields.items():
            if name == "metadata":
                request["metadata"] |= value
            else:
                request[name] = value
    expected = said[0][2] if said else RunMode.queue
    assert get_run_mode(MsgType.execute_request, request=RunModeRequest(**request)) is expected


@pytest.mark.parametrize("says", [fields for _, fields, _ in LEVELS])
def test_concurrency_mode_blocking_overrules_everything(says: dict[str, Any]) -> None:
    for channel in (SocketID.shell, SocketID.control):
        mode = get_run_mode(
            MsgType.execute_request,
            channel=channel,
            concurrency_mode=KernelConcurrencyMode.blocking,
            request=RunModeRequest(**says),
        )
        assert mode is RunMode.blocking


@pytest.mark.parametrize("says", [fields for _, fields, _ in LEVELS])
def test_an_execute_request_on_control_is_a_task_whatever_it_says(says: dict[str, Any]) -> None:
    request = RunModeRequest(**says)
    mode = get_run_mode(MsgType.execute_request, channel=SocketID.control, request=request)
    assert mode is RunMode.task


OTHERS = sorted(set(MsgType) - {MsgType.execute_request})


@pytest.mark.parametrize("kind", OTHERS)
def test_a_request_that_is_no_cell_has_no_code_and_no_tags_to_choose_by(kind: MsgType) -> None:
    request = RunModeRequest("##queue", None, {"tags": ["queue"]}, True)
    for channel in (SocketID.shell, SocketID.control):
        expected = TABLE[channel, KernelConcurrencyMode.default, kind]
        if expected is not None:
            assert get_run_mode(kind, channel=channel, request=request) is expected


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("mode", RunMode)
def test_a_run_mode_on_a_type_that_does_not_take_it_is_refused(
    kind: MsgType, mode: RunMode
) -> None:
    own = TABLE[SocketID.control, KernelConcurrencyMode.default, kind]
    assert own is not None
    for says in (RunModeRequest(header_mode=mode), RunModeRequest(metadata={"run_mode": mode})):
        if mode is own:
            assert get_run_mode(kind, channel=SocketID.control, request=says) is own
            continue
        only = f"{kind} runs as {own.name}: only execute_request takes a run mode"
        with pytest.raises(ValueError, match=only):
            get_run_mode(kind, channel=SocketID.control, request=says)
        blocking = KernelConcurrencyMode.blocking
        assert get_run_mode(kind, concurrency_mode=blocking, request=says) is RunMode.blocking


def test_metadata_may_name_the_mode_under_our_own_name() -> None:
    assert execute(metadata={"unstuck": {"run_mode": "##task"}}) is RunMode.task
    both = {"run_mode": "thread", "unstuck": {"run_mode": "task"}}
    assert execute(metadata=both) is RunMode.thread
    for nothing in ({}, None, "task", 5, {"run_mode": None}):
        assert execute(metadata={"unstuck": nothing}) is RunMode.queue


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("spelled", ["{}", "##{}", "RunMode.{}"])
def test_header_and_metadata_take_a_mode_by_name_directive_or_member(
    mode: RunMode, spelled: str
) -> None:
    text = spelled.format(mode.value)
    assert execute(header_mode=text) is mode
    assert execute(metadata={"run_mode": text}) is mode
    assert parse_run_mode(json.loads(json.dumps(mode)), "test") is mode


@pytest.mark.parametrize("bad", ["", "fast", "## task", "##Task", "# task", 5, True, ["task"], {}])
def test_an_unknown_mode_is_refused_with_its_place_and_the_choices(bad: object) -> None:
    places: list[tuple[dict[str, Any], str]] = [
        ({"header_mode": bad}, "message header"),
        ({"metadata": {"run_mode": bad}}, "message metadata"),
    ]
    for says, where in places:
        with pytest.raises(ValueError, match="use one of queue, task, thread, blocking") as caught:
            execute(**says)
        assert f"unknown run mode {bad!r} in the {where}" in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "mode"),
    [
        (["thread"], RunMode.thread),
        (["##thread"], RunMode.thread),
        (["a", "blocking", "b"], RunMode.blocking),
        (["thread", "task"], RunMode.task),
        (["task", "thread"], RunMode.task),
        (["Thread"], RunMode.queue),
        (["threads", "my thread", "## thread", "RunMode.thread"], RunMode.queue),
        ([], RunMode.queue),
        (None, RunMode.queue),
        ("thread", RunMode.queue),
        ([None, 5, {"thread": 1}, ["thread"]], RunMode.queue),
        ({"thread": 1}, RunMode.queue),
        (5, RunMode.queue),
    ],
)
def test_a_tag_that_is_a_mode_chooses_it_and_no_other_tag_harms(
    tags: object, mode: RunMode
) -> None:
    assert execute(metadata={"tags": tags}) is mode
