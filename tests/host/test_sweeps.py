"""Sweeps as people run them, on two real hosts."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.server]

PACK = Path(__file__).resolve().parents[2]
GRAPH = PACK / "workflows" / "api" / "text_and_identity_demo.json"
LIMIT = 600.0  # seconds
# A picture of one color, by stock nodes.
PLAIN = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}},
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory, pytestconfig):
    started = pytestconfig.zmagic_script("sweeps.local_hosts").local_hosts
    with started(2, tmp_path_factory.mktemp("hosts"), cpu=True, python=sys.executable) as hosts:
        yield hosts


@pytest.fixture
def plain(tmp_path) -> Path:
    file = tmp_path / "plain.json"
    file.write_text(json.dumps(PLAIN), encoding="utf-8")
    return file


def colors(count: int) -> str:
    """Other ones in every test: a host remembers what it has made."""
    first = time.time_ns() % 10_000_000
    return "EmptyImage.color=" + ",".join(str(first + k) for k in range(count))


def command(graph: Path, folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "scripts/sweep.py", str(graph), "--folder", str(folder), *arguments]


def swept(*arguments, before: tuple[str, ...] = (), **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [*before, *command(*arguments)],
        **{"cwd": PACK, "capture_output": True, "text": True, "timeout": LIMIT},
        env={**os.environ, **variables},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def at(hosts) -> tuple[str, str]:
    return "--hosts", ",".join(host.address for host in hosts)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


def pictures(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "pictures").iterdir()}


@pytest.fixture(scope="module")
def demo(hosts, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of a sweep of the demo graph, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["--vary", 'Text Energy.prompt=["a man, old", "a woman"]', "--seeds", "2"]
    arguments += ["--vary", "Z-Magic Settings.preset=fast", "--vary", "Z-Magic Sampler.steps=1"]
    code, told = swept(GRAPH, folder, *arguments, *at(hosts))
    assert code == 0, told
    return folder, arguments


def test_a_sweep_leaves_pictures_a_table_and_a_sheet(demo, hosts):
    folder, _ = demo
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(pictures(folder)) == 4
    assert {(row["Text Energy.prompt"], row["seed"]) for row in table} == {
        (prompt, seed) for prompt in ("a man, old", "a woman") for seed in ("0", "1")
    }
    assert {row["host"] for row in table} <= {host.address for host in hosts}
    for row in table:
        assert (folder / row["file"]).is_file() and float(row["seconds"]) > 0.0
        assert all(float(row[f"energy {name}"]) > 0.0 for name in ("Text", "Face Identity"))
    with Image.open(folder / "sheet-1.png") as sheet:
        assert sheet.width > sheet.height // 2 > 256  # two columns, two rows of 128 enlarged


def test_the_same_command_makes_nothing_twice(demo, hosts):
    folder, arguments = demo
    before = pictures(folder)
    code, told = swept(GRAPH, folder, *arguments, *at(hosts))
    assert code == 0 and "4 variants, 4 of them made already" in told
    assert pictures(folder) == before


def test_a_variant_is_bit_equal_to_the_one_that_another_host_makes_alone(demo, hosts, pytestconfig):
    folder, _ = demo
    sweep = pytestconfig.zmagic_script("sweep")
    runs = pytestconfig.zmagic_script("sweeps.runs")
    graph = sweep.read_graph(GRAPH)
    texts = ["Text Energy.prompt=a woman", "Z-Magic Settings.preset=fast"]
    texts += ["Z-Magic Sampler.steps=1"]
    variations = [sweep.variation(graph, text) for text in texts]
    variant = sweep.variants_of(graph, variations, (0, 1))[1]
    (kept,) = [row for row in rows(folder) if row["prompt"] == variant.digest]
    (other,) = [host for host in hosts if host.address != kept["host"]]
    (image,) = other.run(runs.with_report(variant.graph))["10"]["images"]
    assert hashlib.sha256(other.picture(image)).hexdigest() == kept["sha256"][0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_stopped_goes_on_and_makes_no_variant_twice(hosts, plain, tmp_path, how):
    arguments = ("--vary", colors(24), *at(hosts))
    folder = tmp_path / "stopped"
    process = subprocess.Popen(command(plain, folder, *arguments), cwd=PACK)
    file, started = folder / "rows.jsonl", time.monotonic()
    while not file.is_file() or file.read_bytes().count(b"\n") < 4:
        assert process.poll() is None and time.monotonic() - started < LIMIT
        time.sleep(0.02)
    process.send_signal(how)
    code = process.wait(LIMIT)
    if how == signal.SIGINT:
        assert code == 1 and (folder / "table.csv").is_file()
    kept_before, before = {row["prompt"] for row in rows(folder)}, pictures(folder)
    code, told = swept(plain, folder, *arguments)
    assert code == 0, told
    kept, after = rows(folder), pictures(folder)
    assert len(kept) == len({row["prompt"] for row in kept}) == len(after) == 24
    for row in kept:
        if row["prompt"] in kept_before:
            (name,) = (Path(file).name for file in row["files"])
            assert after[name] == before[name]
    histories = [host.get("/history") for host in hosts]
    for row in kept:
        prompt_id = str(uuid.UUID(row["prompt"][:32]))
        entries = [history[prompt_id] for history in histories if prompt_id in history]
        assert [entry["status"]["status_str"] for entry in entries].count("success") == 1


def test_a_full_disk_of_its_own_stops_it_and_leaves_nothing_half(hosts, plain, tmp_path):
    arguments = (plain, tmp_path / "full", "--vary", colors(3), *at(hosts))
    code, told = swept(*arguments, before=("prlimit", "--fsize=1024"))
    assert code == 1 and "stopped: cannot keep a picture: " in told and "0 of 3" in told
    assert not pictures(tmp_path / "full") and not (tmp_path / "full" / "rows.jsonl").exists()
    code, told = swept(*arguments)
    assert code == 0 and "3 of 3 variants are made" in told


def test_a_graph_that_every_host_refuses_is_given_up_soon(hosts, plain, tmp_path):
    graph = json.loads(plain.read_text(encoding="utf-8"))
    del graph["2"]
    plain.write_text(json.dumps(graph), encoding="utf-8")
    code, told = swept(plain, tmp_path / "wrong", "--vary", colors(40), *at(hosts))
    assert code == 1 and "stopped: the first 3 variants failed" in told
    assert "Prompt has no outputs" in told and "0 of 40" in told


def test_a_host_that_is_not_there_is_left_to_the_other_one(hosts, plain, tmp_path):
    addresses = f"http://127.0.0.1:1,{hosts[0].address}"
    code, told = swept(plain, tmp_path / "one", "--vary", colors(3), "--hosts", addresses)
    assert code == 0 and {row["host"] for row in rows(tmp_path / "one")} == {hosts[0].address}
    nobody = ("--vary", colors(3), "--hosts", "http://127.0.0.1:1", "--patience", "2")
    code, told = swept(plain, tmp_path / "none", *nobody)
    assert code == 1 and "stopped: no ComfyUI has answered for 2 s" in told


def test_the_workers_of_a_cluster_use_the_hosts_that_run(hosts, plain, tmp_path):
    address = hosts[0].address
    arguments = ("--vary", colors(4), "--scheduler", "local:1")
    code, told = swept(plain, tmp_path / "dask", *arguments, COMFYUI_URL=address)
    assert code == 0 and "4 of 4 variants are made" in told, told
    assert {row["host"] for row in rows(tmp_path / "dask")} == {address}


def test_no_scheduler_is_said_in_a_sentence(plain, tmp_path):
    code, told = swept(plain, tmp_path, "--scheduler", "tcp://127.0.0.1:1")
    assert code == 1 and "no Dask scheduler answers at tcp://127.0.0.1:1" in told
