"""A headless host: start its server, post workflows in API format, wait for what they made."""

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
from host_server import environment, server_command

__all__ = ["PATIENCE", "Server", "WorkflowError", "free_port", "running_server"]

# Seconds without any news after which a host counts as stuck. A machine that is busy with other
# things may need minutes for one step, so this is long; as long as there is news, it waits.
PATIENCE = 1800.0
START_PATIENCE = 600.0
LEASH = Path(__file__).with_name("leash.py")
POLL_SECONDS = 0.25
ANSWER_SECONDS = 60.0
# News that the host has sent arrive within this time.
REST_SECONDS = 0.2

# Called with the host's news: {"node": id} when a node starts, with "value" and "max" besides when
# it is at a step.
Listener = Callable[[dict], None]


class WorkflowError(RuntimeError):
    """The host refused a workflow or failed in it; the message is the host's."""


class Server:
    """The HTTP API of a running host.

    Args:
        address: such as ``http://127.0.0.1:8188``.
        answer_seconds: how long a host may take for one answer; raises OSError after that.
        frozen_seconds: how long it may give none at all while a workflow is waited for.
    """

    def __init__(
        self,
        address: str,
        answer_seconds: float = ANSWER_SECONDS,
        frozen_seconds: float = PATIENCE,
    ):
        self.address = address.rstrip("/")
        self.answer_seconds, self.frozen_seconds = answer_seconds, frozen_seconds
        self.leash: subprocess.Popen | None = None  # its parent, where this process started it
        self.client = uuid.uuid4().hex  # the host sends the news of a workflow to who posted it

    def get(self, path: str):
        """The JSON at ``path``."""
        answer = self._asked(self.address + path)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ConnectionError(
                f"{self.address} is no ComfyUI: {path} answers with something else than JSON"
            ) from error

    def post(self, path: str, content: dict):
        """Send JSON to ``path`` and return the JSON answer, {} if it is empty.

        Raises WorkflowError if the host refuses it.
        """
        request = urllib.request.Request(
            self.address + path,
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            return json.loads(self._asked(request) or b"{}")
        except urllib.error.HTTPError as error:
            raise WorkflowError(_refusal(error.read())) from error

    def picture(self, image: dict) -> bytes:
        """The file of an image that the history names."""
        place = {key: image[key] for key in ("filename", "subfolder", "type")}
        return self._asked(f"{self.address}/view?{urllib.parse.urlencode(place)}")

    def _asked(self, request: str | urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=self.answer_seconds) as answer:
                return answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"ComfyUI's answer broke off: {error}") from error

    def submit(self, workflow: dict, prompt_id: str | None = None) -> str:
        """Queue a workflow in API format and return its id: ``prompt_id``, else the host's."""
        wanted = {"prompt_id": prompt_id} if prompt_id else {}
        content = {"prompt": workflow, "client_id": self.client, **wanted}
        return self.post("/prompt", content)["prompt_id"]

    def wait(
        self, prompt_id: str, patience: float = PATIENCE, listener: Listener | None = None
    ) -> dict:
        """The outputs ``{node id: {...}}`` of a queued workflow once it is done.

        Args:
            prompt_id: what ``submit`` returned.
            patience: seconds without any news of the host after which it counts as stuck. How long
                the whole takes does not matter.
            listener: called with every piece of news, see ``Listener``.

        Raises:
            WorkflowError: a node failed.
            TimeoutError: there was no news for too long.
            OSError: the host is gone.
        """
        try:
            entry = asyncio.run(self._follow(prompt_id, patience, listener or (lambda news: None)))
        except aiohttp.ClientError as error:
            raise ConnectionError(f"ComfyUI went away: {error}") from error
        _raise_failure(entry["status"])
        return entry["outputs"]

    def run(
        self, workflow: dict, patience: float = PATIENCE, listener: Listener | None = None
    ) -> dict:
        """Submit a workflow and wait for its outputs, see ``wait``."""
        return self.wait(self.submit(workflow), patience, listener)

    async def _follow(self, prompt_id: str, patience: float, listener: Listener) -> dict:
        """Return what the history holds of the workflow, once it has finished."""
        url = f"{self.address}/ws?clientId={self.client}"
        latest, heard = "none yet", time.monotonic()
        answered = heard
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(self.answer_seconds):  # a frozen host accepts and is silent
                news = await session.ws_connect(url, max_msg_size=0)
            while True:
                # A busy host answers late; one that is gone shows in the news.
                with suppress(TimeoutError, urllib.error.URLError):
                    entry = self.get(f"/history/{prompt_id}").get(prompt_id)
                    answered = time.monotonic()
                    if entry:
                        await _rest(news, listener)
                        return entry
                if time.monotonic() - answered > self.frozen_seconds:
                    raise TimeoutError(f"ComfyUI has not answered for {self.frozen_seconds:.0f} s")
                try:
                    message = await news.receive(timeout=POLL_SECONDS)
                except TimeoutError:
                    if time.monotonic() - heard <= patience:
                        continue
                    raise TimeoutError(
                        f"ComfyUI has told nothing for {patience:.0f} s; its latest news: {latest}"
                    ) from None
                if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                    raise ConnectionError(f"ComfyUI went away; its latest news: {latest}")
                heard = time.monotonic()
                if told := _news_of_a_node(message):
                    latest = json.dumps(told)
                    listener(told)


async def _rest(news: aiohttp.ClientWebSocketResponse, listener: Listener) -> None:
    """Pass on the news that have come and were not read yet: the history may be ahead of them."""
    with suppress(TimeoutError):
        while True:
            message = await news.receive(timeout=REST_SECONDS)
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return
            if told := _news_of_a_node(message):
                listener(told)


def _news_of_a_node(message: aiohttp.WSMessage) -> dict | None:
    """The node that runs now or how far it is, None for all other news."""
    if message.type is not aiohttp.WSMsgType.TEXT:
        return None
    event = json.loads(message.data)
    known = event["type"] in ("executing", "progress") and event["data"].get("node")
    return event["data"] if known else None


@contextmanager
def running_server(
    output: Path, log: Path, *, port: int | None = None, prefix: Sequence[str] = (), **options
) -> Iterator[Server]:
    """Start the host's server on this machine, stop it at the end.

    It ends with this process, too, however that ends.

    Args:
        output: folder the host saves images in.
        log: file for everything the host prints.
        port: a free one if None.
        prefix: words before the host's command line, such as ``nice -n 10``.
        options: see ``server_command``.
    """
    port = port or free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, str(LEASH), *prefix, *server_command(port, output, **options)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        try:
            server = Server(f"http://127.0.0.1:{port}")
            _wait_until_ready(server, process, log)
            server.leash = process
            yield server
        finally:
            process.stdin.close()
            process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(server: Server, process: subprocess.Popen, log: Path) -> None:
    printed, heard = 0, time.monotonic()
    while time.monotonic() - heard < START_PATIENCE:
        if log.stat().st_size != printed:
            printed, heard = log.stat().st_size, time.monotonic()
        if process.poll() is not None:
            tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
            raise RuntimeError(f"ComfyUI stopped while starting; the end of {log}:\n{tail}")
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(POLL_SECONDS)
    raise TimeoutError(
        f"ComfyUI does not answer and has printed nothing for {START_PATIENCE:.0f} s; see {log}"
    )


def _refusal(body: bytes) -> str:
    """Return what the host said when it refused a workflow."""
    try:
        answer = json.loads(body or b"{}")
    except ValueError:  # of a server that failed itself
        return f"ComfyUI answered: {body.decode(errors='replace').strip()[:200]}"
    reasons = [str(answer.get("error", {}).get("message", "ComfyUI refused the workflow"))]
    for node_id, node in answer.get("node_errors", {}).items():
        for error in node["errors"]:
            where = f"{node['class_type']} (node {node_id})"
            reasons.append(f"{where}: {error['message']}: {error['details']}")
    return "; ".join(reasons)


def _raise_failure(status: dict) -> None:
    for kind, details in status["messages"]:
        if kind == "execution_error":
            where = f"{details['node_type']} (node {details['node_id']})"
            raise WorkflowError(f"{where}: {details['exception_message'].strip()}")
        if kind == "execution_interrupted":
            raise WorkflowError("the workflow was interrupted")
