from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.engine.retry_after import LONGEST_S, retry_after_s

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        ("9" * 5000, LONGEST_S),
        ("Sat, 31 Jan 2026 12:02:00 GMT", 120),
        ("Sat, 31 Jan 2026 12:02:00", 120),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_S),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
        ("Thu, 01 Jan 1970 00:00:99999999999999999999 GMT", None),
    ],
)
def test_seconds_and_dates_are_understood_and_nothing_else(header: str | None, seconds: int | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.text())
def test_no_header_raises(header: str) -> None:
    assert retry_after_s(header, NOW) is None or 1 <= (retry_after_s(header, NOW) or 0) <= LONGEST_S
