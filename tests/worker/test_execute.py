"""Cells run and are answered as ipykernel and the messaging specification have it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from unstuck.protocol import AskExit, Publish, Stream, StreamName
from unstuck.typing import RunMode

if TYPE_CHECKING:
    from pathlib import Path

    from worker.broker_double import WorkerDouble
    from worker.conftest import StartWorker

MODES = list(RunMode)


@pytest.mark.parametrize("mode", MODES)
def test_a_value_is_an_execute_result_in_every_mode(worker: WorkerDouble, mode: RunMode) -> None:
    outputs = worker.run("6 * 7", mode=mode)
    count = outputs.reply["execution_count"]
    assert outputs.reply == {
        "status": "ok",
        "execution_count": count,
        "user_expressions": {},
        "payload": [],
    }
    (result,) = outputs.published("execute_result")
    assert result == {"execution_count": count, "data": {"text/plain": "42"}, "metadata": {}}


@pytest.mark.parametrize("mode", MODES)
def test_a_top_level_await_works_in_every_mode(worker: WorkerDouble, mode: RunMode) -> None:
    assert (
        worker.run("import asyncio; await asyncio.sleep(0.01, 'slept')", mode=mode).result
        == "'slept'"
    )


def test_the_metadata_of_a_reply_tells_start_and_status(worker: WorkerDouble) -> None:
    metadata = worker.run("1").metadata
    assert metadata["status"] == "ok"
    assert metadata["dependencies_met"] is True
    assert metadata["started"].endswith("Z")


def test_an_error_is_published_and_answered_with_its_rich_traceback(worker: WorkerDouble) -> None:
    outputs = worker.run("def fail():\n    raise KeyError('gone')\nfail()")
    reply = outputs.reply
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "KeyError", "'gone'")
    (error,) = outputs.published("error")
    assert error == {key: reply[key] for key in ("ename", "evalue", "traceback")}
    text = "\n".join(reply["traceback"])
    assert f"In[{reply['execution_count']}]" in text
    assert "line 2" in text
    assert "unstuck_worker" not in text
    assert outputs.finished is not None
    assert outputs.finished.stop_on_error


def test_a_syntax_error_and_a_bad_magic_are_errors(worker: WorkerDouble) -> None:
    assert worker.run("1 +").reply["ename"] == "SyntaxError"
    outputs = worker.run("%no_such_magic")
    assert outputs.reply["ename"] == "UsageError"
    assert "no_such_magic" in outputs.text(StreamName.stderr)


def test_an_error_in_a_transformer_is_the_cells_error(worker: WorkerDouble) -> None:
    worker.run(
        "def broken(lines): raise ValueError('no lines')\n"
        "get_ipython().input_transformers_post.append(broken)"
    )
    try:
        assert worker.run("1").reply["ename"] == "ValueError"
    finally:
        # Nothing can run but what is not transformed: the list is emptied by an expression.
        job = worker.submit(
            "", silent=True, user_expressions={"x": "get_ipython().input_transformers_post.pop()"}
        )
        worker.wait(job)
    assert worker.run("1").result == "1"


def test_silent_publishes_nothing_and_counts_nothing(worker: WorkerDouble) -> None:
    before = worker.run("'before'").reply["execution_count"]
    outputs = worker.run("quiet = 1; quiet", silent=True)
    assert outputs.messages == []
    assert outputs.reply["status"] == "ok"
    assert worker.run("quiet").reply["execution_count"] == before + 1


def test_without_history_a_cell_uses_up_no_number(worker: WorkerDouble) -> None:
    before = worker.run("'before'").reply["execution_count"]
    assert worker.run("'unstored'", store_history=False).reply["execution_count"] == before
    assert worker.run("In[-1]").reply["execution_count"] == before + 1


def test_in_out_and_underscores_belong_to_their_cells(worker: WorkerDouble) -> None:
    count = worker.run("'some value'").reply["execution_count"]
    assert worker.run(f"Out[{count}], _{count}, In[{count}]").result == (
        "('some value', 'some value', \"'some value'\")"
    )
    worker.run("123")
    assert worker.run("_").result == "123"
    assert worker.run("get_ipython().execution_count").result == str(count + 5)


def test_cells_beside_each_other_have_numbers_and_results_of_their_own(
    worker: WorkerDouble,
) -> None:
    worker.run("import asyncio, time; gate = asyncio.Event()")
    task = worker.submit("await gate.wait(); 'task'", mode=RunMode.task)
    threads = [
        worker.submit(f"import time; time.sleep(0.01); 'thread {i}'", mode=RunMode.thread)
        for i in range(8)
    ]
    queue = worker.run("'queue'")
    worker.run("gate.set()")
    counts = {queue.reply["execution_count"]}
    for job, expected in [
        (task, "'task'"),
        *((job, f"'thread {i}'") for i, job in enumerate(threads)),
    ]:
        outputs = worker.wait(job)
        assert outputs.result == expected
        (result,) = outputs.published("execute_result")
        assert result["execution_count"] == outputs.reply["execution_count"]
        counts.add(outputs.reply["execution_count"])
    assert len(counts) == 10
    assert worker.run(f"[Out[n] for n in {sorted(counts)}]").reply["status"] == "ok"


def test_a_semicolon_silences_the_value(worker: WorkerDouble) -> None:
    assert worker.run("'a;b'").result == "'a;b'"
    assert worker.run("1;").published("execute_result") == []
    assert worker.run("1; # really").published("execute_result") == []


def test_user_expressions_are_evaluated_after_the_cell(worker: WorkerDouble) -> None:
    outputs = worker.run("a = 20", user_expressions={"good": "a + 1", "bad": "nobody"})
    expressions = outputs.reply["user_expressions"]
    assert expressions["good"]["data"]["text/plain"] == "21"
    assert expressions["bad"]["status"] == "error"
    assert expressions["bad"]["ename"] == "NameError"


def test_payloads_are_in_the_reply_of_their_cell_only(worker: WorkerDouble) -> None:
    (page,) = worker.run("len?").reply["payload"]
    assert page["source"] == "page"
    assert "len" in page["data"]["text/plain"]
    (next_input,) = worker.run("get_ipython().set_next_input('x = 1')").reply["payload"]
    assert next_input == {"source": "set_next_input", "text": "x = 1", "replace": False}
    assert worker.run("1").reply["payload"] == []


def test_exit_asks_the_broker_and_tells_the_frontend(worker: WorkerDouble) -> None:
    outputs = worker.run("exit(keep_kernel=True)")
    assert outputs.reply["payload"] == [{"source": "ask_exit", "keepkernel": True}]
    assert worker.find(AskExit).keep_kernel


def test_sys_exit_is_an_error_and_the_worker_lives(worker: WorkerDouble) -> None:
    outputs = worker.run("import sys; sys.exit(3)")
    assert outputs.reply["ename"] == "SystemExit"
    assert worker.run("1").result == "1"


def test_async_magics_are_awaited(worker: WorkerDouble) -> None:
    worker.run(
        "from IPython.core.magic import register_line_magic\nimport asyncio\n"
        "@register_line_magic\nasync def later(line):\n"
        "    await asyncio.sleep(0.01)\n    return line"
    )
    assert worker.run("%later tea").result == "'tea'"
    worker.run("got = %later milk")
    assert worker.run("got").result == "'milk'"


def test_autoawait_can_be_switched_off(worker: WorkerDouble) -> None:
    worker.run("%autoawait off")
    assert worker.run("await asyncio.sleep(0)").reply["ename"] == "SyntaxError"
    worker.run("%autoawait on")
    assert worker.run("await asyncio.sleep(0, 'on')").result == "'on'"


def test_a_cell_is_awaited_by_what_autoawait_names(worker: WorkerDouble) -> None:
    library = "__import__('sniffio').current_async_library()"
    worker.run("import trio, asyncio")
    worker.run("%autoawait trio")
    assert worker.run(f"await trio.sleep(0); {library}").result == "'trio'"
    assert (
        worker.run(f"%%thread backend=trio\nawait trio.sleep(0); {library}").reply["status"] == "ok"
    )
    assert worker.run("'nothing to await'").result == "'nothing to await'"
    assert worker.run("await trio.sleep(0); 1 / 0").reply["ename"] == "ZeroDivisionError"
    worker.run("def own(cell):\n    print('mine')\n    return trio.run(lambda: given(cell))")
    worker.run("async def given(cell): return await cell")
    worker.run("%autoawait own")
    assert worker.run("await trio.sleep(0)").text() == "mine\n"
    worker.run("%autoawait asyncio")
    assert worker.run(f"await asyncio.sleep(0); {library}").result == "'asyncio'"


def test_the_suppress_error_tag_hides_the_traceback_and_the_failure(worker: WorkerDouble) -> None:
    outputs = worker.run("1 / 0", metadata={"tags": ["suppress-error"]})
    assert outputs.reply["status"] == "ok"
    assert outputs.published("error") == []
    assert "⚠" in "".join(m.text for m in outputs.messages if isinstance(m, Stream))
    outputs = worker.run(
        "1 / 0", metadata={"tags": ["suppress-error"], "suppress-error-message": "oh"}
    )
    assert "oh" in "".join(m.text for m in outputs.messages if isinstance(m, Stream))
    outputs = worker.run(
        "1 / 0", metadata={"tags": ["suppress-error"], "suppress-error-message": ""}
    )
    assert outputs.reply["status"] == "ok"
    assert [m for m in outputs.messages if isinstance(m, Stream)] == []


@pytest.mark.parametrize(
    ("tags", "requested", "stops"),
    [
        ([], True, True),
        ([], False, False),
        (["stop-on-error=false"], True, False),
        (["stop-on-error=true"], False, True),
        (["raises-exception"], True, False),
    ],
)
def test_tags_decide_whether_an_error_stops_the_queue(
    worker: WorkerDouble, tags: list[str], requested: bool, stops: bool
) -> None:
    outputs = worker.run("1 / 0", metadata={"tags": tags}, stop_on_error=requested)
    assert outputs.finished is not None
    assert outputs.finished.stop_on_error is stops


def test_what_cells_define_is_pickled_and_lives_in_main(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import pickle, sys\nclass Point:\n    x = 3\n"
        "(pickle.loads(pickle.dumps(Point())).x, Point.__module__,"
        " sys.modules['__main__'].Point is Point)"
    )
    assert outputs.result == "(3, '__main__', True)"


def test_the_working_folder_comes_after_the_standard_library(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    for name in ("worker", "broker", "kernel", "mine"):
        (tmp_path / f"{name}.py").write_text(f"me = {name!r}")
    for name in ("dataclasses", "signal", "asyncio", "socket", "IPython"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    worker = start_worker(cwd=tmp_path)
    outputs = worker.run(
        "import broker, dataclasses, kernel, mine, signal, worker\n"
        "[m.me for m in (worker, broker, kernel, mine)]"
    )
    assert outputs.result == "['worker', 'broker', 'kernel', 'mine']"
    worker.run("import os; os.mkdir('below'); os.chdir('below')")
    assert worker.run("os.path.basename(os.getcwd())").result == "'below'"


def test_display_errors_fail_the_cell_and_the_value_is_shown(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "class Bad:\n    def _repr_html_(self): raise ValueError('no html')\n"
        "    def __repr__(self): return 'plain'\nBad()"
    )
    assert outputs.reply["status"] == "error"
    assert outputs.reply["ename"] == "ValueError"
    assert outputs.result == "plain"


def test_an_exception_whose_text_fails_is_reported_all_the_same(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "class Worse(Exception):\n"
        "    def __str__(self): raise ValueError('no text')\n    __repr__ = __str__\n"
        "raise Worse"
    )
    assert outputs.reply["status"] == "error"
    assert worker.run("1").result == "1"


def test_nested_run_cell_keeps_numbers_unique(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "r = get_ipython().run_cell('40 + 2', store_history=True)\n"
        "r.execution_count, get_ipython().execution_count"
    )
    count = outputs.reply["execution_count"]
    results = outputs.published("execute_result")
    assert [r["execution_count"] for r in results] == [count + 1, count]
    assert worker.run("1").reply["execution_count"] == count + 2


def test_magics_that_run_code_inside_a_cell_work(worker: WorkerDouble) -> None:
    outputs = worker.run("%%capture out\nprint('hidden')\ndisplay(1)\n2")
    assert outputs.text() == ""
    assert worker.run("out.stdout, len(out.outputs)").result == "('hidden\\n', 2)"
    assert worker.run("%time 1").result == "1"
    assert "loop" in worker.run("%timeit -n1 -r1 pass").text()


def test_matplotlib_figures_are_shown_at_the_cells_end(start_worker: StartWorker) -> None:
    pytest.importorskip("matplotlib")
    worker = start_worker()
    outputs = worker.run("import matplotlib.pyplot as plt\nfigure = plt.plot([1, 2])")
    (figure,) = outputs.published("display_data")
    assert figure["data"]["image/png"].startswith("iVBOR")
    outputs = worker.run("%matplotlib inline\nplt.plot([2, 1]);")
    assert len(outputs.published("display_data")) == 1


def test_history_is_kept_and_saved(start_worker: StartWorker, tmp_path: Path) -> None:
    env = {"IPYTHONDIR": str(tmp_path / "ipython")}
    worker = start_worker(env=env)
    for number in range(20):
        worker.run(f"x = {number}")
    assert worker.stop() == 0
    again = start_worker(env=env)
    outputs = again.run("%history -g x = 19")
    assert "x = 19" in outputs.text()


def test_ipythons_arguments_and_files_configure_the_shell(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    profile = tmp_path / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "ipython_config.py").write_text(
        "c.InteractiveShellApp.exec_lines = ['from_line = 1']\n"
        "c.InteractiveShellApp.extensions = ['no_such_extension']\n"
        "c.InteractiveShell.ast_node_interactivity = 'all'\n"
    )
    (profile / "startup" / "a.py").write_text("from_file = 2\nprint('startup ran')\n1 / 0")
    worker = start_worker(
        env={"IPYTHONDIR": str(tmp_path / "ipython")},
        ipython_arguments=["--HistoryManager.enabled=False", "--TerminalIPythonApp.x=1"],
    )
    outputs = worker.run("from_line\nfrom_file\nget_ipython().history_manager.enabled")
    values = [r["data"]["text/plain"] for r in outputs.published("execute_result")]
    assert values == ["1", "2", "False"]
    early = "".join(m.text for m in worker.all if isinstance(m, Stream) and m.job == 0)
    assert "startup ran" in early
    assert "ZeroDivisionError" in early
    assert "no_such_extension" in early


def test_a_startup_file_runs_without_a_word_of_ours(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "a.py").write_text("print('startup ran')")
    worker = start_worker(env={"IPYTHONDIR": str(tmp_path / "ipython")})
    worker.run("1")
    early = "".join(m.text for m in worker.all if isinstance(m, Stream) and m.job == 0)
    assert early == "startup ran\n"


def test_a_broken_configuration_file_is_shown_and_not_fatal(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("this is no Python")
    worker = start_worker(env={"IPYTHONDIR": str(tmp_path / "ipython")})
    early = "".join(m.text for m in worker.all if isinstance(m, Stream) and m.job == 0)
    assert "ipython_config.py" in early
    assert worker.run("1").result == "1"


def test_a_missing_ipython_is_told_to_the_broker(start_worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").write_text("raise ImportError('IPython is broken')")
    with pytest.raises(AssertionError, match="IPython is broken"):
        start_worker(first_on_path=tmp_path)


def test_an_output_without_json_form_is_a_clear_error(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "from IPython.display import publish_display_data as p\np({'a/b': object()})"
    )
    assert outputs.reply["ename"] == "TypeError"
    assert "object is not JSON serializable" in outputs.reply["evalue"]
    assert worker.run("1").result == "1"


def test_dates_bytes_and_odd_numbers_become_json_as_jupyter_has_it(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import datetime\nfrom IPython.display import publish_display_data as p\n"
        "p({'application/json': {'day': datetime.date(2026, 1, 2), 'raw': "
        "b'abc', 'nan': float('nan'),"
        " 'inf': [float('inf')], 'set': {1}, 3: 'three'}, 'text/plain': 'x'})"
    )
    (content,) = outputs.published("display_data")
    assert content["data"]["application/json"] == {
        "day": "2026-01-02",
        "raw": "YWJj",
        "nan": "nan",
        "inf": ["inf"],
        "set": [1],
        "3": "three",
    }


def test_large_outputs_arrive_whole(worker: WorkerDouble) -> None:
    outputs = worker.run("print('x' * 20_000_000)")
    assert len(outputs.text()) == 20_000_001
    outputs = worker.run("display({'text/plain': 'y' * 20_000_000}, raw=True)")
    (message,) = [
        m for m in outputs.messages if isinstance(m, Publish) and m.msg_type == "display_data"
    ]
    assert len(json.loads(message.content)["data"]["text/plain"]) == 20_000_000
