"""Files that are damaged, hostile, or something else: one sentence each, and soon."""

import io
import json
import time
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from zmagic.guidance.networks import load_onnx
from zmagic.guidance.networks.onnx_header import read_onnx_header

HEAD = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
IMAGE = "net (float[1,3,8,8] x) => (float[1,3,8,8] y) "


def write(folder, model):
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def of_nodes(*nodes, constants=(), shape=(1, 3, 8, 8)):
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    output = onnx.ValueInfoProto(name="y")
    return helper.make_model(helper.make_graph(list(nodes), "net", [image], [output], constants))


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def refused(path, message: str) -> str:
    """The sentence in which a file is refused, soon, whatever else the machine does."""
    started = time.process_time()
    with pytest.raises(ValueError, match=f"^net.onnx {message}") as caught:
        load_onnx(path)
    assert time.process_time() - started < 10.0
    text = str(caught.value)
    assert "Traceback" not in text and len(text) < 500
    return text


# ---------------------------------------------------------------- graphs


@pytest.mark.parametrize(
    "nodes",
    [
        (node("Sub", "x c", "a"), node("Identity", "a", "a"), node("Relu", "a", "y")),
        (node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")),
        (node("Sub", "y c", "y"),),
        (node("Relu", "x", "y"), node("Relu", "u", "v"), node("Relu", "v", "u")),
    ],
)
def test_circles(tmp_path, nodes):
    constant = numpy_helper.from_array(np.float32(1.0), "c")
    path = write(tmp_path, of_nodes(*nodes, constants=[constant]))
    read_onnx_header(path)  # ends
    refused(path, "is damaged: its operators read from each other in a circle, export it again\n")


def test_operators_in_another_order_are_sorted(tmp_path):
    path = write(tmp_path, of_nodes(node("Relu", "a", "y"), node("Neg", "x", "a")))
    image = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(load_onnx(path)(image)[0], (-image).relu())


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((node("Relu", "x", "y"), node("Neg", "x", "y")), "is damaged: several operators make one"),
        ((node("Relu", "x", "x"), node("Neg", "x", "y")), "is damaged: "),
        ((node("Relu", "z", "y"),), "is damaged: an operator reads a tensor that nothing makes"),
        ((node("Relu", "x", "z"),), "has no tensor named y; its outputs are y"),
        ((node("Relu", "", "y"),), "(is damaged: export it again|cannot be)"),
        ((node("Add", "x x x", "y"),), "(is damaged: export it again|cannot be)"),
    ],
)
def test_graphs_that_are_none(tmp_path, nodes, message):
    refused(write(tmp_path, of_nodes(*nodes)), message)


def test_functions_that_call_each_other_in_a_circle(tmp_path):
    text = f"""{HEAD}{IMAGE}{{ y = own.f(x) }}
    <domain: "own", opset_import: ["" : 17, "own" : 1]> f (a) => (b) {{ b = own.g(a) }}
    <domain: "own", opset_import: ["" : 17, "own" : 1]> g (a) => (b) {{ b = own.f(a) }}"""
    path = write(tmp_path, parser.parse_model(text))
    refused(path, "is damaged: its functions call each other in a circle, export it again\n")


def test_functions_that_unfold_without_end(tmp_path):
    bodies = [
        f'<domain: "own", opset_import: ["" : 17, "own" : 1]> f{i} (a) => (b) '
        f"{{ c = own.f{i - 1}(a) b = own.f{i - 1}(c) }}"
        for i in range(1, 40)
    ]
    last = '<domain: "own", opset_import: ["" : 17]> f0 (a) => (b) { b = Relu(a) }'
    text = "\n".join([f"{HEAD}{IMAGE}{{ y = own.f39(x) }}", *bodies, last])
    refused(write(tmp_path, parser.parse_model(text)), "has 549,755,813,888 operators, more than")


def test_graphs_inside_graphs_inside_graphs(tmp_path):
    inner = helper.make_graph([node("Relu", "x", "z")], "g", [], [onnx.ValueInfoProto(name="z")])
    for _ in range(20):
        branch = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([branch], "g", [], [onnx.ValueInfoProto(name="z")])
        if inner.ByteSize() > 1 << 20:
            break
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    constant = numpy_helper.from_array(np.array(True), "c")
    refused(write(tmp_path, of_nodes(branch, constants=[constant])), "(cannot|has|is)")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 1 << 40, 1 << 40), r"takes images of the shape \[1, 3, 1099511627776"),
        ((1 << 40, 3, 8, 8), "takes images of the shape"),
        ((1, 3, 8192, 8192 * 16), "takes images of the shape"),
        ((1, 1 << 20, 8, 8), "takes images of the shape"),
        ((1, 3, 8), "must have one image input"),
        ((), "must have one image input"),
    ],
)
def test_inputs_of_sizes_that_there_are_not(tmp_path, shape, message):
    refused(write(tmp_path, of_nodes(node("Relu", "x", "y"), shape=shape)), message)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Expand", [1, 3, 100_000, 100_000]),
        ("Tile", [1, 1, 100_000, 100_000]),
        ("Pad", [0, 0, 0, 0, 0, 0, 1 << 40, 1]),
    ],
)
@pytest.mark.parametrize("sides", [(8, 8), ("H", "W")])
def test_tensors_of_sizes_that_there_are_not(tmp_path, kind, values, sides):
    constant = numpy_helper.from_array(np.array(values), "c")
    small = node("GlobalAveragePool" if kind == "Expand" else "Relu", "x", "z")
    nodes = (small, node(kind, "z c", "a"), node("Relu", "a", "y"))
    model = of_nodes(*nodes, constants=[constant], shape=(1, 3, *sides))
    refused(
        write(tmp_path, model), "makes a tensor of .* numbers, more than fits: use another file"
    )


def test_weights_that_are_shorter_than_their_shape(tmp_path):
    model = of_nodes(node("Conv", "x w", "y"))
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), "float32"), "w")
    weights.raw_data = weights.raw_data[:10]
    model.graph.initializer.append(weights)
    refused(write(tmp_path, model), "(is damaged: export it again|cannot be converted to PyTorch)")


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [("DynamicQuantizeLinear", 1), ("QuantizeLinear", 2), ("DequantizeLinear", 2)],
)
def test_quantized_networks_are_called_so(tmp_path, kind, inputs):
    outputs = ["y", "s", "z"][: 3 if kind.startswith("Dynamic") else 1]
    quantized = helper.make_node(kind, ["x", "c"][:inputs], outputs)
    constant = numpy_helper.from_array(np.float32(0.1), "c")
    text = refused(
        write(tmp_path, of_nodes(quantized, constants=[constant])),
        "is quantized .* get the network in float precision\n",
    )
    assert kind in text


def test_an_attribute_without_a_counterpart_is_named(tmp_path):
    constants = [
        numpy_helper.from_array(np.array([0, 0, 0, 0, 1, 1, 1, 1], "float32"), "r"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], "float32"), "s"),
    ]
    resize = node("Resize", "x r s", "y", coordinate_transformation_mode="tf_crop_and_resize")
    text = refused(write(tmp_path, of_nodes(resize, constants=constants)), "cannot be converted")
    assert "Resize: coordinate_transformation_mode 'tf_crop_and_resize' has no PyTorch" in text


# ---------------------------------------------------------------- files that are something else


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


def pickled(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def safetensors(cut: int = 0) -> bytes:
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8 - cut)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (POINTER, "a Git LFS pointer", "download the file itself"),
        (b"<!DOCTYPE html><html>...", "a web page", "download the file itself"),
        (b"\n  <html lang='en'>", "a web page", "download the file itself"),
        (b"Entry not found", "a text", "download it again"),
        (b'{"error": "Repository not found"}', "a text", "download it again"),
        (b"", "an empty one", "download it again"),
        (bytes(1000), "an empty one", "download it again"),
        (archive("buffalo_l/det_10g.onnx"), "a packed archive", "unpack it"),
        (archive("a")[:20], "a packed file that was cut", "download it again"),
        (b"\x1f\x8b\x08" + bytes(range(100)), "a packed archive", "unpack it"),
        (pickled(torch.nn.Linear(2, 2)), "a checkpoint of PyTorch", "get the network as its auth"),
        (scripted(), "a TorchScript file of PyTorch", "get the network as its authors exported"),
        (b"\x80\x02}q\x00.", "a checkpoint of PyTorch", "get the network as its authors"),
        (safetensors(), "one of weights alone (safetensors)", "export its network to ONNX"),
        (safetensors(cut=3), "a download that was cut", "download it again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_is_instead(tmp_path, content, what, advice):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    for read in (load_onnx, read_onnx_header):
        with pytest.raises(ValueError) as caught:
            read(path)
        first = str(caught.value).splitlines()[0]
        assert first.startswith(f"net.onnx is not a readable ONNX file but {what}")
        assert advice in first
        assert "\x1b" not in str(caught.value) and "Wire format" not in str(caught.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_cut_download(tmp_path, face_networks, part):
    whole = (face_networks / "fr_eye.onnx").read_bytes()
    path = tmp_path / "net.onnx"
    path.write_bytes(whole[: int(part * len(whole))])
    for read in (load_onnx, read_onnx_header):
        with pytest.raises(ValueError, match="but a download that was cut: download it again$"):
            read(path)
