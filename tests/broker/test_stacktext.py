"""What is shown of a dump of faulthandler."""

from __future__ import annotations

from unstuck_broker.stacktext import locate, shorten

DUMP = """Thread 0x00007f7487e586c0 (most recent call first):
  File "/x/worker/unstuck_worker/lanethread.py", line 73 in run
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f7489f1eb80 (most recent call first):
  File "/usr/lib/python3.11/re/__init__.py", line 166 in match
  File "/tmp/ipykernel_1/12.py", line 3 in f
  File "/tmp/ipykernel_1/12.py", line 5 in <module>
  File "/x/site-packages/IPython/core/interactiveshell.py", line 3823 in run_code
  File "/x/worker/unstuck_worker/execute.py", line 74 in _run_code
  File "/usr/lib/python3.11/asyncio/base_events.py", line 607 in run_forever
  File "<frozen runpy>", line 88 in _run_code"""


def test_only_the_frames_of_the_cell_are_shown() -> None:
    assert shorten(DUMP).splitlines() == [
        "Current thread 0x00007f7489f1eb80 (most recent call first):",
        '  File "/usr/lib/python3.11/re/__init__.py", line 166 in match',
        "  This cell, line 3 in f",
        "  This cell, line 5 in <module>",
    ]


def test_a_frame_names_the_cell_that_it_is_in_and_no_file_that_does_not_exist() -> None:
    dump = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/tmp/ipykernel_1/7.py", line 2 in helper\n'
        '  File "/home/me/mine.py", line 9 in fit\n'
        '  File "/tmp/ipykernel_1/8.py", line 4 in <module>'
    )
    assert shorten(dump).splitlines()[1:] == [
        "  Another cell, line 2 in helper",
        '  File "/home/me/mine.py", line 9 in fit',
        "  This cell, line 4 in <module>",
    ]
    assert locate(dump) == "C code called from line 2 of helper in another cell"
    assert locate(dump.replace("helper", "<module>")) == "C code called from line 2 of this cell"


def test_a_crash_keeps_its_name_and_its_innermost_frame() -> None:
    crash = (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x1 (most recent call first):\n"
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
        '  File "/tmp/ipykernel_1/1.py", line 1 in <module>\n\n'
        "Thread 0x2 (most recent call first):\n"
        '  File "/usr/lib/python3.11/threading.py", line 982 in run\n\n'
        "Extension modules: msgspec._core (total: 1)"
    )
    assert shorten(crash).splitlines() == [
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x1 (most recent call first):",
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        "  This cell, line 1 in <module>",
    ]


def test_a_thread_with_nothing_but_our_frames_is_shown_whole() -> None:
    ours = (
        'Current thread 0x1 (most recent call first):\n  File "/x/asyncio/events.py", line 1 in f'
    )
    assert shorten(ours) == ours


def test_of_an_idle_main_thread_and_a_cell_in_a_thread_the_cell_is_shown() -> None:
    dump = (
        "Thread 0x2 (most recent call first):\n"
        '  File "/tmp/ipykernel_1/3.py", line 2 in background\n'
        '  File "/usr/lib/python3.11/threading.py", line 982 in run\n\n'
        "Thread 0x3 (most recent call first):\n"
        '  File "/tmp/ipykernel_1/8.py", line 4 in <module>\n'
        '  File "/x/worker/unstuck_worker/execute.py", line 74 in _run_code\n\n'
        "Current thread 0x1 (most recent call first):\n"
        '  File "/usr/lib/python3.11/selectors.py", line 468 in select'
    )
    assert shorten(dump).splitlines() == [
        "Thread 0x3 (most recent call first):",
        "  This cell, line 4 in <module>",
    ]
    assert locate(dump) == "C code called from line 4 of this cell"
    crash = f"Fatal Python error: Aborted\n\n{dump}"
    assert shorten(crash).splitlines()[-1].endswith("line 468 in select")


def test_words_instead_of_a_stack_come_back_as_they_are() -> None:
    assert shorten("(the worker gave no stack: it is stopped or dead)").startswith("(the worker")
    assert locate("") == "the worker gives no Python stack"


def test_a_cell_is_located_by_its_own_line_and_the_innermost_frame() -> None:
    assert locate(DUMP) == (
        "C code called from line 3 of f in this cell, "
        "at match (/usr/lib/python3.11/re/__init__.py:166)"
    )
