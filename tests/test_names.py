"""The short way to say that a path is fine says so only where the long way does."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import names

PARTS = st.lists(
    st.sampled_from(
        ("a", ".", "..", "/", "//", "\\", "\x7f", "\t", "\n", "é", " ", "~", "[", "]", "b" * 255, "c" * 256)
    ),
    max_size=7,
).map("".join)


@given(path=st.one_of(PARTS, st.text(max_size=30)), key_prefix_bytes=st.sampled_from((0, 500, 1000, 1024)))
def test_both_ways_say_the_same_of_a_path(path: str, key_prefix_bytes: int) -> None:
    told = names.path_problem(path, key_prefix_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_PLAIN_PATH", re.compile(r"(?!)"))
        assert names.path_problem(path, key_prefix_bytes) == told
