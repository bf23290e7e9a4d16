"""The directive on a cell's first line: what is one, what is none, and its options."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.runmode import RunModeRequest, get_run_mode, read_directive
from unstuck.typing import MsgType, RunMode

fuzz = settings(deadline=None, max_examples=300)


def execute_mode(code: str) -> RunMode:
    """Decide how a cell runs on shell."""
    return get_run_mode(MsgType.execute_request, request=RunModeRequest(code))


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize(
    "code",
    [
        "##{}",
        "RunMode.{}",
        "##{}\nprint(1)",
        "RunMode.{}\n\nprint(1)",
        "  ##{}\n  x",
        "\n\n \t\n##{}\nx",
        "\r\n##{}\r\nx",
        "##{}   ",
        "##{} # a comment",
        "##{}  #",
        "RunMode.{}  # noqa: B018",
        "RunMode.{}  # noqa: B018, the page's own",
        "##{}#close",
    ],
)
def test_a_directive_on_the_first_line_is_read(code: str, mode: RunMode) -> None:
    directive = read_directive(code.format(mode.value))
    assert directive is not None
    assert directive.mode is mode
    assert directive.options == {}
    assert execute_mode(code.format(mode.value)) is mode


@pytest.mark.parametrize(
    "code",
    [
        "",
        " \n\n",
        "##",
        "RunMode.",
        "RunMode",
        "## task",
        "##Task",
        "##TASK",
        "###task",
        "#task",
        "# task",
        "##tasks",
        "##task_",
        "##task.",
        "##task;",
        "##task x",
        "##task name",
        "##task =",
        "RunMode.task;x",
        "RunMode.task.value",
        "RunMode.task()",
        "RunMode. task",
        "runmode.task",
        "xRunMode.task",
        "x = RunMode.task",
        "task",
        "%%time\n##task",
        "# a comment\n##task",
        "x\n##task",
        '"""\n##task\n"""',
        "##tàsk",
        "##task\u2028x = 1",
        "##task \\",
    ],
)
def test_what_is_no_directive_is_an_ordinary_line(code: str) -> None:
    assert read_directive(code) is None
    assert execute_mode(code) is RunMode.queue


def test_a_comment_that_reads_like_a_directive_is_one_only_when_the_setting_says_so() -> None:
    for code in ("# task", "# task  # why", "# thread name=a"):
        assert read_directive(code) is None
        assert read_directive(code, allow_hash=True) is not None
    for code in ("#task", "#  task", "# Task", "# task list", "# tasks"):
        assert read_directive(code, allow_hash=True) is None
    request = RunModeRequest("# task")
    assert get_run_mode(MsgType.execute_request, request=request) is RunMode.queue
    mode = get_run_mode(MsgType.execute_request, request=request, allow_hash=True)
    assert mode is RunMode.task


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("##thread", {}),
        ("##thread name=worker", {"name": "worker"}),
        ("##thread name=my.worker-1", {"name": "my.worker-1"}),
        ("##thread backend=trio", {"backend": "trio"}),
        ("##thread backend=asyncio", {"backend": "asyncio"}),
        ("##thread   name=a\tbackend=trio  # why", {"name": "a", "backend": "trio"}),
        ("RunMode.thread name=a", {"name": "a"}),
        ("##thread name='My thread' backend=trio", {"name": "My thread", "backend": "trio"}),
        ('##thread name="it\'s a=b"  # why', {"name": "it's a=b"}),
        ("##thread name='a\"'", {"name": 'a"'}),
    ],
)
def test_options_of_a_thread_are_read_by_a_fixed_grammar(line: str, options: object) -> None:
    assert read_directive(f"{line}\nprint(1)") == (RunMode.thread, options)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "##thread label=a",
            "unknown option label in '##thread label=a': ##thread takes backend, name",
        ),
        ("##thread x=1 y=2", "unknown option x, y"),
        ("##task name=a", "unknown option name in '##task name=a': ##task takes no options"),
        ("##queue timeout=5", "##queue takes no options"),
        ("##thread backend=gevent", "unknown backend in '##thread backend=gevent'"),
    ],
)
def test_an_option_that_the_mode_does_not_have_is_refused(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match="unknown") as caught:
        read_directive(line)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        *("##thread name=", "##thread name=f(1)", "##thread =a"),
        *("##thread name=''", "##thread name='a", "##thread name='a' 'b'", "##thread name='a'b"),
    ],
)
def test_what_is_no_option_is_never_evaluated(line: str) -> None:
    assert read_directive(line) is None


@fuzz
@given(st.text(max_size=60), st.booleans())
def test_any_code_gives_a_mode_or_a_value_error(code: str, allow_hash: bool) -> None:
    for line in (code, f"##thread{code}", f"# task {code}"):
        try:
            directive = read_directive(line, allow_hash=allow_hash)
        except ValueError:
            continue
        assert directive is None or directive.mode in RunMode


def test_a_line_of_megabytes_is_read_in_no_time() -> None:
    """Fails by the suite's time limit if the grammar backtracks."""
    options = " a=b" * 500_000
    for code in ("##task" + " " * 2_000_000 + "x", f"##thread{options}!", "\n" * 9**7):
        assert read_directive(code) is None
    with pytest.raises(ValueError, match="unknown option a"):
        read_directive(f"##thread{options}")
