"""The commands of the lab explain themselves; those that need the host are started by its tests."""

import importlib
import re
import sys

import pytest

NAMES = (
    "autoencoder", "card", "clip", "codes", "landmarks", "latent_colors", "parser", "portraits",
    "portraits.check", "recognizer",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_help_is_of_whole_sentences(name, monkeypatch, capsys):
    module = f"{name}.__main__" if name == "portraits" else name
    command = importlib.import_module(f"zmagic.lab.training.{module}")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 0
    usage, description, *_ = (told := capsys.readouterr().out).split("\n\n")
    assert usage.startswith(f"usage: python -m lab.training.{name} ")
    assert description.endswith(".") and "``" not in description
    options = re.split(r"\n  -", told.partition("options:")[2])[1:]
    assert options[0].startswith("h, --help")
    for option in options[1:]:
        assert option.rstrip().endswith("."), option
