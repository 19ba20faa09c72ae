"""Texts of widgets as people write them, and as nobody should."""

import time

import pytest
import torch

from zmagic.host.unread_text import unread_end
from zmagic.nodes.parsing.classes import (
    parse_class_weights,
    parse_classes,
    parse_mask_classes,
)
from zmagic.nodes.parsing.colors import parse_colors, parse_palette
from zmagic.nodes.parsing.landmarks import parse_landmarks
from zmagic.nodes.parsing.numbers import parse_blocks, parse_weights
from zmagic.nodes.parsing.prompts import MOST_PROMPTS, parse_prompts

DIGITS = "1" * 40_000


@pytest.mark.parametrize(
    "line",
    [
        "1e309 :: x",
        "nan :: x",
        "-inf :: x",
        "Infinity :: x",
        ":: ::",
        ":: x",
        "2 :: ",
        "2 :: ::",
        "0 :: x",
        "-1 :: x",
        "1,5 :: x",
        "1_0 :: x",
        "5 % :: x",
        "1e39 :: x",
        "1e-50 :: x",
        f"{DIGITS} :: x",
    ],
)
def test_what_looks_like_a_weight_and_is_none_is_refused(line):
    with pytest.raises(ValueError, match="a line must be a prompt or a positive weight") as refused:
        parse_prompts(line)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("line", ["std::vector", "a :: b", "12 monkeys", "C++ :: code", DIGITS])
def test_other_lines_are_prompts_as_they_stand(line):
    assert parse_prompts(line) == [(line, 1.0)]


def test_weights():
    assert parse_prompts("2.5 :: a cat\n1e-3::b\n+3 :: c :: d") == [
        ("a cat", 2.5),
        ("b", 1e-3),
        ("c :: d", 3.0),
    ]


def test_prompts_are_bounded():
    with pytest.raises(ValueError, match="200,000 characters, expected at most 100,000"):
        parse_prompts("x\n" * 100_000)
    with pytest.raises(ValueError, match=f"300 lines, expected at most {MOST_PROMPTS}"):
        parse_prompts("x\n" * 300)
    assert len(parse_prompts("x\n" * MOST_PROMPTS)) == MOST_PROMPTS


@pytest.mark.parametrize(
    "parse",
    [
        parse_prompts,
        parse_classes,
        parse_colors,
        lambda text: parse_class_weights(text, 19),
        lambda text: parse_landmarks(text, 68),
    ],
)
@pytest.mark.parametrize(
    "text",
    [DIGITS, f"1:{DIGITS}", f"{DIGITS}x", f"1:{DIGITS}x", f"{DIGITS} :", "1 " * 20_000 + "x",
     " " * 40_000 + "x", "1." * 20_000, "#" * 40_000, "." * 40_000, "\udc80" * 40_000],
    ids=lambda text: text[:4] + text[-2:],
)  # fmt: skip
def test_texts_are_read_in_linear_time(parse, text):
    started = time.process_time()
    try:
        parse(text)
    except ValueError as refused:
        str(refused).encode()
        assert len(str(refused)) < 600
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("text", ["#fff:1e9", "#fff:9999999999", "#fff:0", "#fff:1.2.3", "\udc80"])
def test_proportions_that_are_none(text):
    with pytest.raises(ValueError, match="'colors' must be"):
        parse_colors(text)


@pytest.mark.parametrize("text", ["1:1e39", "1:nan", "1:-1", "99:1", "1", ":", f"{DIGITS}:1"])
def test_class_weights_that_are_none(text):
    with pytest.raises(ValueError, match="'class_weights' must be"):
        parse_class_weights(text, 19)


def test_parse_prompts():
    text = "  a cat \n\n2 :: a dog: brown\n.5::x\nportrait: oil\nstd::vector\n+1. :: y"
    assert parse_prompts(text) == [
        ("a cat", 1.0),
        ("a dog: brown", 2.0),
        ("x", 0.5),
        ("portrait: oil", 1.0),
        ("std::vector", 1.0),
        ("y", 1.0),
    ]
    assert parse_prompts(" \n") == []


@pytest.mark.parametrize("line", ["-1 :: a cat", "0 :: a cat", "0.0::a cat", "2 ::"])
def test_parse_prompts_explains(line):
    with pytest.raises(ValueError, match=f"a positive weight, '::' and a prompt.*got '{line}'"):
        parse_prompts(f"fine\n{line}")


def test_parse_colors():
    colors, proportions = parse_colors("#FF8000, 08f;#000000\n")
    expected = [[1.0, 128 / 255, 0.0], [0.0, 136 / 255, 1.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(colors, torch.tensor(expected))
    assert proportions is None
    _, proportions = parse_colors("#ff8000:60% #0088ff:.4")
    torch.testing.assert_close(proportions, torch.tensor([60.0, 0.4]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one color"),
        ("#12345", "got '#12345'"),
        ("red", "got 'red'"),
        ("#fff:0", "got '#fff:0'"),
        ("#fff:1.2.3", "got '#fff:1.2.3'"),
        ("#fff:1 #000", "got '#000' without one"),
    ],
)
def test_parse_colors_explains(text, message):
    with pytest.raises(ValueError, match=message):
        parse_colors(text)


@pytest.mark.parametrize(
    "text", ["0.1, 0.2 0.3 0.4", "[[0.1, 0.2], [0.3, 0.4]]", "0.1;0.2\n.3 4e-1"]
)
def test_parse_landmarks(text):
    expected = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    torch.testing.assert_close(parse_landmarks(text, 2), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be numbers, x and y of each point, got ''"),
        ("0.1 0.2 nose 0.4", "got 'nose'"),
        ("0.1 0.2 0.3", "must be 4 finite numbers, .* the network's 2 points, got 3"),
        ("0.1 0.2 0.3 inf", "must be 4 finite numbers"),
        ('{"x": 1}', "got '\"x\":'"),
    ],
)
def test_parse_landmarks_explains(text, message):
    with pytest.raises(ValueError, match=message):
        parse_landmarks(text, 2)


def test_parsed_texts():
    assert parse_classes("17 hair, 1 skin; 10") == [17, 1, 10]
    assert parse_classes("17 1 10") == parse_classes("17, 1,\n10,") == [17, 1, 10]
    assert parse_classes("") == []
    assert parse_class_weights("", 4) is None
    weights = parse_class_weights("3:2, 1:.5", 4)
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.5, 1.0, 2.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_classes("hair"), "numbers separated by commas, .* got 'hair'"),
        (lambda: parse_classes("1, -2"), "got '-2'"),
        (lambda: parse_classes("17:2"), "got '17:2'"),
        (lambda: parse_mask_classes("1, 2", 1, 19), "one class for each of the 1 masks, .* got 2"),
        (lambda: parse_mask_classes("19", 1, 19), "names class 19, the segmenter has .* 0 to 18"),
        (lambda: parse_class_weights("4:1", 4), "classes 0 to 3 .* got '4:1'"),
        (lambda: parse_class_weights("hair:2", 4), "got 'hair:2'"),
        (lambda: parse_class_weights("0:0 1:0", 2), "at least one class a weight above 0"),
        (lambda: parse_palette("", 5), "colors of the segmenter's 5 classes"),
        (lambda: parse_palette("#fff #000 #fff", 5), "same one for classes 0 and 2"),
        (lambda: parse_palette("#fff #000", 1), "names 2 colors, the segmenter has 1"),
        (lambda: parse_palette("#fff:1", 1), "without proportions"),
        (lambda: parse_palette("red", 1), "got 'red'"),
        (lambda: parse_blocks("0"), "'blocks' must be numbers from 1 .* got '0'"),
        (lambda: parse_blocks("third"), "got 'third'"),
        (lambda: parse_weights("2", 2, "style_weights"), "'style_weights' must be one positive"),
        (lambda: parse_weights("2, 0", 2, "style_weights"), "each of the 2 reference pictures"),
    ],
)
def test_explanations(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers():
    assert parse_blocks("4, 2 2") == (2, 4)
    assert parse_weights("", 2, "style_weights").tolist() == [1.0, 1.0]
    assert parse_weights("2 0.5", 2, "style_weights").tolist() == [2.0, 0.5]


def test_the_end_that_is_not_read():
    def words(text: str) -> tuple[str, ...]:
        return tuple(text.split())[:5]

    assert unread_end("a b c", words) == ""
    assert unread_end("a b c d e", words) == ""
    assert unread_end("a b c d e f", words) == "f"
    assert unread_end("  a b c d e   and the rest ", words) == "and the rest"
