"""How the broker asks a worker for the Python stacks of all its threads: one signal, one pipe."""

from __future__ import annotations

import signal

STACK_SIGNAL: int = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""The worker's faulthandler answers it on its stack pipe, also while C code holds the GIL.

No library that we know uses this real-time signal; macOS has none, so SIGUSR2 serves there.
"""
