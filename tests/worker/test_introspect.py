"""Completion, inspection and is_complete: what the replies say, also while other threads run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from plainshell import plain_shell, run
from unstuck_worker import turns
from unstuck_worker.introspect import complete, inspect, is_complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell

    from unstuck.typing import Content


@pytest.fixture(scope="module")
def module_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        yield shell


@pytest.fixture
def shell(module_shell: InteractiveShell) -> InteractiveShell:
    for name in [name for name in module_shell.user_ns if not name.startswith("_")]:
        if name not in module_shell.user_ns_hidden:
            del module_shell.user_ns[name]
    module_shell.Completer.use_jedi = True
    return module_shell


def matches(shell: InteractiveShell, code: str, cursor: int | None = None) -> list[str]:
    reply = complete(shell, {"code": code, "cursor_pos": cursor})
    assert reply["status"] == "ok", reply
    found: list[str] = reply["matches"]
    return found


def in_thread(call: Callable[[], Content]) -> Content:
    replies: list[Content] = []
    thread = threading.Thread(target=lambda: replies.append(call()))
    thread.start()
    thread.join(30)
    assert replies, "no reply within 30 s"
    return replies[0]


# --- completion -----------------------------------------------------------------------------------


def test_a_module_attribute_is_completed_with_its_type_and_place(shell: InteractiveShell) -> None:
    run(shell, "import os")
    reply = complete(shell, {"code": "os.getcw", "cursor_pos": 8})
    assert reply["matches"] == ["getcwd", "getcwdb"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (3, 8)
    described = reply["metadata"]["_jupyter_types_experimental"]
    assert [set(entry) for entry in described] == [
        {"start", "end", "text", "type", "signature"}
    ] * 2
    assert described[0]["type"] == "function"
    assert described[0]["signature"].startswith("()")


def test_a_very_long_line_does_not_hold_the_gil_for_minutes(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom plainshell import plain_shell\n"
        "from unstuck_worker.introspect import complete\n"
        "with plain_shell(pathlib.Path(sys.argv[1])) as shell:\n"
        "    for text in ('a' * 100_000, 'x = \\'' + 'a' * 100_000, '\"' + '\\\\\\'' * 50_000):\n"
        "        assert complete(shell, {'code': text})['status'] == 'ok'\n"
    )
    # In a process of its own: nothing else could end an expression that holds the GIL.
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=50,
        check=True,
    )


def test_the_end_of_a_long_line_is_completed_in_its_place(shell: InteractiveShell) -> None:
    code = f"import os\ntext = '{'b' * 5000}'; os.getcw + 1"
    reply = complete(shell, {"code": code, "cursor_pos": len(code) - 4})
    assert reply["matches"] == ["getcwd", "getcwdb"]
    assert code[reply["cursor_start"] : reply["cursor_end"]] == "getcw"
    assert reply["metadata"]["_jupyter_types_experimental"][0]["start"] == reply["cursor_start"]
    assert matches(shell, f"import os\ntext = '{'b' * 5000}; os.getcw") == []


def test_code_that_nothing_completes_gets_an_empty_reply_at_the_cursor(
    shell: InteractiveShell,
) -> None:
    reply = complete(shell, {"code": "no_such_name_at_all", "cursor_pos": 7})
    assert reply["status"] == "ok"
    assert reply["matches"] == []
    assert (reply["cursor_start"], reply["cursor_end"]) == (7, 7)
    assert reply["metadata"] == {"_jupyter_types_experimental": []}


def test_the_cursor_counts_code_points_also_behind_astral_characters(
    shell: InteractiveShell,
) -> None:
    run(shell, "import os")
    code = "'𝄞äü'; os.getcwdb"
    reply = complete(shell, {"code": code, "cursor_pos": len(code)})
    assert reply["matches"] == ["getcwdb"]
    assert code[reply["cursor_start"] : reply["cursor_end"]] == "getcwdb"


def test_a_cursor_behind_the_code_counts_as_its_end(shell: InteractiveShell) -> None:
    assert "import" in matches(shell, "impor", 99)


def test_the_cursor_may_stand_in_the_middle_of_several_lines(shell: InteractiveShell) -> None:
    run(shell, "import os")
    assert "getcwdb" in matches(shell, "a = 1\nos.getcwd\nb = 2", 15)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("numbers['al", "alpha"),
        ("numbers[", "'alpha'"),
        ("open('pyproj", "pyproject.toml"),
        ("%timei", "%timeit"),
        ("%%wri", "%%writefile"),
        ("numbers.ite", "items"),
        ("spell(lou", "loud="),
        ("impor", "import"),
        ("from collect", "collections"),
    ],
)
def test_each_kind_of_name_is_completed(
    shell: InteractiveShell, code: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    run(shell, "numbers = {'alpha': 1}\ndef spell(loud=True): pass")
    assert wanted in matches(shell, code)


def test_an_object_whose_attribute_access_raises_leaves_the_other_names_in_place(
    shell: InteractiveShell,
) -> None:
    run(
        shell,
        """
class Hostile:
    def __getattr__(self, name):
        raise RuntimeError(name)
    def __dir__(self):
        raise RuntimeError("dir")
hostile = Hostile()
hostile_neighbour = 1
""",
    )
    assert {"hostile", "hostile_neighbour"} <= set(matches(shell, "hosti"))
    assert complete(shell, {"code": "hostile."})["status"] == "ok"
    assert complete(shell, {"code": "hostile.a.b"})["status"] == "ok"


def test_completion_works_while_another_thread_changes_the_namespace(
    shell: InteractiveShell,
) -> None:
    run(shell, "import os")
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shell.user_ns[f"name_{number % 500}"] = number
            shell.user_ns.pop(f"name_{(number + 250) % 500}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(8):
            assert "getcwdb" in matches(shell, "os.getcwd")
            assert complete(shell, {"code": "na"})["status"] == "ok"
    finally:
        stop.set()
        thread.join(30)


def test_requests_of_many_threads_do_not_mix(shell: InteractiveShell) -> None:
    run(shell, "import os, string")
    wanted = {"os.getcwdb": "getcwdb", "string.ascii_upp": "ascii_uppercase"}
    wrong: list[object] = []

    def ask(code: str) -> None:
        for _ in range(10):
            found = matches(shell, code)
            if found != [wanted[code]]:
                wrong.append((code, found))

    threads = [threading.Thread(target=ask, args=(code,)) for code in (*wanted, *wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_completion_that_hangs_costs_one_request_and_not_the_session(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "DEADLINE_S", 0.2)
    entered, leave = threading.Event(), threading.Event()

    class Endless:
        def __dir__(self) -> list[str]:
            entered.set()
            leave.wait(30)
            return []

    shell.user_ns["endless"] = Endless()
    shell.Completer.use_jedi = False
    hung = threading.Thread(target=complete, args=(shell, {"code": "endless."}))
    hung.start()
    try:
        assert entered.wait(30)
        refused = complete(shell, {"code": "impor"})
        assert refused["status"] == "error"
        assert refused["ename"] == "TimeoutError"
        assert "import" in matches(shell, "impor")
    finally:
        leave.set()
        hung.join(30)


def test_a_warning_filter_that_a_cell_sets_during_a_completion_stays(
    shell: InteractiveShell,
) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        def __dir__(self) -> list[str]:
            entered.set()
            leave.wait(30)
            return ["found"]

    shell.user_ns["slow"] = Slow()
    shell.Completer.use_jedi = False
    with warnings.catch_warnings():
        thread = threading.Thread(target=complete, args=(shell, {"code": "slow."}))
        thread.start()
        assert entered.wait(30)
        warnings.filterwarnings("ignore", message="set by a cell")
        leave.set()
        thread.join(30)
        warnings.warn("set by a cell", UserWarning, stacklevel=1)


def test_jedi_is_imported_by_the_first_completion_and_never_when_it_is_off(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from plainshell import plain_shell
from unstuck_worker.introspect import complete
with plain_shell(Path({str(tmp_path)!r})) as shell:
    shell.run_cell("import os")
    shell.Completer.use_jedi = False
    assert "jedi" not in sys.modules, "imported at start"
    assert "getcwdb" in str(complete(shell, {{"code": "os.getcwd"}})["matches"])
    assert "jedi" not in sys.modules, "imported though it is off"
    shell.Completer.use_jedi = True
    assert complete(shell, {{"code": "os.getcwd"}})["matches"] == ["getcwd", "getcwdb"]
    assert "jedi" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# --- bad requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serve", "content", "said"),
    [
        (complete, {"code": 3}, "Expected `str`, got `int` - at `$.code`"),
        (complete, {}, "missing required field `code`"),
        (complete, {"code": "a", "cursor_pos": -1}, "`$.cursor_pos`"),
        (complete, {"code": "a", "cursor_pos": "1"}, "`$.cursor_pos`"),
        (inspect, {"code": None, "cursor_pos": 0}, "`$.code`"),
        (inspect, {"code": "a", "cursor_pos": 0, "detail_level": 7}, "`$.detail_level`"),
        (inspect, {"code": "a", "cursor_pos": 0, "omit_sections": "x"}, "`$.omit_sections`"),
        (is_complete, {"code": ["a"]}, "`$.code`"),
    ],
)
def test_a_request_of_wrong_types_gets_an_error_that_says_which(
    shell: InteractiveShell, serve: Callable[..., Content], content: dict[str, Any], said: str
) -> None:
    reply = serve(shell, content)
    assert reply["status"] == "error"
    assert reply["ename"] == "ValueError"
    assert said in reply["evalue"]


# --- inspection -----------------------------------------------------------------------------------


def test_inspection_describes_the_function_at_the_cursor(shell: InteractiveShell) -> None:
    run(shell, "def spell(word, loud=True):\n    'Spell a word.'\n    return word")
    reply = inspect(shell, {"code": "spell('a')", "cursor_pos": 2})
    assert reply["status"] == "ok"
    assert reply["found"] is True
    text = reply["data"]["text/plain"]
    assert "spell(word, loud=True)" in text
    assert "Spell a word." in text
    assert "return word" not in text


def test_the_second_detail_level_shows_the_source(shell: InteractiveShell) -> None:
    run(shell, "def spell(word):\n    return word * 42")
    reply = inspect(shell, {"code": "spell", "cursor_pos": 5, "detail_level": 1})
    assert "return word * 42" in reply["data"]["text/plain"]


def test_sections_can_be_left_out(shell: InteractiveShell) -> None:
    run(shell, "def spell(word):\n    'Spell a word.'")
    asked = {"code": "spell", "cursor_pos": 5, "omit_sections": ["docstring"]}
    text = inspect(shell, asked)["data"]["text/plain"]
    assert "spell(word)" in text
    assert "Spell a word." not in text


def test_html_is_given_only_where_the_pager_takes_it(shell: InteractiveShell) -> None:
    shell.enable_html_pager = False
    assert "text/html" not in inspect(shell, {"code": "len", "cursor_pos": 1})["data"]
    with pytest.warns(DeprecationWarning, match="provisional"):
        shell.enable_html_pager = True
    assert "text/html" in inspect(shell, {"code": "len", "cursor_pos": 1})["data"]


@pytest.mark.parametrize("code", ["no_such_name", "", "1 +", "('"])
def test_inspecting_nothing_is_answered_as_not_found(shell: InteractiveShell, code: str) -> None:
    reply = inspect(shell, {"code": code, "cursor_pos": len(code)})
    assert reply == {"status": "ok", "found": False, "data": {}, "metadata": {}}


def test_inspecting_an_object_that_raises_gets_an_answer(shell: InteractiveShell) -> None:
    run(
        shell,
        """
class Hostile:
    def __getattr__(self, name): raise RuntimeError(name)
    def __repr__(self): raise RuntimeError("repr")
    def __dir__(self): raise RuntimeError("dir")
hostile = Hostile()
""",
    )
    for detail_level in (0, 1):
        asked = {"code": "hostile", "cursor_pos": 3, "detail_level": detail_level}
        assert inspect(shell, asked)["status"] in ("ok", "error")


# --- is_complete ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("a = 1", {"status": "complete"}),
        ("", {"status": "complete"}),
        ("!ls", {"status": "complete"}),
        ("for i in range(3):", {"status": "incomplete", "indent": "    "}),
        ("if a:\n    if b:", {"status": "incomplete", "indent": "        "}),
        ("f(", {"status": "incomplete", "indent": ""}),
        ("'''text", {"status": "incomplete", "indent": ""}),
        ("a = )", {"status": "invalid"}),
        ("await f()", {"status": "complete"}),
        ("%%time\nx", {"status": "incomplete", "indent": ""}),
    ],
)
def test_code_is_judged_complete_incomplete_or_invalid(
    shell: InteractiveShell, code: str, reply: Content
) -> None:
    assert is_complete(shell, {"code": code}) == reply


def test_requests_are_served_in_a_thread_while_the_main_thread_computes(
    shell: InteractiveShell,
) -> None:
    replies = [
        in_thread(lambda: complete(shell, {"code": "impor"})),
        in_thread(lambda: inspect(shell, {"code": "len", "cursor_pos": 1})),
        in_thread(lambda: is_complete(shell, {"code": "1"})),
    ]
    assert [reply["status"] for reply in replies] == ["ok", "ok", "complete"]
