"""Colors of sockets: told apart by every eye, seen on light and dark nodes."""

import re
from itertools import combinations
from pathlib import Path

import pytest
import torch

PACK = Path(__file__).resolve().parents[2]
CODE = (PACK / "web" / "js" / "socket_colors.js").read_text(encoding="ascii")
COLORS = dict(re.findall(r"(ZMAGIC_\w+): '(#[0-9a-f]{6})'", CODE))
NODES = {"light": "#ffffff", "dark": "#353535"}  # what the frontend's palettes paint nodes with
LEAST_CONTRAST, LEAST_DIFFERENCE = 2.0, 20.0

# Machado, Oliveira and Fernandes 2009, of linear RGB: eyes that lack one kind of cone.
EYES = {
    "normal": torch.eye(3),
    "protanopia": torch.tensor(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": torch.tensor(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": torch.tensor(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = torch.tensor([0.95047, 1.0, 1.08883])


def linear(color: str) -> torch.Tensor:
    values = torch.tensor([int(color[k : k + 2], 16) / 255.0 for k in (1, 3, 5)])
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: torch.Tensor) -> torch.Tensor:
    """CIE L*a*b* of linear RGB."""
    share = TO_XYZ @ light / WHITE
    x, y, z = torch.where(
        share > 216 / 24389, share.clamp_min(1e-9).pow(1 / 3), (24389 / 27 * share + 16) / 116
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def luminance(color: str) -> float:
    return float(TO_XYZ[1] @ linear(color))


def test_every_type_of_socket_has_one():
    types = re.findall(r'io\.Custom\("(\w+)"\)', (PACK / "nodes" / "sockets.py").read_text())
    assert sorted(COLORS) == sorted(types)


@pytest.mark.parametrize("eye", EYES)
def test_no_two_look_alike(eye):
    seen = {name: lab((EYES[eye] @ linear(color)).clamp(0, 1)) for name, color in COLORS.items()}
    for one, other in combinations(seen, 2):
        assert float((seen[one] - seen[other]).norm()) > LEAST_DIFFERENCE, (one, other)


@pytest.mark.parametrize("node", NODES)
def test_all_are_seen_on_a_node(node):
    for name, color in COLORS.items():
        dark, light = sorted((luminance(color) + 0.05, luminance(NODES[node]) + 0.05))
        assert light / dark > LEAST_CONTRAST, name
