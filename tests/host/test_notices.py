"""Warnings of nodes reach the log and, through the host's own server, the node."""

import asyncio
import logging

import pytest
import server
from protocol import BinaryEventTypes

from zmagic.nodes.notices import NOTHING, notify
from zmagic.nodes.openclip_loader_node import ZMagicLoadOpenCLIP
from zmagic.nodes.picture_energy_nodes import ZMagicSketch


def in_graph(node, number: str):
    """The class as the host executes it for a node of a graph."""
    from comfy_api.latest import io

    clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: number}})
    assert clone.hidden.unique_id == number
    return clone


@pytest.fixture
def prompt_server():
    """The host's server, not listening, and what it was asked to send."""
    loop = asyncio.new_event_loop()
    instance = server.PromptServer(loop)
    instance.client_id = "client"
    yield instance
    loop.close()
    del server.PromptServer.instance


def sent(instance) -> list[tuple[str, str, str]]:
    """Node, text and client of each text that was sent."""
    instance.loop.run_until_complete(asyncio.sleep(0))
    texts = []
    while not instance.messages.empty():
        event, data, client = instance.messages.get_nowait()
        assert event == BinaryEventTypes.TEXT
        length = int.from_bytes(data[:4], "big")
        texts.append((data[4 : 4 + length].decode(), data[4 + length :].decode(), client))
    return texts


def test_shown_on_the_node_until_it_no_longer_holds(prompt_server, caplog):
    node = in_graph(ZMagicLoadOpenCLIP, "12")
    notify(node, [])
    assert sent(prompt_server) == []
    with caplog.at_level(logging.WARNING):
        notify(node, ["Shorten <it>.", "\udc80 is no letter."])
    assert [record.getMessage() for record in caplog.records] == [
        "Load OpenCLIP (node 12): Shorten <it>.",
        "Load OpenCLIP (node 12): \\udc80 is no letter.",
    ]
    # The frontend shows it as HTML.
    shown = "Shorten &lt;it&gt;.\n\n\\udc80 is no letter."
    assert sent(prompt_server) == [("12", shown, "client")]
    notify(node, [])
    assert sent(prompt_server) == [("12", NOTHING, "client")]
    notify(node, [])
    assert sent(prompt_server) == []


def test_without_a_server_it_is_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        notify(ZMagicSketch, ["Something is wrong."])
    assert caplog.messages == ["Sketch Energy: Something is wrong."]
