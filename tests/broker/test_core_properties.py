"""Random lives of a kernel: whatever happens in whatever order, each request is answered in full.

The rules of `Kernel` are all that clients, the worker, the machine and the clock can do; `ledger`
checks each action as it comes, and `teardown` that everything is answered and nothing is kept.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pump import BOOM, Pump, make_request
from unstuck.config import Config, InterruptPolicy
from unstuck.protocol import (
    AskExit,
    AskRestart,
    Caught,
    Failed,
    Finished,
    InputRequest,
    Outcome,
    Pong,
    Publish,
    Ready,
    SetConcurrencyMode,
    SetSettings,
    Stream,
    StreamName,
)
from unstuck.typing import KernelConcurrencyMode, SocketID
from unstuck_broker import replies
from unstuck_broker.events import (
    Asked,
    LimitExceeded,
    Measured,
    PipeText,
    Signalled,
    StackTaken,
    Subscribed,
    Terminated,
    WorkerExited,
    WorkerProgress,
)
from unstuck_broker.job import INTROSPECTION
from unstuck_broker.ladder import TRACEBACK_S
from unstuck_broker.lifecycle import S
from unstuck_broker.reason import STOP, Reason, Why, over_limit

CLIENTS = st.sampled_from(["ada", "bob", "cyd"])
CHANNELS = st.sampled_from([SocketID.shell, SocketID.shell, SocketID.shell, SocketID.control])
MODES = st.sampled_from([None, None, None, "queue", "task", "thread", "blocking", "nonsense", 7])
TIMEOUTS = st.sampled_from([None, None, 1, "0.5", -1, "soon", 10**400])
INTROSPECTIONS = st.sampled_from(sorted(INTROSPECTION))
SERVED = st.sampled_from(
    [
        "kernel_info_request",
        "comm_info_request",
        "connect_request",
        "usage_request",
        "stack_request",
        "state_request",
        "debug_request",
        "list_subshell_request",
        "unheard_of_request",
    ]
)
NOT_READY = (S.KILLED, S.STOPPING, S.DEAD)
TERSE = st.sampled_from([b"{}", b'{"comm_id": "c1", "target_name": "t"}', b'{"comm_id": 3}', b"[]"])


class Kernel(RuleBasedStateMachine):
    """One kernel, from its start to its end."""

    @initialize(
        policy=st.sampled_from(["auto", "never", "always"]),
        timeout_s=st.sampled_from([0.0, 0.0, 2.0]),
        output_bytes=st.sampled_from([0, 30]),
        grace_s=st.sampled_from([2.0, 0.0]),
        listening=st.booleans(),
        in_place=st.booleans(),
    )
    def begin(
        self,
        policy: InterruptPolicy,
        timeout_s: float,
        output_bytes: int,
        grace_s: float,
        *,
        listening: bool,
        in_place: bool,
    ) -> None:
        config = Config(
            interrupt_policy=policy,
            cell_timeout_s=timeout_s,
            output_bytes_per_cell=output_bytes,
            interrupt_grace_s=grace_s,
            restart_in_place=in_place,
        )
        self.pump = Pump(config, listening=listening)
        self.core = self.pump.core
        self.sent = 0
        self.received_s: dict[bytes, float] = {}
        self.started_s: dict[int, float] = {}
        self.past_jobs: set[int] = {0}
        self.asked = 0

    # --- what clients do ------------------------------------------------------------------------

    def _send(self, msg_type: str, **more: Any) -> None:  # noqa: ANN401 - as make_request
        self.sent += 1
        request = make_request(msg_type, f"m{self.sent}", **more)
        self.received_s[request.header_json] = self.pump.now
        self.pump.send(request)

    @rule(
        client=CLIENTS,
        channel=CHANNELS,
        mode=MODES,
        timeout=TIMEOUTS,
        subshell=st.integers(-3, 3),
        silent=st.booleans(),
        stop=st.booleans(),
    )
    def execute(
        self,
        client: str,
        channel: SocketID,
        mode: object,
        timeout: object,
        subshell: int,
        **flags: bool,
    ) -> None:
        ids = [*self.core.subshells.ids(), "gone"]
        self._send(
            "execute_request",
            client=client,
            channel=channel,
            content={"code": "1", "silent": flags["silent"], "stop_on_error": flags["stop"]},
            metadata={} if timeout is None else {"timeout": timeout},
            run_mode=mode,
            subshell=ids[subshell % len(ids)] if subshell > 0 else None,
        )

    @rule(client=CLIENTS)
    def execute_a_plain_cell(self, client: str) -> None:
        self._send("execute_request", client=client)

    @rule(kind=INTROSPECTIONS, client=CLIENTS, channel=CHANNELS)
    def introspect(self, kind: str, client: str, channel: SocketID) -> None:
        self._send(kind, client=client, channel=channel)

    @rule(kind=st.sampled_from(["comm_open", "comm_msg", "comm_close"]), content=TERSE)
    def use_a_comm(self, kind: str, content: bytes) -> None:
        self._send(kind, content=content)

    @rule(kind=SERVED, channel=CHANNELS)
    def ask_the_broker(self, kind: str, channel: SocketID) -> None:
        self._send(kind, channel=channel)

    @rule(content=st.sampled_from([b"{}", b'{"code": 1}', b'{"target_name": 3, "restart": "no"}']))
    def send_nonsense(self, content: bytes) -> None:
        self._send("execute_request", content=content)
        self._send("comm_info_request", content=content)

    @rule()
    def create_a_subshell(self) -> None:
        self._send("create_subshell_request", channel=SocketID.control)

    @rule(at=st.integers(0, 3))
    def delete_a_subshell(self, at: int) -> None:
        ids = [*self.core.subshells.ids(), "gone"]
        content = {"subshell_id": ids[at % len(ids)]}
        self._send("delete_subshell_request", channel=SocketID.control, content=content)

    @rule(at=st.integers(-3, 5))
    def interrupt(self, at: int) -> None:
        content: dict[str, Any] = {}
        if at >= 0 and self.core.running:
            jobs = list(self.core.running.values())
            content = {"msg_id": jobs[at % len(jobs)].request.header.msg_id}
        self._send("interrupt_request", channel=SocketID.control, content=content)

    @rule()
    def restart(self) -> None:
        self._send("restart_request", channel=SocketID.control)

    @rule(chance=st.integers(0, 9), channel=CHANNELS, restart=st.booleans())
    def shut_down(self, chance: int, channel: SocketID, *, restart: bool) -> None:
        if chance == 0:
            self._send("shutdown_request", channel=channel, content={"restart": restart})

    @rule(client=CLIENTS, value=st.sampled_from([b'{"value": "x"}', b"{}"]), at=st.integers(0, 3))
    def answer_a_question(self, client: str, value: bytes, at: int) -> None:
        parent = [None, {"msg_id": f"q{self.asked}"}, {"msg_id": f"m{self.sent}"}, {"msg_id": 7}]
        self.pump.send(
            make_request(
                "input_reply",
                "answer",
                channel=SocketID.stdin,
                client=client,
                content=value,
                parent=parent[at],
            )
        )

    # --- what the worker does -------------------------------------------------------------------

    def _some_job(self, at: int) -> int:
        jobs = [*self.pump.jobs, *self.past_jobs]
        return jobs[at % len(jobs)]

    @precondition(lambda self: self.pump.process == "starting")
    @rule()
    def worker_becomes_ready(self) -> None:
        self.pump.ready()

    @precondition(lambda self: self.pump.process == "starting")
    @rule()
    def worker_says_why_it_cannot_start(self) -> None:
        self.pump.say(Failed("no IPython", "Traceback"))

    @precondition(lambda self: self.pump.jobs)
    @rule(at=st.integers(0, 9), failed=st.booleans(), stop=st.booleans(), captured=st.booleans())
    def worker_ends_a_job(self, at: int, *, failed: bool, stop: bool, captured: bool) -> None:
        jobs = list(self.pump.jobs)
        outcome = Outcome.error if failed else Outcome.ok
        content = BOOM if failed else replies.OK
        is_alone = self.pump.taken is None
        job, stops = jobs[at % len(jobs)], failed and stop and is_alone
        captured = captured and is_alone
        self.pump.end(Finished(job, outcome, content, stop_on_error=stops, is_captured=captured))

    @precondition(lambda self: self.pump.tray)
    @rule()
    def worker_takes_the_next(self) -> None:
        self.pump.take_next()

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99))
    def worker_ends_a_job_that_is_over(self, at: int) -> None:
        past = sorted(self.past_jobs - set(self.pump.jobs))
        self.pump.say(Finished(past[at % len(past)], Outcome.error, BOOM, stop_on_error=True))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99), name=st.sampled_from(StreamName), text=st.text(max_size=20))
    def worker_prints(self, at: int, name: StreamName, text: str) -> None:
        self.pump.say(Stream(self._some_job(at), name, text))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(
        at=st.integers(0, 99),
        kind=st.sampled_from(["execute_input", "error", "comm_open", "comm_close", "display_data"]),
        content=TERSE,
    )
    def worker_publishes(self, at: int, kind: str, content: bytes) -> None:
        self.pump.say(Publish(self._some_job(at), kind, content))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99), told=st.booleans())
    def worker_asks_for_input(self, at: int, *, told: bool) -> None:
        self.asked += 1
        self.pump.say(InputRequest(self._some_job(at), self.asked, "?", password=False))
        if told:
            self.pump.feed(Asked(self.asked, f"q{self.asked}"))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99), chance=st.integers(0, 9), keep=st.booleans())
    def worker_asks_for_its_end(self, at: int, chance: int, *, keep: bool) -> None:
        if chance == 0:
            self.pump.say(AskExit(keep, self._some_job(at)))
        elif chance < 4:
            self.pump.say(AskRestart(self._some_job(at)))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(at=st.integers(0, 99))
    def an_interrupt_reaches_a_job(self, at: int) -> None:
        self.pump.say(Caught(self._some_job(at)))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(mode=st.sampled_from(KernelConcurrencyMode))
    def worker_changes_the_concurrency_mode(self, mode: KernelConcurrencyMode) -> None:
        self.pump.say(SetConcurrencyMode(mode))

    @precondition(lambda self: self.pump.process == "ready")
    @rule(
        change=st.sampled_from(
            [{"interrupt_grace_s": 1.0}, {"interrupt_grace_s": "x"}, {"unknown": 1}]
        )
    )
    def worker_changes_settings(self, change: dict[str, Any]) -> None:
        self.pump.say(SetSettings(change))

    @precondition(lambda self: self.pump.process == "ready")
    @rule()
    def worker_says_what_nobody_expects(self) -> None:
        self.pump.say(Ready(1, "again", "9"))
        self.pump.say(Pong(3, 4))

    @precondition(lambda self: self.pump.process != "none")
    @rule(signal=st.sampled_from([None, 9, 11, 999]), stack=st.sampled_from(["", "File x"]))
    def worker_dies(self, signal: int | None, stack: str) -> None:
        code = 1 if signal is None else None
        self.pump.die(signal, code, stack=stack, last_words=stack)

    @precondition(lambda self: self.pump.doomed)
    @rule()
    def worker_dies_as_it_was_told(self) -> None:
        self.pump.die(9, reason=STOP)

    @precondition(lambda self: self.pump.to_spawn and self.core.life.state is not S.DEAD)
    @rule()
    def worker_is_started(self) -> None:
        self.pump.start()

    @precondition(lambda self: self.pump.to_spawn and self.core.life.state is not S.DEAD)
    @rule()
    def worker_cannot_be_started(self) -> None:
        self.pump.to_spawn = 0
        self.pump.feed(WorkerExited(None, None, reason=Reason(Why.START, "no process")))

    # --- what the machine does ------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 1.5, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.pump.pass_time(seconds)

    @precondition(lambda self: self.pump.due)
    @rule()
    def an_order_is_carried_out(self) -> None:
        self.pump.feed(self.pump.due.popleft())

    @rule(number=st.integers(-2, 9))
    def an_answer_comes_that_nobody_waits_for(self, number: int) -> None:
        if not self.pump.due:
            self.pump.feed(StackTaken("stack", (number,)))
            self.pump.feed(Measured(number, replies.OK))

    @rule()
    def memory_is_over_its_limit(self) -> None:
        self.pump.feed(LimitExceeded(over_limit(Why.MEMORY, 2, 1)))

    @rule()
    def somebody_presses_control_c(self) -> None:
        self.pump.feed(Signalled())

    @rule(chance=st.integers(0, 19))
    def the_broker_is_terminated(self, chance: int) -> None:
        if chance == 0:
            self.pump.feed(Terminated())

    @rule(topic=st.sampled_from([b"", b"\xff"]))
    def somebody_subscribes(self, topic: bytes) -> None:
        self.pump.feed(Subscribed(topic))

    @rule(free=st.booleans())
    def the_watch_looks(self, *, free: bool) -> None:
        self.pump.feed(WorkerProgress(free, 1))

    @rule(parent=st.sampled_from([None, b"{}"]))
    def c_code_prints(self, parent: bytes | None) -> None:
        self.pump.feed(PipeText(StreamName.stderr, "text", parent))

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def the_core_agrees_with_the_world(self) -> None:
        core = self.core
        assert set(core.running) <= set(self.pump.jobs) | self.past_jobs
        self.past_jobs |= set(self.pump.jobs)
        for job in self.pump.jobs:
            self.started_s.setdefault(job, self.pump.now)
        assert self.pump.to_spawn <= 1
        assert not (self.pump.to_spawn and self.pump.process != "none")
        if core.life.state in (S.READY, S.BUSY, S.INTERRUPTING):
            assert bool(core.running) == (core.life.state is not S.READY)
        if core.life.ended:
            assert self.pump.exit is not None
            assert not core.pending

    @invariant()
    def one_job_of_a_queue_runs_at_a_time(self) -> None:
        busy = [job.subshell for job in self.core.running.values() if job.queued]
        assert len(busy) == len(set(busy))

    @invariant()
    def what_is_lent_is_the_next_of_the_queue(self) -> None:
        lent = self.core.backlog.main.lent
        there = self.pump.tray or self.pump.taken
        if self.core.life.takes_jobs and self.pump.process == "ready":
            assert (lent.number if lent else None) == (there.job if there else None)

    @invariant()
    def the_memory_of_what_waits_is_counted(self) -> None:
        if not self.core.pending:
            assert self.core.waiting_bytes == 0

    @invariant()
    def no_introspection_is_late(self) -> None:
        for header in self.pump.ledger.pending():
            request = self.pump.ledger.requests[header]
            late = self.pump.now - self.received_s[header] > 10.0
            assert not (late and request.kind in INTROSPECTION), f"{request.kind} has no answer"

    @invariant()
    def no_cell_outlives_its_timeout(self) -> None:
        grace_s = self.core.config.interrupt_grace_s
        if not self.core.life.takes_jobs:
            return
        for number, job in self.core.running.items():
            if job.timeout_s is not None:
                age_s = self.pump.now - self.started_s.get(number, self.pump.now)
                assert age_s <= job.timeout_s + max(grace_s, 2.0, TRACEBACK_S) + 0.5

    def teardown(self) -> None:
        """Let the rest happen as it does when nobody asks for more; then nothing may be left."""
        pump, core = self.pump, self.core
        pump.feed(Subscribed(b""))
        for _ in range(200):
            pump.settle()
            if core.life.ended:
                break
            if pump.doomed:
                pump.die(9)
            if pump.to_spawn:
                pump.start()
            if pump.process == "starting":
                pump.ready()
            for job in list(pump.jobs):
                pump.end(Finished(job, Outcome.ok, replies.OK))
            pump.pass_time(1.0)
            if not (pump.jobs or pump.due or pump.doomed or core.pending or pump.to_spawn):
                break
        pump.pass_time(60.0)
        pump.settle()
        assert pump.ledger.pending() == []
        assert core.waiting_bytes == 0
        assert not core.pending
        assert core.deadline_s() is None
        assert len(core.timers) == len(core.gate) == len(core.questions) == core.served.waiting == 0
        assert core.running == {}
        if core.life.ended:
            assert pump.exit is not None
            if pump.process != "none":
                pump.die(None, 0)
                assert core.life.state is S.DEAD
        else:
            assert core.life.state is S.READY


Kernel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyLifeOfAKernel = Kernel.TestCase
