"""The example graphs on the classic canvas: the tests of graph_views.py."""

import pytest

pytest.register_assert_rewrite(f"{__package__}.graph_views")

from .graph_views import *  # noqa: E402, F403


@pytest.fixture(scope="module")
def renderer():
    return "canvas"
