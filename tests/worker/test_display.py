"""Displays carry their ids, metadata and buffers; hooks see those of their own thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstuck.protocol import Publish
from unstuck.typing import RunMode

if TYPE_CHECKING:
    from worker.broker_double import WorkerDouble


def test_a_display_is_updated_by_its_id(worker: WorkerDouble) -> None:
    outputs = worker.run("handle = display(1, display_id='me'); handle.update(2)")
    (first,) = outputs.published("display_data")
    (second,) = outputs.published("update_display_data")
    assert first["transient"] == second["transient"] == {"display_id": "me"}
    assert (first["data"]["text/plain"], second["data"]["text/plain"]) == ("1", "2")


def test_outputs_are_cleared_at_once_or_with_the_next(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "from IPython.display import clear_output; clear_output(); clear_output(wait=True)"
    )
    assert outputs.published("clear_output") == [{"wait": False}, {"wait": True}]


def test_metadata_stays_with_its_mime_type(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "from IPython.display import Image\n"
        "Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + b'\\0' * 40, format='png', width=10)"
    )
    (result,) = outputs.published("execute_result")
    assert result["metadata"]["image/png"]["width"] == 10
    assert result["data"]["image/png"].startswith("iVBOR")


def test_buffers_travel_beside_a_display(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "get_ipython().display_pub.publish({'text/plain': 'x'}, "
        "buffers=[b'abc', memoryview(b'de')])"
    )
    (message,) = [m for m in outputs.messages if isinstance(m, Publish) and m.buffers]
    assert message.buffers == [b"abc", b"de"]


def test_a_hook_changes_takes_and_lets_through_displays_of_its_thread(worker: WorkerDouble) -> None:
    worker.run(
        "seen = []\n"
        "def hook(message):\n"
        "    seen.append((message['header']['msg_type'], message['parent_header']['msg_id']))\n"
        "    plain = message['content']['data']['text/plain']\n"
        "    message['content']['data']['text/plain'] = plain.upper()\n"
        "    return None if 'drop' in plain else message\n"
        "publisher = get_ipython().display_pub\npublisher.register_hook(hook)"
    )
    job = worker.submit(
        "display({'text/plain': 'keep'}, raw=True); display({'text/plain': 'drop'}, raw=True)"
    )
    outputs = worker.wait(job)
    assert [d["data"]["text/plain"] for d in outputs.published("display_data")] == ["KEEP"]
    assert worker.run("seen").result == (
        f"[('display_data', 'msg-{job}'), ('display_data', 'msg-{job}')]"
    )
    other = worker.run("display({'text/plain': 'other'}, raw=True)", mode=RunMode.thread)
    assert other.published("display_data")[0]["data"]["text/plain"] == "other"
    assert worker.run(
        "publisher.unregister_hook(hook), publisher.unregister_hook(hook)"
    ).result == ("(True, False)")


def test_a_displays_parent_may_be_changed_by_set_parent(worker: WorkerDouble) -> None:
    worker.run("parent = get_ipython().get_parent()")
    job = worker.submit(
        "import contextvars\n"
        "def elsewhere():\n    get_ipython().set_parent(parent); print('there'); display(1)\n"
        "contextvars.copy_context().run(elsewhere); print('here')"
    )
    outputs = worker.wait(job)
    assert outputs.text() == "here\n"
    assert outputs.published("display_data") == []


def test_the_display_hook_gives_values_to_its_hooks(worker: WorkerDouble) -> None:
    worker.run(
        "got = []\ndef take(message): got.append(message['content']['data'])\n"
        "get_ipython().displayhook.register_hook(take)"
    )
    assert worker.run("'taken'").published("execute_result") == []
    worker.run("get_ipython().displayhook.unregister_hook(take)")
    assert worker.run("got").result == "[{'text/plain': \"'taken'\"}]"


def test_widgets_output_captures_by_the_message_id(worker: WorkerDouble) -> None:
    outputs = worker.run(
        "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n"
        "    print('inside')\n    inner = out.msg_id\n"
        "inner, out.msg_id"
    )
    assert outputs.result.startswith("('msg-")
    assert outputs.published("comm_open")


def test_gui_loops_that_cannot_run_are_refused_in_words(worker: WorkerDouble) -> None:
    assert worker.run("%gui").reply["status"] == "ok"
    outputs = worker.run("get_ipython().enable_gui('qt')")
    assert outputs.reply["ename"] == "UsageError"
