"""How the broker and the template of its workers talk: packets on one socket."""

from __future__ import annotations

import struct

LEAVE = b"leave"
"""An order to a worker whose shell is there: leave a template behind."""
FORK = b"fork"
"""An order, with a worker's descriptors: be that worker. Whoever waits takes it."""
SPARE = b"spare"
"""An order: fork a process that waits for the next `FORK`."""

WORD = struct.Struct("!cq")
"""An answer: who speaks, and its process id."""
I_AM_TEMPLATE, I_AM_SPARE, I_AM_WORKER = b"t", b"s", b"w"
