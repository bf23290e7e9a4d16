"""A worker that cannot start: the broker stays, and says in words what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.spec import ours, spec_for_tests, write_spec

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel

pytestmark = ours


def test_a_missing_ipython_is_named_in_the_reply_and_the_log(
    start_kernel: StartKernel, tmp_path: Path, private_folders: Path
) -> None:
    blocked = tmp_path / "blocked" / "IPython"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'IPython'\")\n"
    )
    spec = spec_for_tests()
    before = spec.get("env", {}).get("PYTHONPATH", "")
    spec["env"] = {"PYTHONPATH": f"{blocked.parent}:{before}"}
    write_spec(private_folders / "path", "unstuck-without-ipython", spec)
    kernel = start_kernel("unstuck-without-ipython")
    result = kernel.run("1 + 1")
    assert result.status == "error"
    assert "IPython" in str(result.content)
    kernel.wait_for_log("IPython")
    assert kernel.request("kernel_info_request", channel="control").status == "ok"
