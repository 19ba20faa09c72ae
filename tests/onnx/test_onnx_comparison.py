"""Every converted network is compared with its file, by onnxruntime, once."""

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from zmagic.guidance.networks import load_onnx, onnx_comparison, onnx_rewrites
from zmagic.guidance.optional_packages import needed

NET = '<ir_version: 8, opset_import: ["" : 13]> net '
SUMS = "(float[1,3,8,8] x) => (float[1,3,8,8] y) { r = Relu(x) y = CumSum(r, a) }"
SUMMED = {"a": np.array(2)}


def write(folder, text, constants=None):
    model = parser.parse_model(NET + text)
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def fresh(monkeypatch):
    """Make the process one that has seen no file yet."""
    monkeypatch.setattr(onnx_comparison, "_RESULTS", {})


@pytest.fixture
def mistaken(fresh, monkeypatch):
    """The converter as it comes, which takes CumSum for a sum from the other end."""
    rules = {k: rule for k, rule in onnx_rewrites.RULES.items() if k != "CumSum"}
    monkeypatch.setattr(onnx_rewrites, "RULES", rules)


def test_another_function_than_the_files_is_refused(tmp_path, mistaken):
    path = write(tmp_path, SUMS, SUMMED)
    for _ in range(2):  # found anew, and remembered
        with pytest.raises(ValueError, match="^net.onnx becomes another function in PyTorch") as no:
            load_onnx(path)
        first, second = str(no.value).splitlines()
        assert (
            "use another export" in first and "output 'y'" in second and "% of the span" in second
        )


def test_another_shape_is_refused_with_both(tmp_path, fresh, monkeypatch):
    rules = {k: rule for k, rule in onnx_rewrites.RULES.items() if k != "ConvTranspose"}
    monkeypatch.setattr(onnx_rewrites, "RULES", rules)
    text = """(float[1,3,8,8] x) => (float[1,4,16,16] y) {
        y = ConvTranspose <strides = [2, 2], output_shape = [16, 16]> (x, w)
    }"""
    path = write(tmp_path, text, {"w": np.ones((3, 4, 3, 3), "float32")})
    with pytest.raises(ValueError, match=r"shape \[1, 4, 17, 17\], expected \[1, 4, 16, 16\]"):
        load_onnx(path)


def test_the_tensors_that_are_used_are_compared(tmp_path, mistaken):
    """A tensor before the mistake is right, and the file's own output is not."""
    path = write(tmp_path, SUMS, SUMMED)
    image = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(load_onnx(path, ["r"])(image)[0], image.relu())
    with pytest.raises(ValueError, match="another function"):
        load_onnx(path, ["r", "y"])


def test_a_file_is_compared_once_by_its_content(tmp_path, fresh, monkeypatch):
    runs = []
    original = onnx_comparison._by_onnxruntime
    monkeypatch.setattr(
        onnx_comparison, "_by_onnxruntime", lambda *a: runs.append(1) or original(*a)
    )
    path = write(tmp_path, SUMS, SUMMED)
    load_onnx(path)
    load_onnx(path.rename(tmp_path / "renamed.onnx"))
    assert len(runs) == 1
    load_onnx(write(tmp_path, SUMS, {"a": np.array(3)}))
    assert len(runs) == 2


def test_networks_of_free_size_are_compared_at_the_size_of_their_use(tmp_path, fresh, monkeypatch):
    path = write(tmp_path, SUMS.replace("8,8", "H,W"), SUMMED)
    seen = []
    original = onnx_comparison._compared
    monkeypatch.setattr(
        onnx_comparison, "_compared", lambda m, p, e: seen.append(p[0].shape) or original(m, p, e)
    )
    load_onnx(path, free_size=(24, 16))
    load_onnx(path, free_size=(8, 16))
    assert seen == [(1, 3, 24, 16), (1, 3, 8, 16)]


def test_without_onnxruntime_it_is_said(tmp_path, fresh, monkeypatch, caplog):
    def absent(module, package=None):
        if module == "onnxruntime":
            raise ValueError("not there")
        return needed(module, package)

    monkeypatch.setattr(onnx_comparison, "needed", absent)
    with caplog.at_level(logging.WARNING):
        load_onnx(write(tmp_path, SUMS, SUMMED))
    assert "net.onnx was not compared with onnxruntime, which is not installed" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        # constant, and constant but for rounding
        "(float[1,3,8,8] x) => (float[1,3,8,8] y) { z = Sub(x, x) y = Add(z, c) }",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y) { z = Mul(x, t) y = Add(z, c) }",
        # whole numbers, truth values, nothing
        "(float[1,3,8,8] x) => (int64[1,1,8,8] y) { y = ArgMax <axis = 1> (x) }",
        "(float[1,3,8,8] x) => (bool[1,3,8,8] y) { y = Greater(x, c) }",
        # infinite, and no number
        "(float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Log(x) }",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y) { z = Sub(x, x) y = Div(z, z) }",
        # a batch that is fixed in the file
        "(float[4,3,8,8] x) => (float[4,3,8,8] y) { y = Relu(x) }",
        "(uint8[1,3,8,8] x) => (float[1,3,8,8] y) { y = Cast <to = 1> (x) }",
        "(float16[1,3,8,8] x) => (float16[1,3,8,8] y) { y = Relu(x) }",
        "(double[1,3,8,8] x) => (double[1,3,8,8] y) { y = Exp(x) }",
    ],
)
def test_what_is_right_passes(tmp_path, fresh, caplog, text):
    constants = {"c": np.float32(5.0), "t": np.float32(1e-7)}
    used = {name: value for name, value in constants.items() if f", {name})" in text}
    with caplog.at_level(logging.WARNING):
        load_onnx(write(tmp_path, text, used))
    assert not caplog.records  # it was compared


def test_what_is_no_number_in_pytorch_only_is_refused(fresh):
    theirs = [torch.tensor([[1.0, float("nan")]])]
    assert not onnx_comparison._different([torch.tensor([[1.0, 3.0]])], theirs)
    found = onnx_comparison._different([torch.tensor([[float("nan"), 3.0]])], theirs)
    assert found == "is not finite where the file's is"


# ---------------------------------------------------------------- outputs of other forms


@pytest.mark.parametrize("keep", [0, 1])
def test_one_number_for_a_picture(tmp_path, keep):
    """Judges of quality are exported so: for one picture, a number without any axis."""
    text = f"(float[N,3,8,8] x) => (float[] y) {{ y = ReduceMean <keepdims = {keep}> (x) }}"
    path = write(tmp_path, text)
    module = load_onnx(path)
    images = torch.randn(3, 3, 8, 8, requires_grad=True)
    (result,) = module(images)
    torch.testing.assert_close(result.flatten(), images.mean((1, 2, 3)))
    assert result.shape[0] == 3 and not module.batched
    result.sum().backward()
    assert images.grad.abs().min() > 0.0


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("height", "width", "stride"), [(64, 64, 1), (32, 64, 2), (33, 65, 2)])
def test_channels_of_outputs_come_first_wherever_the_file_has_them(
    tmp_path, last, height, width, stride
):
    """With channels last at the input, a file may leave its maps either way."""
    kernel = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype("float32")
    turn = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    name = "c" if last else "y"
    sides = {"pads": [1, 1, 1, 1], "strides": [stride, stride]}
    nodes = [turn, helper.make_node("Conv", ["t", "w"], [name], **sides)]
    if last:
        nodes.append(helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, height, width, 3])
    graph = helper.make_graph(
        nodes,
        "net",
        [image],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(kernel, "w")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    picture = torch.randn(2, 3, height, width)
    expected = torch.nn.functional.conv2d(picture, torch.from_numpy(kernel), None, stride, 1)
    torch.testing.assert_close(load_onnx(path)(picture)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_wrong_part_is_not_hidden_by_a_larger_one(tmp_path, mistaken):
    """The parts are like a detector's scores beside its boxes in pixels."""
    text = """(float[1,3,8,8] x) => (float[1,6,8,8] y) {
        boxes = Mul(x, k)
        sums = CumSum(x, a)
        y = Concat <axis = 1> (boxes, sums)
    }"""
    path = write(tmp_path, text, {**SUMMED, "k": np.array(1e4, "float32")})
    with pytest.raises(ValueError, match="at index 3 of axis 1"):
        load_onnx(path)
