from pathlib import Path

import pytest

from kinetics_serve import container


@pytest.mark.parametrize(
    ("said", "limit"),
    [("1073741824\n", 1 << 30), ("max\n", None), (None, None), ("9223372036854771712\n", 2**63 - 4096)],
)
@pytest.mark.parametrize("version", [0, 1])
def test_the_limit_is_read_from_both_versions_of_control_groups(
    said: str | None, limit: int | None, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(tmp_path / str(number) for number in range(2))
    if said is not None:
        files[version].write_text(said)
    monkeypatch.setattr(container, "MEMORY_LIMITS", files)
    assert container.memory_limit_bytes() == limit
