"""Streams: complete for slow readers, joined into few messages, in order, and early enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from e2e.spec import ours

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kernel_client import Kernel

FLOOD = "for n in range(100_000): print('line', n)"
FLOOD_TEXT = "".join(f"line {n}\n" for n in range(100_000))


def _merged(messages: list[dict[str, dict[str, str]]]) -> list[tuple[str, str]]:
    """Join neighbours of one name: what a reader sees."""
    merged: list[tuple[str, str]] = []
    for message in messages:
        name, text = message["content"]["name"], message["content"]["text"]
        if merged and merged[-1][0] == name:
            text = merged.pop()[1] + text
        merged.append((name, text))
    return merged


@ours
def test_a_flood_is_complete_for_a_reader_that_sleeps(kernel: Kernel) -> None:
    assert kernel.client.iopub_channel.socket.get(zmq.RCVHWM) == 1000
    flood = kernel.execute(FLOOD)
    time.sleep(3)  # The reader is what is tested: it does not read for this long.
    kernel.finish(flood, deadline_s=60)
    assert flood.stdout == FLOOD_TEXT


@ours
def test_control_answers_while_a_flood_is_not_read(kernel: Kernel) -> None:
    flood = kernel.execute("while True: print('x' * 100)")
    kernel.wait(lambda: len(flood.stdout) > 10_000, "the flood")
    kernel.interrupt()
    kernel.finish(flood)
    assert flood.content["ename"] == "KeyboardInterrupt"


@ours
def test_many_prints_become_few_messages_in_order(kernel: Kernel) -> None:
    result = kernel.run_ok("for n in range(10_000): print(n)")
    assert result.stdout == "".join(f"{n}\n" for n in range(10_000))
    assert len(result.of("stream")) < 1000


def test_text_is_seen_while_the_cell_still_runs(kernel: Kernel, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = kernel.execute(
        "import pathlib, time\nprint('first', end='')\n"
        f"while not pathlib.Path({str(seen)!r}).exists(): time.sleep(0.01)\nprint(' last')"
    )
    kernel.wait_for_text(result, "first")
    assert not result.is_complete
    seen.touch()
    assert kernel.finish(result).stdout == "first last\n"


@ours
def test_streams_stay_in_the_order_of_writing(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import sys\nfor n in range(50):\n    print('out', n)\n    print('err', n, file=sys.stderr)"
    )
    lines = [[("stdout", f"out {n}\n"), ("stderr", f"err {n}\n")] for n in range(50)]
    expected = [line for pair in lines for line in pair]
    assert _merged(result.of("stream")) == expected


def test_text_comes_before_the_display_that_follows_it(kernel: Kernel) -> None:
    result = kernel.run_ok("for n in range(20):\n    print(n)\n    display(n)")
    kinds = result.kinds[1:]
    assert kinds == ["stream", "display_data"] * 20


def test_text_comes_before_the_error_that_follows_it(kernel: Kernel) -> None:
    assert kernel.run("print('before')\n1/0").kinds[1:] == ["stream", "error"]


def test_progress_bars_keep_their_carriage_returns(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import sys\nfor n in range(3):\n    sys.stdout.write(f'\\r{n} of 3')\n"
        "    sys.stdout.flush()\nsys.stdout.write('\\n');"
    )
    assert result.stdout == "\r0 of 3\r1 of 3\r2 of 3\n"


def test_a_line_of_20_megabytes_arrives_whole(kernel: Kernel) -> None:
    result = kernel.run_ok("print('x' * 20_000_000)", deadline_s=60)
    assert len(result.stdout) == 20_000_001


def test_text_of_every_kind_arrives(kernel: Kernel) -> None:
    text = "é ß 漢字 🐍 \x00 \x1b[31mred\x1b[0m \u2028 \x7f \\ \" '"
    assert kernel.run_ok(f"print({text!r})").stdout == text + "\n"


@ours
def test_text_that_is_no_text_is_replaced(kernel: Kernel) -> None:
    result = kernel.run_ok("print('a\\ud800b')\nimport os; os.write(1, b'c\\xffd\\n');")
    kernel.wait_for_text(result, "d\n")
    assert result.stdout in ("a?b\nc\ufffdd\n", "a\ufffdb\nc\ufffdd\n")


@ours
def test_characters_of_a_child_are_not_cut_in_two(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import os\n"
        "for byte in '🐍漢'.encode():\n    os.write(1, bytes([byte]))\nos.write(1, b'\\n');"
    )
    kernel.wait_for_text(result, "\n")
    assert result.stdout == "🐍漢\n"


def test_stdout_is_a_file_with_what_libraries_ask_for(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import sys\n"
        "(sys.stdout.fileno() >= 0, sys.stdout.encoding.lower(), sys.stdout.writable(),\n"
        " sys.stdout.isatty(), sys.stdout.errors is None or bool(sys.stdout.errors),\n"
        " sys.stdout.write('four'), sys.stdout.writelines(['a', 'b']), sys.stdout.closed)"
    )
    assert result.value == "(True, 'utf-8', True, False, True, 4, None, False)"
    assert result.stdout == "fourab"


def test_writing_something_else_than_text_is_a_type_error(kernel: Kernel) -> None:
    assert kernel.run("import sys; sys.stdout.write(b'bytes')").content["ename"] == "TypeError"


def test_redirected_stdout_is_the_users_own(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "    print('kept')\ntext.getvalue()"
    )
    assert result.value == "'kept\\n'"
    assert result.stdout == ""


@ours
def test_writing_to_the_descriptor_of_stdout_arrives(kernel: Kernel) -> None:
    result = kernel.run_ok(
        "import os, sys, subprocess\n"
        "subprocess.run(['echo', 'by descriptor'], stdout=sys.stdout, check=True);"
    )
    kernel.wait_for_text(result, "by descriptor")
