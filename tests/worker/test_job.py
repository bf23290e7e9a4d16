"""A running job: what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import weakref

from unstuck.jobcontext import JobContext
from unstuck_worker.job import RunningJob, Stepping


def test_a_job_that_has_ended_is_gone_without_a_garbage_collection() -> None:
    async def main() -> weakref.ref[RunningJob]:
        running = RunningJob(JobContext(1), Stepping())
        running.attach()
        assert running.interrupt_wait()
        running.end()
        return weakref.ref(running)

    async def run() -> None:
        task = asyncio.create_task(main())
        await asyncio.wait([task])
        assert task.result()() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
