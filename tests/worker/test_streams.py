"""What is printed arrives: whole, in order, in time, and under the cell that printed it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unstuck.protocol import Stream, StreamName
from unstuck.typing import RunMode
from unstuck_worker.streams import FLOOD_CHARACTERS

if TYPE_CHECKING:
    from worker.broker_double import WorkerDouble


def streamed(worker: WorkerDouble, header_of: int) -> str:
    """Join the text that names a job by its header: what came after the job's end."""
    mark = f'"msg-{header_of}"'.encode()
    return "".join(m.text for m in worker.all if isinstance(m, Stream) and mark in m.parent_header)


def test_a_print_arrives_whole(worker: WorkerDouble) -> None:
    outputs = worker.run("print('a', 1, 'ü', '\\N{SNAKE}', end='!\\n')")
    assert outputs.text() == "a 1 ü \N{SNAKE}!\n"


def test_a_print_of_megabytes_arrives_in_pieces_that_the_broker_reads_quickly(
    worker: WorkerDouble,
) -> None:
    outputs = worker.run("print('ab' * 1_000_000)")
    assert outputs.text() == "ab" * 1_000_000 + "\n"
    sizes = [len(m.text) for m in outputs.messages if isinstance(m, Stream)]
    assert max(sizes) <= 1 << 18


def test_both_streams_keep_their_order(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import sys\nfor i in range(500):\n    print(i)\n    print(-i, file=sys.stderr)"
    )
    seen = [(m.name, m.text) for m in outputs.messages if isinstance(m, Stream)]
    words = [word for _, text in seen for word in text.split()]
    assert words == [word for i in range(500) for word in (str(i), str(-i))]


def test_a_flood_loses_nothing_and_becomes_few_messages(worker: WorkerDouble) -> None:
    outputs = worker.run("for i in range(50_000): print(i)")
    assert outputs.text() == "".join(f"{i}\n" for i in range(50_000))
    assert len(outputs.messages) < 5_000


def test_a_flood_of_long_lines_becomes_no_message_that_is_much_longer(worker: WorkerDouble) -> None:
    outputs = worker.run("for i in range(20_000): print('x' * 1000)")
    lengths = [len(m.text) for m in outputs.messages if isinstance(m, Stream)]
    assert sum(lengths) == 20_000 * 1001
    assert max(lengths) < 2 * FLOOD_CHARACTERS


def test_the_end_of_a_flood_arrives_while_the_cell_goes_on(worker: WorkerDouble) -> None:
    job = worker.submit(
        "import threading\nfor i in range(5_000): print(i)\n"
        "print('end', end='')\ngate = threading.Event(); gate.wait(20)"
    )
    worker.wait_for(lambda: worker.jobs[job].text().endswith("4999\nend"), 5)
    assert worker.jobs[job].finished is None
    worker.run("gate.set()", mode=RunMode.thread)
    worker.wait(job)


def test_a_slow_printers_text_is_out_before_c_code_holds_the_gil(worker: WorkerDouble) -> None:
    job = worker.submit(
        "import ctypes\nprint('one')\nprint('two', end='')\nctypes.PyDLL(None).sleep(2)"
    )
    worker.wait_for(lambda: worker.jobs[job].text() == "one\ntwo")
    assert worker.jobs[job].finished is None
    worker.wait(job)


def test_text_stands_before_a_display_that_follows_it(worker: WorkerDouble) -> None:
    outputs = worker.run("for i in range(300):\n    print(i)\n    display(i)")
    order: list[str] = []
    for message in outputs.messages:
        if isinstance(message, Stream):
            order += message.text.split()
        else:
            order.append("display")
    assert order == [part for i in range(300) for part in (str(i), "display")]


def test_a_thread_prints_under_the_cell_that_started_it(worker: WorkerDouble) -> None:
    job = worker.submit(
        "import threading\nleave = threading.Event()\n"
        "def late():\n    leave.wait(20)\n    print('late')\n"
        "thread = threading.Thread(target=late); thread.start()"
    )
    worker.wait(job)
    outputs = worker.run("print('now'); leave.set(); thread.join(10)")
    worker.wait_for(lambda: streamed(worker, job) == "late\n")
    assert outputs.text() == "now\n"


def test_an_executor_and_a_task_print_under_the_cell_that_used_them(worker: WorkerDouble) -> None:
    first = worker.run(
        "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1)\npool.submit(print, 'first').result(10)"
    )
    assert first.text() == "first\n"
    second = worker.run(
        "pool.submit(print, 'second').result(10)\n"
        "await asyncio.get_running_loop().run_in_executor(pool, print, 'third')\n"
        "await asyncio.to_thread(print, 'fourth')"
    )
    assert second.text() == "second\nthird\nfourth\n"
    job = worker.submit(
        "async def tell():\n    await asyncio.sleep(0.05)\n    print('task')\n"
        "task = asyncio.create_task(tell())"
    )
    worker.wait(job)
    worker.wait_for(lambda: streamed(worker, job) == "task\n")


def test_what_a_child_process_writes_keeps_its_place(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import os, subprocess, sys\n"
        "for i in range(20):\n    print('we', i)\n"
        "    subprocess.run(['echo', 'child', str(i)])\n"
        "    os.system(f'echo system {i}')"
    )
    expected = "".join(f"we {i}\nchild {i}\nsystem {i}\n" for i in range(20))
    assert outputs.text() == expected


def test_what_c_code_writes_keeps_its_place(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "print('one'); libc.puts(b'two'); print('three'); libc.printf(b'four'); print('five')"
    )
    assert outputs.text() == "one\ntwo\nthree\nfourfive\n"


def test_what_c_code_writes_keeps_its_place_right_after_a_cell_that_printed_much(
    worker: WorkerDouble,
) -> None:
    for _ in range(5):
        flood = worker.submit("for i in range(1_000): print(i)")
        job = worker.submit(
            "import ctypes\nlibc = ctypes.CDLL(None)\n"
            "print('one'); libc.puts(b'two'); print('three')"
        )
        worker.wait(flood)
        assert worker.wait(job).text() == "one\ntwo\nthree\n"


def test_what_is_written_beside_a_child_that_writes_without_end_keeps_its_place(
    worker: WorkerDouble,
) -> None:
    outputs = worker.run(
        # 32 writes are no flood yet, in which C code overtakes: each print has four.
        # How long it waits for a broker that reads nothing is no matter here.
        "import unstuck_worker.pipes as place\n"
        "place.SETTLE_DEADLINE_S = 60\n"
        "import os, subprocess\n"
        "child = subprocess.Popen(['yes', ''])\n"
        "try:\n    for i in range(8):\n        print('we', i)\n"
        "        os.write(1, b'C %d\\n' % i)\n"
        "finally:\n    child.kill()\n    child.wait()"
    )
    words = outputs.text().split()
    assert words == [word for i in range(8) for word in ("we", str(i), "C", str(i))]


def test_a_megabyte_written_with_the_gil_held_does_not_deadlock(worker: WorkerDouble) -> None:
    outputs = worker.run("import ctypes; ctypes.PyDLL(None).write(1, b'x' * 1_000_000, 1_000_000)")
    worker.wait_for(lambda: outputs.text().count("x") == 1_000_000)


def test_a_forked_child_writes_under_the_cell_and_leaves_the_lanes_alone(
    worker: WorkerDouble,
) -> None:
    outputs = worker.run(
        "import os, multiprocessing\nprint('parent')\npid = os.fork()\n"
        "if pid == 0:\n    print('child')\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "def work(x):\n    print('worker', x, flush=True)\n    return x\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool: total = "
        "sum(pool.map(work, [1, 2]))\n"
        "total"
    )
    assert outputs.result == "3"
    assert outputs.text() == "parent\nchild\nworker 1\nworker 2\n"


def test_a_forked_child_that_runs_to_the_end_of_its_cell_ends_there(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import os\npid = os.fork()\nwho = 'child' if pid == 0 else 'parent'\n"
        "if pid: os.waitpid(pid, 0)\nprint(who)"
    )
    assert outputs.text() == "child\nparent\n"
    assert worker.run("who").result == "'parent'"


def test_a_process_that_outlives_its_cell_writes_under_that_cell(worker: WorkerDouble) -> None:
    job = worker.submit(
        "import subprocess\n"
        "child = subprocess.Popen(['sh', '-c', 'read x; echo late'], stdin=subprocess.PIPE)"
    )
    worker.wait(job)
    outputs = worker.run("print('now'); child.communicate(b'\\n'); print('end')")
    assert outputs.text() == "now\nend\n"
    worker.wait_for(lambda: worker.jobs[job].text() == "late\n")


def test_a_child_that_writes_without_end_does_not_hold_up_our_text(worker: WorkerDouble) -> None:
    worker.run("import subprocess; child = subprocess.Popen(['yes'])")
    start = time.monotonic()
    outputs = worker.run("for i in range(200): print('ours', i)")
    assert "ours 199" in outputs.text()
    assert time.monotonic() - start < 10
    worker.run("child.kill(); child.wait()")


def test_half_a_surrogate_pair_is_replaced_and_not_fatal(worker: WorkerDouble) -> None:
    outputs = worker.run("print('a\\ud800b'); print('\\ud83d\\ude00')")
    assert outputs.text() == "a\N{REPLACEMENT CHARACTER}b\n\N{GRINNING FACE}\n"


def test_a_stream_is_what_libraries_expect(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import io, sys\n"
        "out = sys.stdout\n"
        "(out.fileno(), out.isatty(), out.encoding, out.errors, out.name, out.writable(),"
        " hasattr(out, 'buffer'), isinstance(out, io.TextIOBase), out.closed,"
        " out.parent_header['msg_type'])"
    )
    assert outputs.result == (
        "(1,\n False,\n 'UTF-8',\n None,\n 'stdout',\n True,\n False,\n True,\n False,\n"
        " 'execute_request')"
    )


def test_writing_something_else_than_text_is_a_type_error(worker: WorkerDouble) -> None:
    outputs = worker.run("import sys; sys.stdout.write(b'bytes')")
    assert outputs.reply["ename"] == "TypeError"
    assert "must be str, not bytes" in outputs.reply["evalue"]


def test_closing_a_stream_or_a_broken_one_harms_only_itself(worker: WorkerDouble) -> None:
    assert worker.run("import sys; sys.stdout.close(); print('still')").text() == "still\n"
    worker.run("old, sys.stdout = sys.stdout, None")
    assert worker.run("1 + 1").result == "2"
    worker.run("sys.stdout = old")
    assert worker.run("print('back')").text() == "back\n"


def test_a_finaliser_and_a_signal_handler_may_print(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import gc, signal\n"
        "gone = []\n"
        "class Noisy:\n    def __init__(self): self.me = self\n"
        "    def __del__(self): print('gone'); gone.append(1)\n"
        "handled = []\n"
        "def handler(*_): handled.append(1); print('signal')\n"
        "old = signal.signal(signal.SIGALRM, handler)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "for i in range(3000):\n    Noisy(); print('line', i)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        # It does nothing while another thread collects and waits for the GIL in a finaliser.
        "while len(gone) < 3000: gc.collect()\n"
        "signal.signal(signal.SIGALRM, old); print('handled', len(handled))"
    )
    text = outputs.text()
    assert text.count("gone") == text.count("line") == 3000
    assert f"handled {text.count('signal')}\n" in text


def test_a_signal_handler_that_raises_leaves_the_lane_whole(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import signal\nclass Late(Exception): pass\n"
        "def handler(*_): raise Late\n"
        "old = signal.signal(signal.SIGALRM, handler)\ncaught = 0\n"
        "for i in range(2000):\n"
        "    try:\n"
        "        signal.setitimer(signal.ITIMER_REAL, 0.00001 * (i % 40 + 1))\n"
        "        for _ in range(100): print('x' * 50)\n"
        "        signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    except Late: caught += 1\n"
        "signal.signal(signal.SIGALRM, old); caught > 100"
    )
    assert outputs.reply["status"] == "ok", outputs.reply
    assert outputs.result == "True"
    assert worker.run("1").result == "1"


def test_standard_error_is_its_own_stream(worker: WorkerDouble) -> None:
    outputs = worker.run("import sys, warnings; warnings.warn('careful'); sys.stderr.write('x')")
    assert "careful" in outputs.text(StreamName.stderr)
    assert not outputs.text()
