"""The Jupyter servers of this user that run now, and the notebooks that their kernels belong to.

A server that does not answer in time, or wants a password, is passed over: a kernel is found by its
connection file as well.
"""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import psutil

ANSWER_S = 1.0
_FILES = ("jpserver-*.json", "nbserver-*.json")
_MAX_SERVERS = 8
"""Asked at a time."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server, as its file in Jupyter's runtime folder describes it."""

    url: str
    token: str
    root: Path

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        content: object = None,
        deadline_s: float = ANSWER_S,
    ) -> object:
        """Call the server's API; give what it answers, None for nothing.

        Raises:
            OSError: no answer in time, or a refusal.
            ValueError: the answer is no JSON.
        """
        request = urllib.request.Request(  # noqa: S310 - `find_servers` takes http and https only
            urljoin(self.url, path),
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        # Without the proxies of the environment: the token is for the server alone.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=deadline_s) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def shut_down(self, kernel_id: str, *, deadline_s: float) -> None:
        """Have the server end a kernel of its own, so that it does not start it again.

        Raises:
            OSError: no answer in time, or a refusal.
        """
        self.ask(f"api/kernels/{quote(kernel_id)}", method="DELETE", deadline_s=deadline_s)


@dataclass(frozen=True, slots=True)
class Session:
    """What a server says of one kernel."""

    server: Server
    notebook: Path
    state: str
    """``idle``, ``busy``, ``starting`` ..., as the server has seen it last."""


def find_servers(runtime_folder: Path) -> list[Server]:
    """List the servers whose process lives."""
    files = [path for pattern in _FILES for path in sorted(runtime_folder.glob(pattern))]
    return [server for path in files if (server := _read(path)) is not None]


def _read(path: Path) -> Server | None:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        url, token, pid = str(found["url"]), str(found.get("token", "")), int(found["pid"])
        root = Path(found.get("root_dir") or found.get("notebook_dir") or "/")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not url.startswith(("http://", "https://")) or not psutil.pid_exists(pid):
        return None
    return Server(url if url.endswith("/") else url + "/", token, root)


def find_sessions(runtime_folder: Path) -> dict[str, Session]:
    """Ask all servers at once; give what they say of their kernels, by kernel id."""
    servers = find_servers(runtime_folder)
    found: dict[str, Session] = {}
    if servers:
        with ThreadPoolExecutor(min(len(servers), _MAX_SERVERS)) as pool:
            for sessions in pool.map(_sessions, servers):
                found.update(sessions)
    return found


def _sessions(server: Server) -> dict[str, Session]:
    try:
        answer: Any = server.ask("api/sessions")
        return {
            str(one["kernel"]["id"]): Session(
                server, server.root / str(one["path"]), str(one["kernel"]["execution_state"])
            )
            for one in answer
            if one.get("kernel")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
