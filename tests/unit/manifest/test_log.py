"""VersionSet: what is durable when, what recovery believes, what a failure at each site leaves."""

import errno
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from holdfast.base import (
    CorruptionError,
    DatabaseClosedError,
    DatabasePoisonedError,
    DiskFullError,
    FormatError,
    KeyspaceSettings,
    marks_seen,
)
from holdfast.codec import checksum
from holdfast.env import File, PosixEnv
from holdfast.manifest import Version, VersionEdit, VersionSet, decode_manifest
from holdfast.manifest import log as log_module
from holdfast.manifest.format import Header, encode_record

ID = bytes(range(16))
HEADER_BYTES = 64


class FailingFile:
    """A file whose writes and syncs fail at one site."""

    def __init__(self, inner: File, env: "FailingEnv") -> None:
        self._inner = inner
        self._env = env

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def write_at(self, offset: int, data: bytes, *, site: str) -> None:
        self._env.visit(site)
        self._inner.write_at(offset, data, site=site)

    def sync(self, *, site: str) -> None:
        self._env.visit(site)
        self._inner.sync(site=site)


class FailingEnv(PosixEnv):
    """The real machine, where the calls that carry the site `fails_at` raise EIO or ENOSPC."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[str] = []
        self.fails_at = ""
        self.code = errno.EIO

    def visit(self, site: str) -> None:
        self.sites.append(site)
        if site == self.fails_at:
            raise OSError(self.code, os.strerror(self.code), site)

    def create(self, path: str, *, site: str) -> File:
        self.visit(site)
        return FailingFile(super().create(path, site=site), self)  # type: ignore[return-value]

    def unlink(self, path: str, *, site: str) -> None:
        self.visit(site)
        super().unlink(path, site=site)

    def sync_dir(self, path: str, *, site: str) -> None:
        self.visit(site)
        super().sync_dir(path, site=site)


@pytest.fixture
def env() -> FailingEnv:
    return FailingEnv()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def first(env: FailingEnv, folder: str) -> VersionSet:
    """A new database with one keyspace."""
    versions = VersionSet.create(env, folder, 1, ID, Version())
    versions.log(VersionEdit(keyspaces_created=((0, "default", KeyspaceSettings()),)))
    return versions


def edit_manifest(
    folder: str, change: Callable[[bytearray], object], name: str = "00000001.manifest"
) -> None:
    path = Path(folder, name)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def record_offsets(folder: str, name: str = "00000001.manifest") -> list[int]:
    """Where each record of the manifest starts, and where the last one ends."""
    manifest = decode_manifest(Path(folder, name).read_bytes(), name)
    return [record.offset for record in manifest.records] + [manifest.end]


def test_what_was_logged_is_recovered(env: FailingEnv, folder: str) -> None:
    """Every edit is there after a reopen, and the edit count goes on across manifests."""
    versions = first(env, folder)
    versions.log(VersionEdit(next_number=8, durable_lsn=5))
    last = versions.log(VersionEdit(flushed_seq={0: 44}, clean=True))
    assert versions.durable_edit == last.edit_seq == 4
    versions.close()
    found = VersionSet.recover(env, folder)
    assert found.version == last
    assert (found.is_new, found.database_id, found.iteration) == (False, ID, 1)
    assert (found.manifest_number, found.next_number, found.is_tail_cut) == (1, 8, False)
    again = VersionSet.create(
        env, folder, found.next_number, found.database_id, found.version, iteration=2
    )
    assert (again.version.edit_seq, again.version.next_number) == (5, 9)
    assert again.version.keyspaces == last.keyspaces
    assert again.obsolete == ("00000001.manifest",)
    assert (again.number, again.iteration, again.database_id) == (8, 2, ID)
    again.close()
    assert sorted(os.listdir(folder)) == ["00000001.manifest", "00000008.manifest", "CURRENT.2.8"]
    assert VersionSet.recover(env, folder).version == again.version


def test_the_steps_of_a_creation_come_in_the_order_that_crash_safety_needs(
    env: FailingEnv, folder: str
) -> None:
    first(env, folder).close()
    env.sites.clear()
    VersionSet.create(env, folder, 2, ID, Version(), iteration=2).close()
    assert env.sites == [
        "manifest.create.write",
        "manifest.create.write",
        "manifest.create.sync",
        "manifest.create.folder_sync",
        "manifest.marker.create",
        "manifest.marker.folder_sync",
        "manifest.marker.unlink",
    ]


def test_an_edit_is_published_after_its_sync(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    env.sites.clear()
    versions.log(VersionEdit(next_number=100))
    assert env.sites == ["manifest.edit.write", "manifest.edit.sync"]


def test_an_edit_without_room_is_undone_and_may_be_tried_again(
    env: FailingEnv, folder: str
) -> None:
    """A full disk passes; the refused edit must not come back after a crash, and the next one takes
    its place.
    """
    versions = first(env, folder)
    before = versions.version
    env.fails_at, env.code = "manifest.edit.write", errno.ENOSPC
    with pytest.raises(DiskFullError):
        versions.log(VersionEdit(next_number=100))
    env.fails_at = ""
    assert not versions.is_poisoned
    assert "manifest.edit_undone" in marks_seen()
    assert VersionSet.recover(env, folder).version == versions.version == before
    versions.log(VersionEdit(next_number=200))
    versions.close()
    assert VersionSet.recover(env, folder).version.next_number == 200


@pytest.mark.parametrize("is_undone", [True, False])
def test_an_edit_that_finds_no_memory_is_undone_or_poisons_the_set(
    env: FailingEnv, folder: str, monkeypatch: pytest.MonkeyPatch, *, is_undone: bool
) -> None:
    """A sealed file needs memory before it writes. What an undo leaves is not to be built upon."""
    versions = first(env, folder)
    before, size = versions.version, versions.bytes_written
    fails_at = {"manifest.edit.write"} if is_undone else {
        "manifest.edit.write", "manifest.edit.undo_sync",
    }  # fmt: skip

    def visit(site: str) -> None:
        env.sites.append(site)
        if site in fails_at:
            raise MemoryError(site)

    env.sites.clear()
    monkeypatch.setattr(env, "visit", visit)
    with pytest.raises(MemoryError, match=max(fails_at, key=len)):
        versions.log(VersionEdit(next_number=100))
    assert env.sites == ["manifest.edit.write", "manifest.edit.undo_sync"]
    assert "manifest.edit_undone" in marks_seen()
    assert (versions.version, versions.bytes_written) == (before, size)
    assert Path(folder, "00000001.manifest").stat().st_size == size
    assert VersionSet.recover(env, folder).version == before
    fails_at.clear()
    assert versions.is_poisoned is not is_undone
    if is_undone:
        versions.log(VersionEdit(next_number=200))
        versions.close()
        assert VersionSet.recover(env, folder).version.next_number == 200
    else:
        with pytest.raises(DatabasePoisonedError):
            versions.log(VersionEdit(next_number=200))
        versions.close()


@pytest.mark.parametrize(
    ("site", "code"),
    [
        ("manifest.edit.write", errno.EIO),
        ("manifest.edit.sync", errno.EIO),
        ("manifest.edit.sync", errno.ENOSPC),
    ],
)
def test_a_failed_edit_poisons_the_set_and_is_not_published(
    env: FailingEnv, folder: str, site: str, code: int
) -> None:
    versions = first(env, folder)
    before = versions.version
    env.fails_at, env.code = site, code
    with pytest.raises(OSError, match=site):
        versions.log(VersionEdit(next_number=100))
    env.fails_at = ""
    env.sites.clear()
    assert versions.is_poisoned
    assert versions.version == before
    for _ in range(2):
        with pytest.raises(DatabasePoisonedError):
            versions.log(VersionEdit(next_number=100))
    with pytest.raises(DatabasePoisonedError):
        versions.rewrite(7)
    assert env.sites == []
    versions.close()
    found = VersionSet.recover(env, folder).version
    assert found.edit_seq in (before.edit_seq, before.edit_seq + 1)


def test_an_invalid_edit_writes_nothing_and_poisons_nothing(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    env.sites.clear()
    with pytest.raises(ValueError, match="does not exist"):
        versions.log(VersionEdit(keyspaces_dropped=(7,)))
    assert env.sites == []
    assert not versions.is_poisoned
    versions.log(VersionEdit(next_number=100))


def test_a_closed_set_refuses(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    versions.close()
    versions.close()
    with pytest.raises(DatabaseClosedError):
        versions.log(VersionEdit())


@pytest.mark.parametrize(
    "site",
    [
        "manifest.create.write",
        "manifest.create.sync",
        "manifest.create.folder_sync",
        "manifest.marker.create",
        "manifest.marker.folder_sync",
    ],
)
def test_a_failed_creation_leaves_a_database_that_opens(
    env: FailingEnv, folder: str, site: str
) -> None:
    """Whichever step fails, a later recovery finds the version; the numbers it gives are new."""
    versions = first(env, folder)
    expected = versions.version
    versions.close()
    env.fails_at = site
    with pytest.raises(OSError, match=site):
        VersionSet.create(env, folder, 5, ID, expected, iteration=2)
    env.fails_at = ""
    found = VersionSet.recover(env, folder)
    assert found.version.keyspaces == expected.keyspaces
    assert found.next_number == (2 if site == "manifest.create.write" else 6)
    again = VersionSet.create(
        env, folder, found.next_number, ID, found.version, iteration=found.iteration + 1
    )
    assert VersionSet.recover(env, folder).version == again.version
    assert "00000001.manifest" in again.obsolete


def test_a_marker_that_cannot_be_unlinked_is_harmless(env: FailingEnv, folder: str) -> None:
    """The mark manifest.marker_left is seen, the highest iteration wins, the next try unlinks."""
    first(env, folder).close()
    env.fails_at = "manifest.marker.unlink"
    seen = marks_seen().get("manifest.marker_left", 0)
    VersionSet.create(env, folder, 2, ID, Version(), iteration=2).close()
    assert marks_seen()["manifest.marker_left"] == seen + 1
    assert {"CURRENT.1.1", "CURRENT.2.2"} <= set(os.listdir(folder))
    assert VersionSet.recover(env, folder).manifest_number == 2
    env.fails_at = ""
    VersionSet.create(env, folder, 3, ID, Version(), iteration=3).close()
    assert [n for n in os.listdir(folder) if n.startswith("CURRENT")] == ["CURRENT.3.3"]


def test_a_number_that_is_taken_is_never_written_over(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    with pytest.raises(FileExistsError):
        VersionSet.create(env, folder, 1, ID, Version(), iteration=2)
    versions.log(VersionEdit(next_number=50))
    assert VersionSet.recover(env, folder).version.next_number == 50


def test_a_rewrite_goes_on_in_a_new_manifest(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    keyspaces = versions.version.keyspaces
    assert versions.rewrite(6) == ("00000001.manifest",)
    assert versions.version.keyspaces == keyspaces
    last = versions.log(VersionEdit(next_number=60))
    assert (last.edit_seq, versions.number, versions.iteration) == (4, 6, 2)
    assert VersionSet.recover(env, folder).version == last


def test_a_rewrite_with_an_edit_is_one_edit_and_no_record_follows_its_snapshot(
    env: FailingEnv, folder: str
) -> None:
    versions = first(env, folder)
    assert versions.has_edits
    before = versions.version
    versions.rewrite(6, VersionEdit(next_number=70, clean=True))
    assert not versions.has_edits
    assert versions.version == VersionSet.recover(env, folder).version
    assert (versions.version.edit_seq, versions.version.next_number) == (before.edit_seq + 1, 70)
    assert versions.version.clean
    assert versions.version.keyspaces == before.keyspaces
    with pytest.raises(ValueError, match="next_number"):
        versions.rewrite(7, VersionEdit(next_number=3))
    assert not versions.is_poisoned
    assert "00000007.manifest" not in env.list_dir(folder)


@pytest.mark.parametrize("site", ["manifest.create.sync", "manifest.marker.folder_sync"])
def test_a_failed_rewrite_poisons_only_when_the_marker_may_be_there(
    env: FailingEnv, folder: str, site: str
) -> None:
    versions = first(env, folder)
    env.fails_at = site
    with pytest.raises(OSError, match=site):
        versions.rewrite(6)
    env.fails_at = ""
    assert versions.is_poisoned is (site == "manifest.marker.folder_sync")
    if not versions.is_poisoned:
        last = versions.log(VersionEdit(next_number=60))
        assert VersionSet.recover(env, folder).version == last


def test_a_manifest_that_outgrew_its_snapshot_says_so(
    env: FailingEnv, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "REWRITE_BYTES", 1000)
    versions = first(env, folder)
    count = 0
    while not versions.needs_rewrite:
        versions.log(VersionEdit(next_number=100))
        count += 1
        assert count < 100
    assert versions.bytes_written > 1000
    versions.rewrite(100)
    assert not versions.needs_rewrite


def test_a_manifest_never_becomes_longer_than_a_reader_takes(
    env: FailingEnv, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log_module.FILE_BYTES_MAX == 1 << 30
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", 2000)
    monkeypatch.setattr(log_module, "FULL_BYTES", 1000)
    monkeypatch.setattr(log_module, "REWRITE_BYTES", 200)
    versions = first(env, folder)
    edit = VersionEdit(next_number=100)
    while not versions.is_full:
        versions.log(edit)
    assert 1000 < versions.bytes_written < 1100
    with pytest.raises(DiskFullError, match="no room in the manifest"):
        while True:
            versions.log(edit)
    assert 1900 < versions.bytes_written <= 2000
    assert Path(folder, "00000001.manifest").stat().st_size == versions.bytes_written
    assert not versions.is_poisoned
    assert VersionSet.recover(env, folder).version == versions.version
    long = VersionEdit(next_number=200, settings_text="x" * 2000)
    versions.rewrite(100)
    assert not versions.is_full
    with pytest.raises(DiskFullError, match="no room in the manifest"):
        versions.log(long)
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", 200)
    with pytest.raises(DiskFullError, match="no room in the manifest"):
        versions.rewrite(101)
    assert not Path(folder, "00000101.manifest").exists()
    assert not versions.is_poisoned
    versions.close()


def test_the_greatest_size_of_a_manifest_is_one_that_a_reader_takes(
    env: FailingEnv, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = first(env, folder)
    edit = VersionEdit(next_number=100)
    before = versions.bytes_written
    versions.log(edit)
    size = 2 * versions.bytes_written - before
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", size - 1)
    with pytest.raises(DiskFullError, match="no room in the manifest"):
        versions.log(edit)
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", size)
    versions.log(edit)
    assert versions.bytes_written == size
    versions.close()
    assert VersionSet.recover(env, folder).version == versions.version
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", size - 1)
    with pytest.raises(CorruptionError, match="longer than any can be") as caught:
        VersionSet.recover(env, folder)
    assert caught.value.offset == size - 1


def test_an_empty_folder_is_new_and_unrelated_names_are_told(env: FailingEnv, folder: str) -> None:
    for name in ("LOCK", "notes.txt", "1.table", "000000001.table", "00000001.table.bak"):
        Path(folder, name).touch()
    found = VersionSet.recover(env, folder)
    assert (found.is_new, found.iteration, found.next_number, found.database_id) == (
        True,
        0,
        1,
        b"",
    )
    assert set(found.unrelated) == {
        "LOCK", "notes.txt", "1.table", "000000001.table", "00000001.table.bak"
    }  # fmt: skip


def test_a_first_creation_that_was_cut_short_leaves_a_new_folder(
    env: FailingEnv, folder: str
) -> None:
    env.fails_at = "manifest.marker.create"
    with pytest.raises(OSError, match="marker"):
        VersionSet.create(env, folder, 1, ID, Version())
    env.fails_at = ""
    found = VersionSet.recover(env, folder)
    assert found.is_new
    assert found.next_number == 2
    versions = VersionSet.create(env, folder, 2, ID, Version())
    assert versions.obsolete == ("00000001.manifest",)


def test_an_absent_folder_is_not_found(env: FailingEnv, folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        VersionSet.recover(env, folder + "/absent")


@pytest.mark.parametrize("name", ["00000007.table", "00000007.wal"])
def test_database_files_without_a_marker_are_damage_and_not_a_new_database(
    env: FailingEnv, folder: str, name: str
) -> None:
    Path(folder, name).touch()
    with pytest.raises(CorruptionError, match="no CURRENT marker") as caught:
        VersionSet.recover(env, folder)
    assert caught.value.file == f"{folder}/{name}"


@pytest.mark.parametrize("name", ["CURRENT.x", "CURRENT.1", "CURRENT.01.1", "CURRENT.1.1.bak"])
def test_a_name_that_is_nearly_a_marker_is_damage(env: FailingEnv, folder: str, name: str) -> None:
    first(env, folder).close()
    Path(folder, name).touch()
    with pytest.raises(CorruptionError, match="not that of a CURRENT marker"):
        VersionSet.recover(env, folder)


def test_two_markers_of_one_iteration_are_damage(env: FailingEnv, folder: str) -> None:
    first(env, folder).close()
    Path(folder, "CURRENT.1.2").touch()
    with pytest.raises(CorruptionError, match="same iteration"):
        VersionSet.recover(env, folder)


def test_recovery_never_falls_back_to_an_older_manifest(env: FailingEnv, folder: str) -> None:
    """The highest marker names a missing, then a damaged, then a swapped manifest."""
    first(env, folder).close()
    Path(folder, "CURRENT.2.9").touch()
    with pytest.raises(CorruptionError, match="does not exist"):
        VersionSet.recover(env, folder)
    Path(folder, "00000009.manifest").touch()
    with pytest.raises(CorruptionError, match="at least 64 bytes"):
        VersionSet.recover(env, folder)
    Path(folder, "00000009.manifest").write_bytes(Path(folder, "00000001.manifest").read_bytes())
    with pytest.raises(CorruptionError, match="this is manifest 1"):
        VersionSet.recover(env, folder)


def test_a_sparse_manifest_of_any_size_is_refused_before_it_is_read(
    env: FailingEnv, folder: str
) -> None:
    first(env, folder).close()
    os.truncate(Path(folder, "00000001.manifest"), 1 << 43)
    with pytest.raises(CorruptionError, match="longer than any can be"):
        VersionSet.recover(env, folder)


def test_a_foreign_or_newer_manifest_is_a_format_error(env: FailingEnv, folder: str) -> None:
    first(env, folder).close()
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    with pytest.raises(FormatError, match="not a Holdfast manifest"):
        VersionSet.recover(env, folder)
    for damaged in (b"PNG" + data[3:], bytes(8) + data[8:], bytes(4096)):
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match="magic of the header is damaged"):
            VersionSet.recover(env, folder)
    head = data[:8] + b"\x03" + data[9:56]
    path.write_bytes(head + log_checksum(head) + data[64:])
    with pytest.raises(FormatError, match="version 3"):
        VersionSet.recover(env, folder)
    for at, value in ((8, 0), (12, 1), (48, 1)):
        odd = bytearray(data[:56])
        odd[at] = value
        path.write_bytes(bytes(odd) + log_checksum(bytes(odd)) + data[64:])
        with pytest.raises(CorruptionError, match="reserved"):
            VersionSet.recover(env, folder)


@pytest.mark.parametrize("alignment", [0, 1, 7, 8, 24, 513, 4095, 8192, 2**31, 2**32 - 1])
def test_an_alignment_that_no_writer_takes_is_damage(
    env: FailingEnv, folder: str, alignment: int
) -> None:
    first(env, folder).close()
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    head = data[:8] + b"\x02\0\0\0" + alignment.to_bytes(4, "little") + data[16:56]
    path.write_bytes(head + log_checksum(head) + data[64:])
    with pytest.raises(CorruptionError, match=f"the alignment is {alignment}") as caught:
        VersionSet.recover(env, folder)
    assert caught.value.offset == 12


@pytest.mark.parametrize("alignment", [16, 512, 4096])
def test_records_of_an_aligned_manifest_end_at_its_multiples(
    env: FailingEnv, folder: str, alignment: int
) -> None:
    """Also the first, which starts in the sector of the header; also after a rewrite, and after an
    edit for which there was no room.
    """
    versions = VersionSet.create(env, folder, 1, ID, Version(), alignment=alignment)
    sizes = [versions.bytes_written]
    for number in range(2, 5):
        versions.log(VersionEdit(next_number=number + 1))
        sizes.append(versions.bytes_written)
    assert all(size % alignment == 0 for size in sizes)
    manifest = decode_manifest(Path(folder, "00000001.manifest").read_bytes(), "f")
    assert manifest.header.alignment == alignment
    assert [record.offset for record in manifest.records] == [64, *sizes[:-1]]
    env.fails_at, env.code = "manifest.edit.write", errno.ENOSPC
    with pytest.raises(DiskFullError):
        versions.log(VersionEdit(next_number=9))
    env.fails_at = ""
    assert Path(folder, "00000001.manifest").stat().st_size == sizes[-1]
    versions.log(VersionEdit(next_number=9))
    versions.rewrite(9)
    versions.log(VersionEdit(next_number=11))
    versions.close()
    manifest = decode_manifest(Path(folder, "00000009.manifest").read_bytes(), "f")
    assert (manifest.header.alignment, len(manifest.records)) == (alignment, 2)
    assert manifest.end % alignment == 0
    assert VersionSet.recover(env, folder).version == versions.version


def test_an_aligned_record_is_torn_or_proven_like_any_other(env: FailingEnv, folder: str) -> None:
    """Damage that takes a whole sector: of the last edit it is cut, of one before it is refused."""
    versions = VersionSet.create(env, folder, 1, ID, Version(), alignment=512)
    ends = [versions.bytes_written]
    for number in range(2, 5):
        versions.log(VersionEdit(next_number=number + 1))
        ends.append(versions.bytes_written)
    versions.close()
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    for start, end in pairwise(ends):
        for rest in (b"\xff" * (end - start), bytes(end - start)):
            path.write_bytes(data[:start] + rest + data[end:])
            if end == ends[-1]:
                found = VersionSet.recover(env, folder)
                assert (found.is_tail_cut, found.version.next_number) == (True, 4)
            else:
                with pytest.raises(CorruptionError, match="was synced") as caught:
                    VersionSet.recover(env, folder)
                assert caught.value.offset == start
    path.write_bytes(data[:-1] + b"\x01")
    assert VersionSet.recover(env, folder).is_tail_cut, "the zeros belong to the record"


def log_checksum(data: bytes) -> bytes:
    return checksum(data).to_bytes(8, "little")


def test_every_cut_of_the_last_edit_is_a_torn_tail(env: FailingEnv, folder: str) -> None:
    """The file ends anywhere in the last record: the version before it. The mark
    manifest.tail_cut is seen.
    """
    versions = first(env, folder)
    before = versions.version
    after = versions.log(VersionEdit(next_number=77))
    versions.close()
    data = Path(folder, "00000001.manifest").read_bytes()
    *_, start, end = record_offsets(folder)
    for size in range(start, end + 1):
        Path(folder, "00000001.manifest").write_bytes(data[:size])
        seen = marks_seen().get("manifest.tail_cut", 0)
        found = VersionSet.recover(env, folder)
        torn = start < size < end
        assert found.version == (after if size == end else before)
        assert found.is_tail_cut is torn
        assert marks_seen().get("manifest.tail_cut", 0) == seen + torn


def test_a_tail_of_zeros_or_garbage_is_cut(env: FailingEnv, folder: str) -> None:
    versions = first(env, folder)
    versions.close()
    data = Path(folder, "00000001.manifest").read_bytes()
    for tail in (b"\x00" * 512, b"\xa5" * 513, b"\x48\x46\x45\x52" * 100, b"\x01"):
        Path(folder, "00000001.manifest").write_bytes(data + tail)
        found = VersionSet.recover(env, folder)
        assert found.version == versions.version
        assert found.is_tail_cut


def test_every_flipped_byte_before_the_last_edit_is_damage(env: FailingEnv, folder: str) -> None:
    """A later intact record proves that what is damaged was synced. In the last record a flip is
    a torn tail; nowhere is a wrong version the result.
    """
    versions = first(env, folder)
    before = versions.version
    versions.log(VersionEdit(next_number=77))
    versions.close()
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    *_, last, _ = record_offsets(folder)
    for index in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[index] ^= flip
            path.write_bytes(damaged)
            if index < last:
                with pytest.raises((CorruptionError, FormatError)):
                    VersionSet.recover(env, folder)
            else:
                assert VersionSet.recover(env, folder).version == before


def test_the_first_record_is_never_a_torn_tail(env: FailingEnv, folder: str) -> None:
    VersionSet.create(env, folder, 1, ID, Version()).close()
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptionError):
            VersionSet.recover(env, folder)


def test_records_that_are_dropped_doubled_or_from_another_manifest_are_damage(
    env: FailingEnv, folder: str, tmp_path: Path
) -> None:
    versions = first(env, folder)
    for number in (10, 20, 30):
        versions.log(VersionEdit(next_number=number))
    versions.close()
    offsets = record_offsets(folder)
    path = Path(folder, "00000001.manifest")
    data = path.read_bytes()
    pieces = [data[a:b] for a, b in pairwise(offsets)]
    head = data[:HEADER_BYTES]
    for order in ([0, 1, 3, 4], [0, 1, 1, 2], [0, 2, 1, 3], [1, 2, 3], [0, 1, 2, 2]):
        path.write_bytes(head + b"".join(pieces[index] for index in order))
        with pytest.raises(CorruptionError):
            VersionSet.recover(env, folder)
    other = tmp_path / "other"
    other.mkdir()
    first(env, str(other)).close()
    start, end = record_offsets(str(other))[1:3]
    foreign = (other / "00000001.manifest").read_bytes()[start:end]
    path.write_bytes(head + pieces[0] + foreign)
    assert VersionSet.recover(env, folder).is_tail_cut
    path.write_bytes(head + pieces[0] + foreign + pieces[2])
    with pytest.raises(CorruptionError, match="was synced"):
        VersionSet.recover(env, folder)


def crafted(folder: str, *payloads: bytes, edit_seq: int = 1, pad: bytes = b"") -> None:
    """A manifest whose checksums are right and whose payloads are the caller's."""
    header = Header(1, ID, 99)
    out, chain = header.encode(), header.chain
    for index, payload in enumerate(payloads):
        record, chain = encode_record(payload, edit_seq + index, chain, 99)
        out += record
    Path(folder, "00000001.manifest").write_bytes(out + pad)
    Path(folder, "CURRENT.1.1").touch()


def test_right_checksums_do_not_make_an_edit_valid(env: FailingEnv, folder: str) -> None:
    """Whoever recomputes the checksums still meets the decoder and the invariants."""
    crafted(folder, b"\x06\x03\x05\x00\x01")
    with pytest.raises(CorruptionError, match="keyspace 5 is changed") as caught:
        VersionSet.recover(env, folder)
    assert caught.value.offset == HEADER_BYTES
    crafted(folder, b"", b"\x0c\x01\x05", b"\x0c\x01\x04")
    with pytest.raises(CorruptionError, match="next_number goes back"):
        VersionSet.recover(env, folder)
    crafted(folder, b"\x0c\x7f")
    with pytest.raises(CorruptionError, match="does not fit"):
        VersionSet.recover(env, folder)
    crafted(folder, b"\x1a\x00")
    with pytest.raises(FormatError, match="newer"):
        VersionSet.recover(env, folder)
    crafted(folder, b"", edit_seq=0)
    with pytest.raises(CorruptionError, match="does not belong here"):
        VersionSet.recover(env, folder)


def test_padding_that_is_not_zero_is_damage(env: FailingEnv, folder: str) -> None:
    """Also when the checksum covers it."""
    header = Header(1, ID, 99)
    padded = b"\x0c\x01\x05" + b"\x01" * 5
    body = b"HFER" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little")
    body += header.chain.to_bytes(8, "little") + checksum(padded, 99).to_bytes(8, "little")
    record = body + checksum(body, 99).to_bytes(8, "little") + padded
    Path(folder, "00000001.manifest").write_bytes(header.encode() + record)
    Path(folder, "CURRENT.1.1").touch()
    with pytest.raises(CorruptionError, match="first record is damaged"):
        VersionSet.recover(env, folder)


def test_an_edit_too_long_for_a_record_is_not_written() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(ValueError, match="exceeds"):
        encode_record(Long(), 1, 0, 0)


def test_the_bytes_of_all_manifests_that_were_written_are_counted(
    env: FailingEnv, folder: str
) -> None:
    versions = VersionSet.create(env, folder, 1, ID, Version())
    versions.log(VersionEdit(last_seq=5))
    first = versions.bytes_written
    assert versions.bytes_written_ever == first > HEADER_BYTES
    versions.rewrite(7)
    second = versions.bytes_written
    assert versions.bytes_written_ever == first + second
    versions.rewrite(8)
    assert versions.bytes_written_ever == first + second + versions.bytes_written
    versions.close()
