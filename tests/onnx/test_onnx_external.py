"""Weights in files beside an ONNX file, in every layout that there is, and in none that is not."""

import os

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from zmagic.guidance.networks import load_onnx

KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("float32")
NET = """<ir_version: 8, opset_import: ["" : 13]>
net (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv(x, w) }"""


def write(folder, name="model.onnx", location="model.onnx_data"):
    folder.mkdir(parents=True, exist_ok=True)
    model = parser.parse_model(NET)
    model.graph.initializer.append(numpy_helper.from_array(KERNEL, "w"))
    options = {"save_as_external_data": True, "location": location, "size_threshold": 0}
    onnx.save_model(model, str(folder / name), **options)
    return folder / name


def point_to(path, location: str, **entries) -> None:
    """Let the file's weights be elsewhere."""
    model = onnx.load(path, load_external_data=False)
    (tensor,) = model.graph.initializer
    del tensor.external_data[:]
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def right(path) -> None:
    image = torch.randn(1, 3, 8, 8)
    expected = torch.nn.functional.conv2d(image, torch.from_numpy(KERNEL))
    torch.testing.assert_close(load_onnx(path)(image)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def cache(tmp_path):
    """Return a cache as the Hugging Face library makes it: names that are links to contents."""
    made = write(tmp_path / "made")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1a2b" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file, blob in ((made, "aaaa"), (made.with_name("model.onnx_data"), "bbbb")):
        file.rename(blobs / blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / blob, snapshot))
    return snapshot


def test_links_to_contents(cache):
    right(cache / "model.onnx")


def test_a_link_to_a_file_whose_weights_are_beside_it_there(cache, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "mine.onnx").symlink_to(cache / "model.onnx")
    right(models / "mine.onnx")


def test_links_to_both(cache, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (models / name).symlink_to(cache / name)
    right(models / "model.onnx")


def test_a_folder_that_is_a_link(tmp_path):
    write(tmp_path / "disk")
    (tmp_path / "models").symlink_to(tmp_path / "disk", target_is_directory=True)
    right(tmp_path / "models" / "model.onnx")


def test_weights_in_a_folder_below(tmp_path):
    path = write(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "model.onnx_data").rename(tmp_path / "deep" / "data")
    point_to(path, "deep/data")
    right(path)


@pytest.mark.parametrize(
    "place",
    [
        "../secret",
        "deep/../../secret",
        "{absolute}",
        "..\\secret",
        "C:\\secret",
        "\\\\server\\share\\secret",
        "link",
        "folder/secret",
    ],
)
def test_escapes(tmp_path, place):
    """Names and links lead to places that the file itself does not lie in."""
    path = write(tmp_path / "models")
    secret = tmp_path / "secret"
    (tmp_path / "models" / "model.onnx_data").rename(secret)
    (tmp_path / "models" / "link").symlink_to(secret)
    (tmp_path / "models" / "folder").symlink_to(tmp_path, target_is_directory=True)
    point_to(path, place.format(absolute=secret))
    with pytest.raises(ValueError, match="^model.onnx refers to weights outside its own folder"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("gone", {}, "external weights cannot be read: put the file 'gone' beside it"),
        ("", {}, "external weights cannot be read"),
        ("model.onnx_data", {"offset": 1 << 60}, "end too early: download that file again"),
        ("model.onnx_data", {"length": 1 << 60}, "end too early"),
        ("model.onnx_data", {"offset": -5}, "end too early"),
        ("model.onnx_data", {"offset": "many"}, " is damaged: export it again"),
        ("pipe", {}, "external weights cannot be read"),
        (".", {}, "external weights cannot be read"),
        ("x" * 300, {}, "external weights cannot be read"),
        ("a\x00b", {}, "external weights cannot be read"),
    ],
)
def test_weights_that_cannot_be_read(tmp_path, location, entries, message):
    path = write(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    point_to(path, location, **entries)
    with pytest.raises(ValueError, match=f"^model.onnx.*{message}"):
        load_onnx(path)
