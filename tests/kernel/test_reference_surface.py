"""The names and parameters that the reference offers are offered here, with some of later ones."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from unstuck import caller, future, locks, typing, utils
from unstuck.caller import Caller
from unstuck.future import Future

# Each call that the reference documents, as its callers write it.
FUTURE = {
    "wait": ["timeout", "shield", "result"],
    "wait_sync": ["timeout", "shield", "result"],
    "set_result": ["value"],
    "set_exception": ["exception"],
    "done": [],
    "cancelled": [],
    "cancel": ["msg"],
    "result": [],
    "exception": [],
    "add_done_callback": ["fn"],
    "remove_done_callback": ["fn"],
    "set_cancel_scope": ["scope"],
    "get_caller": [],
}
CALLER = {
    "call_soon": ["func", "args", "kwargs"],
    "call_later": ["delay", "func", "args", "kwargs"],
    "call_direct": ["func", "args", "kwargs"],
    "queue_call": ["func", "args", "max_buffer_size", "wait"],
    "queue_exists": ["func"],
    "queue_close": ["func"],
    "stop": ["force"],
    "stop_all": ["_stop_protected"],
    "get_instance": ["name", "create"],
    "start_new": ["backend", "log", "name", "protected", "backend_options"],
    "to_thread_by_name": ["name", "func", "args", "kwargs"],
    "current_future": [],
    "all_callers": ["running_only"],
    "as_completed": ["items", "max_concurrent", "shield"],
    "wait": ["items", "timeout", "return_when"],
    # Added by newer versions.
    "queue_get": ["func"],
    "call_using_backend": ["backend", "func", "args", "kwargs"],
}
DEFAULTS: dict[tuple[type, str, str], Any] = {
    (Future, "wait", "timeout"): None,
    (Future, "wait", "shield"): False,
    (Future, "wait", "result"): True,
    (Caller, "stop", "force"): False,
    (Caller, "queue_call", "wait"): False,
    (Caller, "get_instance", "name"): "MainThread",
    (Caller, "get_instance", "create"): False,
    (Caller, "start_new", "protected"): False,
    (Caller, "all_callers", "running_only"): True,
    (Caller, "as_completed", "shield"): False,
    (Caller, "wait", "timeout"): None,
    (Caller, "wait", "return_when"): "ALL_COMPLETED",
}
UTILS = {
    *("get_kernel", "get_job", "get_parent", "get_metadata", "get_tags"),
    *("get_execute_request_timeout", "get_execution_count", "mark_thread_pydev_do_not_trace"),
    *("do_not_debug_this_thread", "setattr_nested", "wait_thread_event", "LAUNCHED_BY_DEBUGPY"),
}
TYPES = {
    *("SocketID", "RunMode", "KernelConcurrencyMode", "MsgType", "MetadataKeys", "Tags"),
    *("MsgHeader", "Message", "Job", "ExecuteContent", "NoValue", "Content"),
}
CALLS = [
    *((Future, name, parameters) for name, parameters in FUTURE.items()),
    *((Caller, name, parameters) for name, parameters in CALLER.items()),
]


@pytest.mark.parametrize(("owner", "name", "parameters"), CALLS)
def test_a_method_takes_the_parameters_of_the_reference(
    owner: type, name: str, parameters: list[str]
) -> None:
    offered = inspect.signature(getattr(owner, name)).parameters
    names = [offered_name for offered_name in offered if offered_name != "self"]
    assert [offered_name for offered_name in names if offered_name in parameters] == parameters
    for parameter in parameters:
        if (owner, name, parameter) in DEFAULTS:
            assert offered[parameter].default == DEFAULTS[owner, name, parameter]


def test_a_caller_has_the_constructor_the_limits_and_the_facts_of_the_reference() -> None:
    parameters = inspect.signature(Caller.__new__).parameters
    assert list(parameters)[1:] == ["thread", "log", "create", "protected"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])
    assert (Caller.MAX_IDLE_POOL_INSTANCES, Caller.MAX_BUFFER_SIZE) == (10, 1000)
    for name in ("protected", "running", "stopped"):
        assert isinstance(inspect.getattr_static(Caller, name), property)
    assert {"thread", "backend", "log"} <= set(Caller.__annotations__)


def test_the_modules_have_the_names_of_the_reference() -> None:
    assert {name for name in UTILS if not hasattr(utils, name)} == set()
    assert {name for name in TYPES if not hasattr(typing, name)} == set()
    for name in ("Caller", "Future", "FutureCancelledError", "InvalidStateError"):
        assert hasattr(caller, name)
    for name in ("AsyncLock", "ReentrantAsyncLock"):
        assert getattr(caller, name) is getattr(locks, name)
    assert caller.Future is future.Future


def test_a_cancelled_future_is_a_closed_resource_to_anyio() -> None:
    import anyio

    assert issubclass(caller.FutureCancelledError, anyio.ClosedResourceError)
    assert issubclass(caller.InvalidStateError, RuntimeError)
