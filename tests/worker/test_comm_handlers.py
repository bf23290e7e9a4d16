"""Asynchronous handlers of comm messages, and widgets: what runs when, and in which order."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import comm

from unstuck.jobcontext import JobContext, current_job
from worker.frontend import Wire, listen, message

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from unstuck_worker.comms import CommManager


def test_asynchronous_handlers_of_one_comm_run_in_order_and_of_two_beside_each_other(
    manager: CommManager,
) -> None:
    order: list[str] = []

    async def main() -> None:
        let_first_go = asyncio.Event()

        async def slow(request: Wire) -> None:
            name = request["content"]["data"]["name"]
            order.append(f"start {name}")
            if name == "first":
                await let_first_go.wait()
            order.append(f"end {name}")

        async def other(_request: Wire) -> None:
            order.append("other")
            let_first_go.set()

        for comm_id, handler in (("a", slow), ("b", other)):
            listen(comm_id, handler)
        handled = [
            manager.comm_msg(message("a", {"name": "first"})),
            manager.comm_msg(message("a", {"name": "second"})),
            manager.comm_msg(message("b")),
        ]
        async with asyncio.timeout(30):
            for each in handled:
                await each

    asyncio.run(main())
    assert order == ["start first", "other", "end first", "start second", "end second"]


def test_a_synchronous_handler_has_ended_when_the_call_returns(manager: CommManager) -> None:
    seen: list[Any] = []

    async def main() -> None:
        opened = comm.create_comm(target_name="t", comm_id="id")
        opened.on_msg(lambda request: seen.append(request["content"]["data"]))
        handled = manager.comm_msg(message("id", {"n": 1}))
        assert seen == [{"n": 1}]
        await handled

    asyncio.run(main())


def test_an_asynchronous_handler_that_raises_is_shown_and_the_next_one_runs(
    manager: CommManager, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    async def main() -> None:
        async def handler(_request: Wire) -> None:
            calls.append(1)
            await asyncio.sleep(0)
            raise ValueError(f"call {len(calls)}")

        listen("id", handler)
        for each in [manager.comm_msg(message("id")), manager.comm_msg(message("id"))]:
            await each

    asyncio.run(main())
    assert len(calls) == 2
    assert "ValueError: call 2" in capsys.readouterr().err


def test_cancelling_the_wait_cancels_the_handler_and_not_the_next_one(
    manager: CommManager,
) -> None:
    ended: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        async def handler(request: Wire) -> None:
            name = request["content"]["data"]["name"]
            started.set()
            if name == "endless":
                await asyncio.sleep(3600)
            ended.append(name)

        listen("id", handler)

        async def serve(name: str) -> None:
            await manager.comm_msg(message("id", {"name": name}))

        endless = asyncio.create_task(serve("endless"))
        await started.wait()
        following = asyncio.create_task(serve("next"))
        await asyncio.sleep(0)
        endless.cancel()
        async with asyncio.timeout(30):
            await following
        assert endless.cancelled()

    asyncio.run(main())
    assert ended == ["next"]


def test_a_handler_without_an_event_loop_is_told_and_not_lost_silently(
    manager: CommManager, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(_request: Wire) -> None:
        raise AssertionError("it has no loop to run in")

    listen("id", handler)
    manager.comm_msg(message("id"))
    gc.collect()
    assert "no event loop" in capsys.readouterr().err


def test_a_handler_keeps_the_job_of_its_message(manager: CommManager) -> None:
    jobs: list[Any] = []

    async def main() -> None:
        async def handler(_request: Wire) -> None:
            await asyncio.sleep(0)
            jobs.append(current_job.get())

        listen("id", handler)
        contexts = [JobContext(number) for number in (1, 2)]

        async def serve(context: JobContext) -> None:
            current_job.set(context)
            await manager.comm_msg(message("id"))

        async with asyncio.timeout(30):
            await asyncio.gather(*map(serve, contexts))
        assert jobs == contexts

    asyncio.run(main())


def test_widgets_work_in_cells_and_in_threads(tmp_path: Path) -> None:
    program = f"""
import sys, threading
from pathlib import Path
from plainshell import Record, plain_shell
from unstuck_worker.kernel import UnstuckKernel
record = Record()
with plain_shell(Path({str(tmp_path)!r})) as shell:
    shell.kernel = kernel = UnstuckKernel(shell, record.publish, record.send)
    shell.run_cell('''
import ipywidgets, threading
slider = ipywidgets.IntSlider(value=3)
seen = []
slider.observe(lambda change: seen.append((change.new, threading.current_thread().name)), "value")
made = []
thread = threading.Thread(target=lambda: made.append(ipywidgets.Button(description="b")))
thread.start(); thread.join(30)
''').raise_error()
    assert set(record.types) == {{"comm_open"}}, record.types
    assert "jupyter.widget" in kernel.comm_manager.targets
    def move(to):
        data = {{"method": "update", "state": {{"value": to}}, "buffer_paths": []}}
        content = {{"comm_id": shell.user_ns["slider"].comm.comm_id, "data": data}}
        kernel.comm_manager.comm_msg({{"content": content, "buffers": [], "metadata": {{}}}})
    move(5)
    thread = threading.Thread(target=move, args=(7,), name="other")
    thread.start(); thread.join(30)
    assert shell.user_ns["seen"] == [(5, "MainThread"), (7, "other")], shell.user_ns["seen"]
    shell.user_ns["made"][0].close()
    assert record.types[-1] == "comm_close"
"""
    import os

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
