"""What the tags and metadata of a cell say about its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.typing import MetadataKeys, Tags

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ERROR_MESSAGE = "⚠"
_NO = ("false", "0", "no", "off")


def read_tags(metadata: Mapping[str, Any]) -> list[str]:
    """Give the tags that are text; anything else in their place is none."""
    tags = metadata.get(MetadataKeys.tags.value)
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def error_message(metadata: Mapping[str, Any]) -> str | None:
    """Give what is shown instead of a traceback, when the cell asks for that; "" is nothing."""
    if Tags.suppress_error.value not in read_tags(metadata):
        return None
    key = MetadataKeys.suppress_error_message
    chosen = metadata.get(key.value, metadata.get(key.name))
    return DEFAULT_ERROR_MESSAGE if chosen is None else str(chosen)


def stops_on_error(metadata: Mapping[str, Any], requested: bool) -> bool:
    """Say whether an error of the cell aborts the queue; its tags go before the request."""
    tags = read_tags(metadata)
    for tag in tags:
        if tag.startswith(Tags.stop_on_error.value):
            return tag.removeprefix(Tags.stop_on_error.value).lower() not in _NO
    return requested and Tags.raises_exception.value not in tags
