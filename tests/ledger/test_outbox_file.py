"""Bills on disk."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from kinetics_serve.ledger.errors import LedgerMisuse, OutboxUnavailable
from kinetics_serve.ledger.identity import Identity
from kinetics_serve.ledger.outbox import default_path
from kinetics_serve.ledger.outbox_file import Change, OutboxFile
from kinetics_serve.ledger.settlement import Settlement

BILL = Settlement("a" * 32, 1, "acme", "m", "auto", 10**30, 10**30 - 1, 1_767_268_800)


def bill(number: int) -> Settlement:
    return replace(BILL, id=f"{number:032x}")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OutboxFile]:
    file = OutboxFile(tmp_path / "state" / "outbox")
    file.open()
    yield file
    file.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


def test_what_was_put_is_there_for_whoever_opens_the_file_next(file: OutboxFile) -> None:
    file.write([Change(put=[bill(1), bill(2)]), Change(put=[bill(3)])])
    other = OutboxFile(file.path)
    assert {each.id for each in other.waiting(10)} == {bill(number).id for number in (1, 2, 3)}
    assert other.waiting(10)[0] == bill(1)
    assert other.pending().entries == 3
    other.close()


def test_a_bill_that_is_put_twice_is_there_once_and_gone_when_booked(file: OutboxFile) -> None:
    file.write([Change(put=[BILL]), Change(put=[BILL])])
    assert file.waiting(10) == [BILL]
    file.write([Change(booked=[BILL.id])])
    assert file.waiting(10) == []
    assert (file.pending().entries, file.pending().oldest_s) == (0, 0)


def test_a_rejected_bill_stays_and_is_not_tried_again(file: OutboxFile) -> None:
    file.write([Change(put=[BILL, bill(1)]), Change(rejected=[(BILL.id, "no such tenant")])])
    assert file.waiting(10) == [bill(1)]
    assert file.rejected() == [(BILL, "no such tenant")]
    assert (file.pending().entries, file.pending().rejected) == (1, 1)


def test_only_its_owner_can_read_it(file: OutboxFile) -> None:
    file.write([Change(put=[BILL])])
    assert {stat.S_IMODE(each.stat().st_mode) for each in file.path.parent.iterdir()} == {0o600}


def test_a_bill_is_synced_to_disk(file: OutboxFile) -> None:
    with file._working() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_on_a_full_disk_bills_of_running_requests_are_kept_and_new_requests_refused(small_disk: Path) -> None:
    file = OutboxFile(small_disk / "outbox")
    file.open()
    fill(small_disk)
    assert os.statvfs(small_disk).f_bavail == 0
    kept = 0
    while True:
        try:
            file.check()
        except OutboxUnavailable:
            break
        file.write([Change(put=[bill(kept)])])
        kept += 1
    assert kept > 3000
    for number in range(kept, kept + 1000):  # those that run by then
        file.write([Change(put=[bill(number)])])
    again = OutboxFile(file.path)
    assert len(again.waiting(10**6)) == kept + 1000
    again.close()
    file.write([Change(booked=[bill(number).id for number in range(kept)])])
    file.check()
    file.close()


def test_a_file_that_is_deleted_is_made_again(file: OutboxFile) -> None:
    file.write([Change(put=[bill(1)])])
    for each in file.path.parent.iterdir():
        each.unlink()
    file.write([Change(put=[bill(2)])])
    other = OutboxFile(file.path)
    assert other.waiting(10) == [bill(2)]
    other.close()


def test_what_is_no_outbox_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "text"):
        if path != tmp_path:
            path.write_text("no database, but longer than a header of SQLite's would be " * 20)
        with pytest.raises(LedgerMisuse, match="state another --outbox"):
            OutboxFile(path).open()


def test_a_locked_file_is_unavailable(file: OutboxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinetics_serve.ledger.outbox_file.LOCK_TIMEOUT_S", 0.1)
    other = OutboxFile(file.path)
    holder = sqlite3.connect(file.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutboxUnavailable) as caught:
        other.write([Change(put=[BILL])])
    assert "locked" in caught.value.reason
    assert str(file.path) not in str(caught.value), "clients don't learn where files are"
    holder.close()
    other.close()


def test_a_row_that_somebody_has_damaged_keeps_no_other_back(
    file: OutboxFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.write([Change(put=[bill(1), bill(2)])])
    with sqlite3.connect(file.path) as connection:
        connection.execute("UPDATE settlements SET spent = '1e3' WHERE id = ?", (bill(1).id,))
    assert file.waiting(10) == [bill(2)]
    assert bill(1).id in caplog.text
    assert file.pending().entries == 2


def test_processes_that_start_together_share_a_new_file(tmp_path: Path) -> None:
    opening = "import sys; from pathlib import Path; from kinetics_serve.ledger.outbox_file import OutboxFile; "
    opening += "OutboxFile(Path(sys.argv[1])).open()"
    starts = [subprocess.Popen([sys.executable, "-c", opening, str(tmp_path / "outbox")]) for _ in range(4)]
    assert [start.wait() for start in starts] == [0] * 4


OURS, THEIRS = Identity("1" * 32, "db1:5432/kinetics"), Identity("2" * 32, "db2:5432/kinetics")


def test_a_file_keeps_the_bills_of_one_ledger_and_says_whose(tmp_path: Path) -> None:
    file = OutboxFile(tmp_path / "outbox", OURS)
    file.open()
    file.write([Change(put=[BILL])])
    with pytest.raises(
        LedgerMisuse,
        match=r"bills of the ledger 1{8} at db1:5432/kinetics, and .* 2{8} at db2:5432.*; state another --outbox",
    ):
        OutboxFile(file.path, THEIRS).open()
    moved = OutboxFile(file.path, OURS._replace(place="db3:5432/kinetics"))
    moved.open()
    assert moved.waiting(10) == [BILL]
    for each in (file, moved):
        each.close()


def test_a_file_that_does_not_know_its_ledger_goes_on_with_the_first_that_comes(file: OutboxFile) -> None:
    file.write([Change(put=[BILL])])
    ours = OutboxFile(file.path, OURS)
    ours.open()
    assert ours.waiting(10) == [BILL]
    with pytest.raises(LedgerMisuse, match="another --outbox"):
        OutboxFile(file.path, THEIRS).open()
    ours.close()


def test_a_ledger_that_was_made_anew_takes_the_file_over_once_no_bill_of_the_old_one_is_left(tmp_path: Path) -> None:
    old, new = OutboxFile(tmp_path / "outbox", OURS), OutboxFile(tmp_path / "outbox", OURS._replace(id=THEIRS.id))
    old.write([Change(put=[BILL])])
    with pytest.raises(LedgerMisuse, match=r"keeps the bills of the ledger 1{8} at db1"):
        new.open()
    old.write([Change(booked=[BILL.id])])
    old.close()
    with pytest.raises(LedgerMisuse, match="another --outbox"):
        OutboxFile(tmp_path / "outbox", THEIRS).open()
    new.open()
    new.close()


def test_no_bill_is_taken_from_a_file_of_another_ledgers_that_comes_in_its_place(tmp_path: Path) -> None:
    theirs = OutboxFile(tmp_path / "theirs", THEIRS)
    theirs.write([Change(put=[BILL])])
    theirs.close()
    ours = OutboxFile(tmp_path / "outbox", OURS)
    ours.open()
    theirs.path.rename(ours.path)
    for use in (ours.check, lambda: ours.waiting(10), lambda: ours.write([Change(put=[bill(1)])])):
        with pytest.raises(OutboxUnavailable) as caught:
            use()
        assert "db2:5432" in caught.value.reason
    ours.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [("host-a/ledger", "host-b/ledger"), ("/ledger?host=/run/a", "/ledger?host=/run/b"), ("/l?port=1", "/l?port=2")],
)
def test_ledgers_in_different_places_have_different_outboxes(one: str, other: str) -> None:
    assert len({default_path(make_url(f"postgresql://kinetics@{place}")) for place in (one, other)}) == 2
