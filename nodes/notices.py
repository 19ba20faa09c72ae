"""Warnings of nodes, in the log and on the node itself, and other texts that a node shows.

ComfyUI's frontend shows a text that a node sends while it runs under the node's widgets, and keeps
it there until the node sends another one.
"""

import html
import logging
import sys
from collections.abc import Sequence

from comfy_api.latest import io

from ..guidance.wording import printable
from .titles import title

__all__ = ["notify", "say", "show"]

log = logging.getLogger(__name__)

# What replaces a warning that no longer holds: the frontend cannot take a text away.
NOTHING = "No warnings."

# Numbers of the nodes that show a text.
_shown: set[str | None] = set()


def notify(node: type[io.ComfyNode], sentences: Sequence[str]) -> None:
    """Say ``sentences`` in the log, behind the node's title, and show them on the node.

    To be called once in an execution, without sentences too: what an earlier execution showed is
    then taken back.

    Args:
        node: the class that ComfyUI executes; on the node itself it shows only if its schema asks
            for ``io.Hidden.unique_id``.
        sentences: without the node's title, the thing to do first; any text may be in them.
    """
    for sentence in sentences:
        log.warning("%s: %s", title(node), printable(sentence))
    show(node, sentences)


def show(node: type[io.ComfyNode], sentences: Sequence[str]) -> None:
    """Show ``sentences`` on the node alone, for those that are in the log already; see ``notify``.

    Without a server, or outside a graph, nothing happens.
    """
    number = _number(node)
    if sentences or number in _shown:
        say(node, "\n\n".join(sentences) or NOTHING)
    if not sentences:
        _shown.discard(number)


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show ``text`` on the node in place of what it shows, until it shows another one.

    Without a server, or outside a graph, nothing happens; nor where the server fails.
    """
    number = _number(node)
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    send = getattr(server, "send_progress_text", None)
    if number is None or send is None:
        return
    _shown.add(number)
    try:  # the frontend puts it into the page as HTML
        send(html.escape(printable(text), quote=False), number, server.client_id)
    except Exception:  # a picture is not lost for a text beside it
        log.debug("a text could not be shown", exc_info=True)


def _number(node: type[io.ComfyNode]) -> str | None:
    return getattr(node.hidden, "unique_id", None)
