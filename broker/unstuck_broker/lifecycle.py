"""The life of a worker as a table; only `Life.advance` changes a state.

docs/lifecycle.md is drawn from it.
"""

from __future__ import annotations

from enum import Enum


class S(Enum):
    """States of the worker, as the broker knows them."""

    STARTING = "starting"
    """Its process runs, its shell is not there yet; requests wait."""
    READY = "ready"
    """Its shell is there and no job runs."""
    BUSY = "busy"
    """At least one job runs."""
    INTERRUPTING = "interrupting"
    """An interrupt was sent and the jobs that it aims at have not ended."""
    KILLED = "killed"
    """It was killed, or asked to end for a restart in place; its exit has not been seen."""
    RECOVERING = "recovering"
    """It is dead and the next one is not ready, or not even started; requests wait."""
    STOPPING = "stopping"
    """It was asked to end, for good; every request is answered."""
    DEAD = "dead"
    """It has ended and no other will be started."""


class E(Enum):
    """What changes a worker's state."""

    SHELL_READY = "the worker says Ready"
    JOB_STARTED = "a job is sent to the worker"
    LAST_JOB_FINISHED = "no job runs any more"
    INTERRUPT_SENT = "SIGINT or Interrupt is sent"
    TARGETS_ENDED = "each interrupted job has ended"
    KILL_SENT = "SIGKILL is sent"
    EXITED = "the process has ended"
    STOP_SENT = "shutdown is asked for"
    RESTART_SENT = "a restart in place is asked for"


class IllegalTransition(AssertionError):
    """The broker is wrong about its worker: a bug, never caught."""


_RUNNING = (S.STARTING, S.READY, S.BUSY, S.INTERRUPTING)
"""A process is there: when it is killed, its exit is seen."""

TRANSITIONS: dict[tuple[S, E], S] = {
    (S.STARTING, E.SHELL_READY): S.READY,
    (S.RECOVERING, E.SHELL_READY): S.READY,
    (S.READY, E.JOB_STARTED): S.BUSY,
    (S.BUSY, E.JOB_STARTED): S.BUSY,
    (S.INTERRUPTING, E.JOB_STARTED): S.INTERRUPTING,
    (S.BUSY, E.LAST_JOB_FINISHED): S.READY,
    (S.BUSY, E.INTERRUPT_SENT): S.INTERRUPTING,
    (S.INTERRUPTING, E.INTERRUPT_SENT): S.INTERRUPTING,
    (S.INTERRUPTING, E.TARGETS_ENDED): S.BUSY,
    **{(state, E.KILL_SENT): S.KILLED for state in (*_RUNNING, S.KILLED)},
    **{(state, E.RESTART_SENT): S.KILLED for state in (*_RUNNING, S.KILLED)},
    # There may be no process yet, whose exit could be seen: the next one comes in any case.
    (S.RECOVERING, E.KILL_SENT): S.RECOVERING,
    (S.RECOVERING, E.RESTART_SENT): S.RECOVERING,
    **{(state, E.EXITED): S.RECOVERING for state in (*_RUNNING, S.KILLED, S.RECOVERING)},
    **{(state, E.STOP_SENT): S.STOPPING for state in (*_RUNNING, S.KILLED, S.RECOVERING)},
    (S.STOPPING, E.EXITED): S.DEAD,
}


class Life:
    """The state of the one worker."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        """Begin with a worker whose process was just started."""
        self.state = S.STARTING

    def advance(self, event: E) -> S:
        """Go to the next state.

        Raises:
            IllegalTransition: the table has no such pair; the state stays as it was.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransition(f"{event.name} in state {self.state.name}") from None
        return self.state

    @property
    def takes_jobs(self) -> bool:
        """Tell whether a job can be sent now."""
        return self.state in (S.READY, S.BUSY, S.INTERRUPTING)

    @property
    def ended(self) -> bool:
        """Tell whether the kernel is on its way out."""
        return self.state in (S.STOPPING, S.DEAD)
