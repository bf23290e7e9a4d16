"""execute_request: outputs, counts, payloads and expressions of messaging specification 5.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.spec import ours

if TYPE_CHECKING:
    from e2e.kernel_client import Kernel


def test_a_cell_is_echoed_then_prints_then_gives_its_result(kernel: Kernel) -> None:
    result = kernel.run_ok("print('hello')\n6 * 7")
    assert result.kinds == ["execute_input", "stream", "execute_result"]
    (echo,) = result.of("execute_input")
    (value,) = result.of("execute_result")
    count = result.content["execution_count"]
    assert echo["content"] == {"code": "print('hello')\n6 * 7", "execution_count": count}
    assert value["content"]["execution_count"] == count
    assert value["content"]["data"] == {"text/plain": "42"}
    assert result.stdout == "hello\n"


def test_a_reply_has_payload_expressions_and_metadata(kernel: Kernel) -> None:
    result = kernel.run_ok("1")
    assert result.content["payload"] == []
    assert result.content["user_expressions"] == {}
    metadata = result.reply["metadata"]
    assert metadata["started"]
    assert metadata["dependencies_met"] is True
    assert metadata["engine"]
    assert metadata["status"] == "ok"


def test_executions_are_counted_one_by_one(kernel: Kernel) -> None:
    first = kernel.run_ok("1").content["execution_count"]
    assert kernel.run_ok("2").content["execution_count"] == first + 1
    assert kernel.run("1/0").content["execution_count"] == first + 2
    assert kernel.run("x = (").content["execution_count"] == first + 3
    assert kernel.run_ok("3").content["execution_count"] == first + 4


def test_a_silent_request_publishes_nothing_and_is_not_counted(kernel: Kernel) -> None:
    before = kernel.run_ok("1").content["execution_count"]
    result = kernel.run_ok("silent_name = 5\n5", silent=True)
    assert result.kinds == []
    assert kernel.evaluate("silent_name") == "5"
    assert kernel.run_ok("2").content["execution_count"] == before + 1


def test_without_store_history_the_count_stays(kernel: Kernel) -> None:
    before = kernel.run_ok("1").content["execution_count"]
    result = kernel.run_ok("'not stored'", store_history=False)
    assert result.value == "'not stored'"
    after = kernel.run_ok("2").content["execution_count"]
    assert after == before + 1


def test_user_expressions_give_values_and_errors_one_by_one(kernel: Kernel) -> None:
    expressions = {"good": "a + 1", "bad": "1/0", "rich": "html"}
    code = "from IPython.display import HTML\na = 1\nhtml = HTML('<b>bold</b>')"
    answers = kernel.run_ok(code, user_expressions=expressions).content["user_expressions"]
    assert answers["good"]["status"] == "ok"
    assert answers["good"]["data"] == {"text/plain": "2"}
    assert answers["good"]["metadata"] == {}
    assert answers["bad"]["status"] == "error"
    assert answers["bad"]["ename"] == "ZeroDivisionError"
    assert answers["rich"]["data"]["text/html"] == "<b>bold</b>"


def test_user_expressions_are_not_evaluated_after_an_error(kernel: Kernel) -> None:
    result = kernel.run("1/0", user_expressions={"it": "1"})
    assert result.status == "error"
    assert result.content.get("user_expressions", {}) == {}


def test_an_error_is_in_the_reply_and_on_iopub_alike(kernel: Kernel) -> None:
    result = kernel.run("def fail():\n    raise ValueError('as wanted')\nfail()")
    for content in (result.content, result.error):
        assert content["ename"] == "ValueError"
        assert content["evalue"] == "as wanted"
        assert any("as wanted" in line for line in content["traceback"])
    assert result.reply["metadata"]["status"] == "error"


def test_the_pager_comes_as_a_payload_once(kernel: Kernel) -> None:
    (payload,) = kernel.run_ok("len?").content["payload"]
    assert payload["source"] == "page"
    assert payload["start"] == 0
    assert "number of items" in payload["data"]["text/plain"]
    assert kernel.run_ok("1").content["payload"] == []


def test_set_next_input_is_a_payload(kernel: Kernel) -> None:
    code = "get_ipython().set_next_input('next cell')"
    assert kernel.run_ok(code).content["payload"] == [
        {"source": "set_next_input", "text": "next cell", "replace": False}
    ]


@pytest.mark.parametrize("name", ["exit", "quit"])
def test_exit_asks_the_frontend_to_end_the_session(fresh_kernel: Kernel, name: str) -> None:
    (payload,) = fresh_kernel.run_ok(f"{name}()").content["payload"]
    assert payload["source"] == "ask_exit"
    assert payload["keepkernel"] is False


def test_a_display_is_updated_by_its_id(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "handle = display('first', display_id='the-id')\n"
        "handle.update('second')\n"
        "anonymous = display('third', display_id=True)"
    )
    assert result.kinds == ["execute_input", "display_data", "update_display_data", "display_data"]
    first, third = result.of("display_data")
    (second,) = result.of("update_display_data")
    assert first["content"]["transient"] == {"display_id": "the-id"}
    assert second["content"]["transient"] == {"display_id": "the-id"}
    assert second["content"]["data"]["text/plain"] == "'second'"
    assert third["content"]["transient"]["display_id"]
    later = kernel.run_ok("anonymous.update('fourth')")
    (fourth,) = later.of("update_display_data")
    assert fourth["content"]["transient"] == third["content"]["transient"]


def test_a_display_without_id_has_an_empty_transient(kernel: Kernel) -> None:
    (message,) = kernel.run_ok("display({'a': 1}, raw=False)").of("display_data")
    assert message["content"]["transient"] == {}
    assert message["content"]["metadata"] == {}


def test_clear_output_says_whether_to_wait(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "from IPython.display import clear_output\n"
        "print('before')\nclear_output(wait=True)\nclear_output()\nprint('after')"
    )
    waits = [m["content"]["wait"] for m in result.of("clear_output")]
    assert waits == [True, False]
    assert result.kinds[1:3] == ["stream", "clear_output"], "what was printed comes before"
    assert result.kinds[-1] == "stream"


def test_raw_mime_bundles_and_metadata_arrive_as_given(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "from IPython.display import publish_display_data as p\n"
        "p({'application/x-test+json': {'π': [1, None, 'é']}}, metadata={'m': {'width': 3}})"
    )
    (message,) = result.of("display_data")
    assert message["content"]["data"] == {"application/x-test+json": {"π": [1, None, "é"]}}
    assert message["content"]["metadata"] == {"m": {"width": 3}}


def test_an_error_aborts_the_cells_that_wait_and_not_later_ones(kernel: Kernel) -> None:
    kernel.run_ok("import time")
    failing = kernel.execute("time.sleep(0.5)\n1/0")
    waiting = [kernel.execute(f"never_{number} = 1") for number in range(3)]
    info = kernel.send("kernel_info_request")
    assert kernel.finish(failing).status == "error"
    for result in waiting:
        kernel.finish(result)
        assert result.status == "aborted"
        assert "execute_input" not in result.kinds
    assert kernel.finish(info).status == "ok", "only cells are aborted"
    assert kernel.evaluate("[name for name in dir() if name.startswith('never_')]") == "[]"
    assert kernel.run_ok("'later'").value == "'later'"


def test_a_cell_that_says_so_does_not_abort_the_queue(kernel: Kernel) -> None:
    kernel.run_ok("import time")
    failing = kernel.execute("time.sleep(0.2)\n1/0", stop_on_error=False)
    waiting = kernel.execute("'ran'")
    assert kernel.finish(failing).status == "error"
    assert kernel.finish(waiting).value == "'ran'"


@ours
def test_what_is_sent_right_after_the_error_reply_runs(kernel: Kernel) -> None:
    for _ in range(20):
        kernel.run("1/0")
        assert kernel.run("'ran'").status == "ok"


def test_many_cells_sent_at_once_run_in_order(kernel: Kernel) -> None:
    kernel.run_ok("order = []")
    results = [kernel.execute(f"order.append({number})\n{number}") for number in range(100)]
    values = [kernel.finish(result).value for result in results]
    assert values == [str(number) for number in range(100)]
    assert kernel.evaluate("order == list(range(100))") == "True"


def test_an_empty_cell_and_one_of_comments_are_ok(kernel: Kernel) -> None:
    for code in ("", "   \n", "# nothing"):
        assert kernel.run_ok(code).of("execute_result") == []


def test_the_last_results_have_their_names(kernel: Kernel) -> None:
    count = kernel.run_ok("'the value'").content["execution_count"]
    assert kernel.run_ok(f"(_, Out[{count}], _{count})").value == str(("the value",) * 3)
    assert kernel.run_ok("In[-1]").value == "'In[-1]'"


def test_a_semicolon_hides_the_result(kernel: Kernel) -> None:
    assert kernel.run_ok("'hidden';").of("execute_result") == []


def test_an_execute_request_without_optional_fields_runs(kernel: Kernel) -> None:
    result = kernel.request("execute_request", {"code": "'defaults'"})
    assert result.value == "'defaults'"
