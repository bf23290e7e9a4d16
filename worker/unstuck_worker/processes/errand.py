"""One ``##process`` cell, from its request to its reply.

The cell runs in a copy of this worker, or, where a copy would not be whole or the main thread is
busy, in a fresh one that gets the variables which the cell names. When it has ended, what it has
bound comes back. Its outputs appear meanwhile, as those of any cell.

Threads: `run` is called in a thread of the cell's own, `interrupt` in any.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from unstuck.protocol import (
    Caught,
    Finished,
    Interrupt,
    Outcome,
    Promote,
    Receive,
    Run,
    Start,
    Stream,
    StreamName,
)
from unstuck.typing import MsgType, RunMode, SocketID
from unstuck_worker.content import encode
from unstuck_worker.job import Reply
from unstuck_worker.processes.child import Fresh
from unstuck_worker.processes.listening import Listening, peer_of
from unstuck_worker.processes.relay import ChildEnded, Relay
from unstuck_worker.processes.wanted import contents_for
from unstuck_worker.transplant import donor
from unstuck_worker.transplant.receiver import receive

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from unstuck.jobcontext import JobContext
    from unstuck_worker.processes.child import Child
    from unstuck_worker.shell import UnstuckShell

START_S = 60.0
CARRY_S = 600.0
KILL_S = 1.0
"""After the second interrupt: when the process is killed."""
FOREVER_S = float("inf")
_NOTE = 1 << 48
_GIVE = _NOTE + 1
_CALL = "__import__('unstuck_worker.processes.giving', fromlist=['x']).{}(get_ipython(){})"
_OFF: dict[str, Any] = {
    "snapshots": "off",
    "history": False,
    "autosave_file": "",
    "restore_file": "",
}


class Errand:
    """One cell on its way through another process."""

    def __init__(self, shell: UnstuckShell, context: JobContext, session: str) -> None:
        """Run the cell of ``context``."""
        self._shell = shell
        self._context = context
        self._session = session
        self._content: dict[str, Any] = msgspec.json.decode(context.content)
        self._interrupts = 0
        self._sent = 0
        self._kill_s = FOREVER_S
        self._is_killed = False

    def interrupt(self) -> None:
        """Interrupt the cell; the second time by force, and soon after that its process ends."""
        self._interrupts += 1

    def run(self) -> Reply:
        """Run the cell to its end."""
        count = self._number()
        child, has_variables = self._start(count)
        relay = Relay(child, self._shell.lane, self._context.job)
        try:
            try:
                if not has_variables:
                    self._prepare(child, relay, count)
                self._wait(child, relay, lambda: relay.is_ready, CARRY_S, "it was not ready")
                self._ask(child, relay, _NOTE, "note", f", {count}")
                return self._run_cell(child, relay, count)
            except ChildEnded as error:
                relay.drain()
                return self._describe_end(str(error), child.await_end(), count)
        finally:
            relay.close()
            child.collect()

    def _number(self) -> int:
        """Take the cell's number, and keep its line in the history, here: the kernel has one."""
        code = str(self._content.get("code", ""))
        is_silent = bool(self._content.get("silent"))
        stores = self._content.get("store_history")
        stores = not is_silent if stores is None else bool(stores) and not is_silent
        if not stores or not code.strip():
            return self._shell.counter
        return self._shell.number_elsewhere(code)

    def _start(self, count: int) -> tuple[Child, bool]:
        """Make the process; say whether it has the variables: it is a copy of this one then."""
        kernel: Any = self._shell.kernel
        if kernel.snapshots is not None and kernel.settings.get("snapshots") != "off":
            from unstuck_worker.processes.forked import Forked, NoCopyError  # noqa: PLC0415

            order = Promote(0, count - 1, 0, {**kernel.settings, **_OFF})
            with suppress(NoCopyError):
                return Forked(kernel.snapshots, order), True
        return Fresh(), False

    # --- on the way there -------------------------------------------------------------------------

    def _prepare(self, child: Child, relay: Relay, count: int) -> None:
        """Start the shell there, and hand over what the cell names."""
        kernel: Any = self._shell.kernel
        settings = {**kernel.settings, **_OFF}
        start = Start(
            self._session, str(kernel.connection_file or ""), settings, count, takes_over=True
        )
        child.send_main(start)
        with Listening() as listening:
            child.send_main(Receive(listening.address, CARRY_S))
            connection = self._accept(child, relay, listening)
        with connection:
            contents = contents_for(self._shell, str(self._content.get("code", "")))
            donor.serve(connection, self._shell, contents=contents)
        self._wait(child, relay, lambda: relay.is_ready, CARRY_S, "it was not ready")
        received = relay.received
        if received is not None and received.failed:
            self._tell("did not go along", received.failed)

    def _accept(self, child: Child, relay: Relay, listening: Listening) -> socket.socket:
        found: list[socket.socket] = []

        def look() -> bool:
            connection = listening.accept()
            found.extend([] if connection is None else [connection])
            return bool(found)

        self._wait(child, relay, look, START_S, "it has not started")
        connection = found[0]
        if peer_of(connection) != child.pid:
            connection.close()
            raise ChildEnded("somebody else has answered in its place")
        return connection

    # --- there ------------------------------------------------------------------------------------

    def _run_cell(self, child: Child, relay: Relay, count: int) -> Reply:
        job = self._context.job
        child.send_main(self._order(job, {**self._content, "allow_stdin": False}))
        self._wait(child, relay, lambda: job in relay.finished, FOREVER_S, "")
        relay.drain()
        finished = relay.finished[job]
        self._kill_s, self._interrupts, self._sent = FOREVER_S, 0, 0
        self._bring_back(child, relay, count)
        return Reply(
            finished.outcome,
            finished.content,
            finished.metadata,
            finished.stop_on_error,
            is_captured=finished.is_captured,
        )

    def _order(self, job: int, content: Mapping[str, Any]) -> Run:
        context = self._context
        return Run(
            job=job,
            kind=MsgType.execute_request,
            mode=RunMode.process,
            channel=SocketID.shell,
            header=context.header,
            parent_header=context.parent_header,
            metadata=context.metadata,
            content=msgspec.json.encode(content),
            idents=context.idents,
            received_s=context.received_s,
        )

    def _ask(self, child: Child, relay: Relay, job: int, name: str, arguments: str) -> Finished:
        """Have a function of ours run there."""
        expressions = {"answer": _CALL.format(name, arguments)}
        content = {"code": "", "silent": True, "user_expressions": expressions}
        child.send_main(self._order(job, content))
        self._wait(child, relay, lambda: job in relay.finished, CARRY_S, f"no answer to {name}")
        return relay.finished[job]

    # --- on the way back --------------------------------------------------------------------------

    def _bring_back(self, child: Child, relay: Relay, count: int) -> None:
        """Take what the cell has bound into this session, and name what cannot come."""
        known = {name: one for name, one in dict(self._shell.user_ns).items() if callable(one)}
        with Listening() as listening:
            expressions = {"answer": _CALL.format("give", f", {listening.address!r}, {count}")}
            content = {"code": "", "silent": True, "user_expressions": expressions}
            child.send_main(self._order(_GIVE, content))
            connection = self._accept(child, relay, listening)
        with connection:
            outcome = receive(
                connection, self._shell, is_fresh=False, known=known, deadline_s=CARRY_S
            )
        self._wait(child, relay, lambda: _GIVE in relay.finished, START_S, "it did not end")
        if outcome.failed:
            self._tell("did not come back", outcome.failed)

    # --- meanwhile --------------------------------------------------------------------------------

    def _wait(self, child: Child, relay: Relay, fact: Any, limit_s: float, why: str) -> None:  # noqa: ANN401
        """Read until a fact holds, and pass interrupts on meanwhile.

        Raises:
            ChildEnded: it has, or took too long.
        """

        def tick() -> None:
            self._pass_on(child)

        if not relay.wait_for(fact, tick, time.monotonic() + limit_s):
            raise ChildEnded(f"{why} within {limit_s:g} s")

    def _pass_on(self, child: Child) -> None:
        if self._interrupts > self._sent:
            self._sent = self._interrupts
            child.interrupt()
            if self._interrupts > 1:
                child.send_thread(Interrupt([self._context.job], hard=True))
                self._kill_s = min(self._kill_s, time.monotonic() + KILL_S)
        if time.monotonic() >= self._kill_s:
            self._is_killed = True
            child.kill()
            self._kill_s = FOREVER_S

    def _tell(self, what: str, failed: Sequence[tuple[str, str]]) -> None:
        rows = "".join(f"  {name}: {reason}\n" for name, reason in failed)
        text = f"[unstuck] {what}:\n{rows}"
        self._shell.lane.send(Stream(self._context.job, StreamName.stderr, text))

    def _describe_end(self, reason: str, code: int | None, count: int) -> Reply:
        """Answer for a process that has ended without a reply."""
        name = "KeyboardInterrupt" if self._is_killed else "ProcessDied"
        told = (
            "the process of this cell did not react, and was killed"
            if self._is_killed
            else f"the process of this cell has ended: {_how(code, reason)}"
        )
        traceback = [f"{name}: {told}; nothing that it has bound came back"]
        if self._is_killed:
            self._shell.lane.send(Caught(self._context.job))
        content = {"ename": name, "evalue": told, "traceback": traceback}
        self._shell.lane.publish(self._context, "error", encode(content))
        reply = {
            **content,
            "status": "error",
            "execution_count": count,
            "user_expressions": {},
            "payload": [],
        }
        return Reply(Outcome.error, encode(reply))


def _how(code: int | None, reason: str) -> str:
    if code is None or code == 0:
        return reason
    if code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
