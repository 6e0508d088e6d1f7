"""The ledger: what is read is what was written, bit by bit, or it never happened; what cannot be written says so."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from audit.errors import CannotWrite
from audit.ledger import Ledger, digest, write_atomically, write_json

ARRAYS = {
    "flags": np.array([[True, False], [False, True]]),
    "ids": np.arange(7, dtype=np.int64),
    "x_adv": np.array([0.1, -0.0, math.nan, math.inf, 1e-45], np.float32),
    "none": np.zeros((0, 1, 28, 28), np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20, dtype=np.int16)[::3],
}
META = {"seconds": 0.25, "error": "", "name": "Größe ∞", "nested": {"a": [1, None]}}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    made = Ledger(tmp_path)
    made.write("01-pgd-0000", ARRAYS, META)
    return made


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == expected[k].dtype
        and found[k].shape == expected[k].shape
        and found[k].tobytes() == expected[k].tobytes()
        for k in expected
    )


def test_round_trip_is_bit_equal(ledger):
    arrays, meta = ledger.read("01-pgd-0000")
    assert same(arrays, ARRAYS)
    assert meta == META
    assert "01-pgd-0000" in ledger


def test_the_same_unit_makes_the_same_file(ledger, tmp_path):
    other = Ledger(tmp_path / "other")
    other.write("01-pgd-0000", ARRAYS, META)
    assert digest(other.read("01-pgd-0000")[0]) == digest(ledger.read("01-pgd-0000")[0])


def test_an_absent_unit_never_happened(ledger):
    assert ledger.read("02-pgd-0000") is None
    assert "02-pgd-0000" not in ledger


def test_a_later_write_replaces(ledger):
    ledger.write("01-pgd-0000", {"a": np.ones(1)}, {})
    arrays, meta = ledger.read("01-pgd-0000")
    assert (list(arrays), meta) == (["a"], {})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.75, 0.95, 0.999])
def test_a_torn_file_never_happened(ledger, share):
    path = ledger.path("01-pgd-0000")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert ledger.read("01-pgd-0000") is None
    assert "01-pgd-0000" not in ledger


def test_a_torn_file_at_every_length_never_happened(ledger):
    path = ledger.path("small")
    ledger.write("small", {"a": np.arange(3)}, {})
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert ledger.read("small") is None, length


def test_a_flipped_bit_reads_as_what_was_written_or_as_nothing(ledger):
    path = ledger.path("small")
    written = {"a": np.arange(30.0)}
    ledger.write("small", written, {"k": 1})
    whole = path.read_bytes()
    nothing, places = 0, range(0, len(whole), 2)
    for position in places:
        altered = bytearray(whole)
        altered[position] ^= 1 << (position // 2) % 8
        path.write_bytes(bytes(altered))
        found = ledger.read("small")
        nothing += found is None
        # bits of the archive's own fields (dates, attributes) carry nothing
        assert found is None or (same(found[0], written) and found[1] == {"k": 1}), position
    assert nothing > len(places) / 2


@pytest.mark.parametrize("what", ["array", "shape", "type", "name", "meta", "extra"])
def test_an_altered_unit_never_happened(ledger, what):
    path = ledger.path("01-pgd-0000")
    with np.load(path) as archive:
        stored = {name: archive[name] for name in archive.files}
    if what == "array":
        stored["ids"] = stored["ids"] + (stored["ids"] == 3)
    elif what == "shape":
        stored["flags"] = stored["flags"].reshape(4)
    elif what == "type":
        stored["ids"] = stored["ids"].view(np.uint64)
    elif what == "name":
        stored["idz"] = stored.pop("ids")
    elif what == "meta":
        stored["meta"] = np.array(json.dumps({**META, "seconds": 0.5}, sort_keys=True))
    else:
        stored["extra"] = np.zeros(1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    path.write_bytes(buffer.getvalue())  # a sound archive with the old digest
    assert ledger.read("01-pgd-0000") is None


def test_other_files_in_its_place_never_happened(ledger):
    path = ledger.path("01-pgd-0000")
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    for content in (b"", b"<html></html>", b"PK\x03\x04", buffer.getvalue()):
        path.write_bytes(content)
        assert ledger.read("01-pgd-0000") is None
    path.unlink()
    path.mkdir()
    assert ledger.read("01-pgd-0000") is None


def test_digest_sees_names_types_shapes_and_bytes():
    base = {"a": np.arange(4, dtype=np.int32)}
    others = (
        {"b": base["a"]},
        {"a": base["a"].view(np.uint32)},
        {"a": base["a"].reshape(2, 2)},
        {"a": base["a"][::-1]},
        {**base, "b": base["a"]},
    )
    assert len({digest(arrays) for arrays in (base, *others)}) == 6
    assert digest({"a": np.arange(8, dtype=np.int32)[:4]}) == digest(base)


@pytest.mark.parametrize("below", ["unit.npz", "units/unit.npz", "a/b/unit.npz"])
def test_below_a_file_nothing_can_be_written(tmp_path, below):
    # permissions would not stop root; a regular file in place of a directory stops everyone
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match=r"could not write .*file/.*expected a writable place .*--out DIRECTORY"):
        write_atomically(tmp_path / "file" / below, b"x")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_ledger_below_a_file_cannot_write(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CannotWrite, match="could not write"):
        Ledger(tmp_path / "run").write("unit", {"a": np.zeros(1)}, {})
    assert Ledger(tmp_path / "run").read("unit") is None


def test_a_name_that_the_disk_does_not_take(tmp_path):
    with pytest.raises(CannotWrite, match="could not write"):
        write_atomically(tmp_path / ("n" * 300), b"x")


def test_a_failed_write_leaves_no_part(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(CannotWrite, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr("audit.ledger.os.fsync", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    def replace(self: Path, target: Path) -> None:
        seen.append((self.read_bytes(), target.read_bytes()))

    seen = []
    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "a", b"new")
    assert seen == [(b"new", b"old")]


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": 1, "a": [1.5, None]})
    text = (tmp_path / "deep" / "a.json").read_text()
    assert text == '{\n "a": [\n  1.5,\n  null\n ],\n "b": 1\n}\n'


def test_a_unit_of_another_plan_never_happened(tmp_path):
    ours, theirs = Ledger(tmp_path, "ours"), Ledger(tmp_path, "theirs")
    ours.write("01-pgd-0000", ARRAYS, META)
    arrays, meta = ours.read("01-pgd-0000")
    assert same(arrays, ARRAYS)
    assert meta == {**META, "plan": "ours"}
    assert theirs.read("01-pgd-0000") is None
    assert theirs.damaged("01-pgd-0000")
    assert not ours.damaged("01-pgd-0000")


def test_a_unit_of_no_plan_is_foreign_to_every_plan(ledger, tmp_path):
    assert Ledger(tmp_path, "ours").read("01-pgd-0000") is None


def test_missing_is_not_damaged(ledger):
    assert not ledger.damaged("02-pgd-0000")
    ledger.path("01-pgd-0000").write_bytes(b"PK")
    assert ledger.damaged("01-pgd-0000")


def test_a_removed_unit_never_happened(ledger):
    ledger.remove("01-pgd-0000")
    assert "01-pgd-0000" not in ledger
    ledger.remove("01-pgd-0000")  # twice is as good as once


def test_a_unit_that_cannot_be_removed(ledger):
    ledger.path("02-pgd-0000").mkdir()
    with pytest.raises(CannotWrite, match=r"could not remove .*02-pgd-0000.npz .*--out DIRECTORY"):
        ledger.remove("02-pgd-0000")
