"""What the method page and the help of the settings say of the defaults."""

import re
from pathlib import Path

from zmagic.guidance.settings import GuidanceSettings

PACK = Path(__file__).resolve().parents[2]
METHOD = (PACK / "docs" / "method.md").read_text(encoding="utf-8")
HELP = (PACK / "web" / "docs" / "ZMagicSettings.md").read_text(encoding="ascii")
DEFAULTS = GuidanceSettings()


def test_the_method_page_names_the_default_choices():
    (sentence,) = re.findall(r"^.*Defaults are those of the preset `balanced`: (.*)$", METHOD, re.M)
    choices = dict(re.findall(r"`(\w+)` `(\w+)`", sentence))
    assert len(choices) == 6
    assert choices == {name: getattr(DEFAULTS, name) for name in choices}
    assert DEFAULTS.time_travel == 1 and "one prediction a step" in sentence


def test_the_method_page_gives_the_default_numbers():
    assert f"`look_ahead` is kappa, default {DEFAULTS.look_ahead:g}" in METHOD
    assert f"c is `cagrad_c`, default {DEFAULTS.cagrad_c:g}" in METHOD
    assert f"`fresh_noise` f (default {DEFAULTS.fresh_noise:g})" in METHOD
    assert re.search(rf"^ +D' = .* {DEFAULTS.step_rule} \(default\)$", METHOD, re.M)


def test_the_help_of_the_settings_gives_the_default_strength():
    assert f"`balanced`, with strength {DEFAULTS.strength:g}" in HELP
