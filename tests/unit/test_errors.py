"""Every error is one line that a terminal can show."""

from __future__ import annotations

import pytest

from pssr_live.errors import UsageError


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", "two lines"),
        ("\x1b[31mred", "?[31mred"),
        ("nul\0byte", "nul?byte"),
        ("not utf-8: \udcff", "not utf-8: ?"),
        ("440×440, 0.17 µm", "440×440, 0.17 µm"),
    ],
)
def test_an_error_is_one_line_whatever_it_quotes(name: str, shown: str) -> None:
    line = str(UsageError(f"model {name}", "there is none of this name.", "check it"))
    assert line == f"model {shown}: there is none of this name; check it"
    line.encode()
