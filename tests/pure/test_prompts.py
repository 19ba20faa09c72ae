"""Prompts and numbers as people write them, and as nobody should."""

import time

import pytest

from zmagic.guidance.energies.class_names import parse_class_weights, parse_classes
from zmagic.guidance.energies.color_palette import parse_colors
from zmagic.guidance.energies.landmarks import parse_landmarks
from zmagic.guidance.energies.prompts import MOST_PROMPTS, parse_prompts, unread_end

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
    with pytest.raises(ValueError, match="colors must be"):
        parse_colors(text)


@pytest.mark.parametrize("text", ["1:1e39", "1:nan", "1:-1", "99:1", "1", ":", f"{DIGITS}:1"])
def test_class_weights_that_are_none(text):
    with pytest.raises(ValueError, match="class_weights must be"):
        parse_class_weights(text, 19)


def test_the_end_that_is_not_read():
    def words(text: str) -> tuple[str, ...]:
        return tuple(text.split())[:5]

    assert unread_end("a b c", words) == ""
    assert unread_end("a b c d e", words) == ""
    assert unread_end("a b c d e f", words) == "f"
    assert unread_end("  a b c d e   and the rest ", words) == "and the rest"
