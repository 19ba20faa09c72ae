"""A headless host: start its server, post workflows in API format, wait for what they made."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_server import environment, server_command

__all__ = ["Server", "WorkflowError", "running_server"]

START_SECONDS = 240
POLL_SECONDS = 0.25


class WorkflowError(RuntimeError):
    """The host refused a workflow or failed in it; the message is the host's."""


class Server:
    """The HTTP API of a running host."""

    def __init__(self, address: str):
        self.address = address

    def get(self, path: str):
        """The JSON at ``path``."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

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
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise WorkflowError(_refusal(json.loads(error.read() or b"{}"))) from error

    def submit(self, workflow: dict) -> str:
        """Queue a workflow in API format and return its id."""
        return self.post("/prompt", {"prompt": workflow})["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 900.0) -> dict:
        """The outputs ``{node id: {...}}`` of a queued workflow once it is done.

        Raises WorkflowError when a node failed, TimeoutError when it takes too long.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                _raise_failure(entry["status"])
                return entry["outputs"]
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"the workflow was not done after {seconds:.0f} s")

    def run(self, workflow: dict, seconds: float = 900.0) -> dict:
        """Submit a workflow and wait for its outputs."""
        return self.wait(self.submit(workflow), seconds)


@contextmanager
def running_server(output: Path, log: Path, **options) -> Iterator[Server]:
    """Start the host's server on a free port of this machine, stop it at the end.

    Args:
        output: folder the host saves images in.
        log: file for everything the host prints.
        options: see ``server_command``.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            server_command(port, output, **options),
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        try:
            server = Server(f"http://127.0.0.1:{port}")
            _wait_until_ready(server, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: Server, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
            raise RuntimeError(f"the host stopped while starting; the end of {log}:\n{tail}")
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(POLL_SECONDS)
    raise TimeoutError(f"the host did not answer within {START_SECONDS} s; see {log}")


def _refusal(answer: dict) -> str:
    """What the host said when it refused a workflow."""
    reasons = [str(answer.get("error", {}).get("message", "the host refused the workflow"))]
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
