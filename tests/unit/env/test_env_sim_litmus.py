"""What may be on a simulated disk after a crash, as small programs with everything that may and
must be seen.

Method: run a program, enumerate every crash state of every class, and name each by its files. A
file is named by its sectors: a letter for a sector full of it, `0` for zeros, `*` for anything
else. For each profile the names seen must match the pattern (nothing forbidden is possible) and
include the list (nothing allowed is missed).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from holdfast.env import CRASH_CLASSES, File, SimEnv, crash_states

SECTOR = 512
CLASSES = (*CRASH_CLASSES, "power-set")


def sectors(letters: str) -> bytes:
    """Return one sector for each letter; `0` is zeros."""
    return b"".join(bytes(SECTOR) if c == "0" else c.encode() * SECTOR for c in letters)


def write(file: File, offset: int, letters: str) -> None:
    file.write_at(offset * SECTOR, sectors(letters), site="write")


def sync(file: File) -> None:
    file.sync(site="sync")


def create(env: SimEnv, name: str, letters: str = "") -> File:
    file = env.create(name, site="create")
    if letters:
        write(file, 0, letters)
    return file


def durable(env: SimEnv, name: str, letters: str) -> File:
    """Return a file whose name and bytes are durable."""
    file = create(env, name, letters)
    sync(file)
    env.sync_dir("/", site="sync_dir")
    return file


def shown(data: bytes) -> str:
    assert len(data) % SECTOR == 0, "litmus programs write whole sectors"
    letters = ""
    for start in range(0, len(data), SECTOR):
        kinds = set(data[start : start + SECTOR])
        letter = chr(kinds.pop()) if len(kinds) == 1 else "*"
        letters += "0" if letter == "\0" else letter
    return letters


def described(env: SimEnv, folder: str = "/") -> str:
    """Return every file of a disk with its sectors."""
    parts = []
    for name in env.list_dir(folder):
        path = f"{folder.rstrip('/')}/{name}"
        try:
            file = env.open(path)
        except IsADirectoryError:
            inner = described(env, path)
            parts.append(f"{name}({inner})")
            continue
        parts.append(f"{name}={shown(file.read_at(0, 1 << 20))}")
    return " ".join(parts)


def seen(env: SimEnv) -> set[str]:
    names = set()
    for state in crash_states(env, CLASSES):
        built = state.build()
        name = described(built)
        assert built.op_count == 0
        names.add(name)
    return names


@dataclass
class Litmus:
    """A sentence, a program, and per profile (pattern of what may be seen, what must be)."""

    sentence: str
    program: Callable[[SimEnv], object]
    posix: tuple[str, set[str]]
    ext4: tuple[str, set[str]]


def exactly(*names: str) -> tuple[str, set[str]]:
    """Return the rule that these are seen and nothing else."""
    return "|".join(re.escape(name) for name in names), set(names)


LITMUS: list[Litmus] = []


def litmus(
    sentence: str, posix: tuple[str, set[str]], ext4: tuple[str, set[str]] | None = None
) -> Callable[[Callable[[SimEnv], object]], Callable[[SimEnv], object]]:
    def add(program: Callable[[SimEnv], object]) -> Callable[[SimEnv], object]:
        LITMUS.append(Litmus(sentence, program, posix, posix if ext4 is None else ext4))
        return program

    return add


@litmus("an empty disk stays empty", exactly(""))
def _(env: SimEnv) -> None:
    pass


@litmus("a file synced and its folder synced survives", exactly("f=A"))
def _(env: SimEnv) -> None:
    durable(env, "f", "A")


@litmus(
    "an append after a sync never takes the synced bytes along",
    (r"f=A[B0*]{0,2}", {"f=A", "f=AB", "f=ABB", "f=A0B", "f=AB0", "f=A00", "f=A**"}),
    exactly("f=A", "f=AB", "f=ABB"),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "A"), 1, "BB")


@litmus(
    "a second append may survive without the first",
    (
        r"f=A([B0*]{0,1}|[B0*][C0*])",
        {"f=A", "f=AB", "f=ABC", "f=A0C", "f=AB0", "f=A*C", "f=A00", "f=A**"},
    ),
    exactly("f=A", "f=AB", "f=ABC"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 1, "B")
    write(file, 2, "C")


@litmus("a sync covers every write before it", exactly("f=AB"))
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 0, "X")
    write(file, 0, "AB")
    sync(file)


@litmus("a synced file whose folder was not synced may vanish", exactly("", "f=A"), exactly("f=A"))
def _(env: SimEnv) -> None:
    sync(create(env, "f", "A"))


@litmus(
    "a synced folder does not make the bytes of its files durable",
    (r"f=[A0*]?", {"f=", "f=A", "f=0", "f=*"}),
    exactly("f=", "f=A"),
)
def _(env: SimEnv) -> None:
    create(env, "f", "A")
    env.sync_dir("/", site="sync_dir")


@litmus(
    "a rename may survive in half until the folder is synced",
    exactly("", "a=A", "b=A", "a=A b=A"),
    exactly("a=A", "b=A"),
)
def _(env: SimEnv) -> None:
    durable(env, "a", "A")
    env.rename("a", "b", site="rename")


@litmus(
    "a rename over another file may lose both until the folder is synced",
    exactly("", "a=A", "b=A", "b=B", "a=A b=A", "a=A b=B"),
    exactly("a=A b=B", "b=A"),
)
def _(env: SimEnv) -> None:
    durable(env, "a", "A")
    durable(env, "b", "B")
    env.rename("a", "b", site="rename")


@litmus("a rename survives after the folder is synced", exactly("b=A"))
def _(env: SimEnv) -> None:
    durable(env, "a", "A")
    durable(env, "b", "B")
    env.rename("a", "b", site="rename")
    env.sync_dir("/", site="sync_dir")


@litmus(
    "a renamed file that was never synced may be empty under its new name",
    (
        r"|a=[A0*]?|b=[A0*]?|a=[A0*]? b=[A0*]?",
        {"", "a=A", "b=A", "b=", "b=0", "b=*", "a= b="},
    ),
    exactly("", "a=", "a=A", "b=", "b=A"),
)
def _(env: SimEnv) -> None:
    create(env, "a", "A")
    env.rename("a", "b", site="rename")


@litmus("an unlinked file may come back until the folder is synced", exactly("", "f=A"))
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    env.unlink("f", site="unlink")


@litmus("an unlinked file is gone after the folder is synced", exactly(""))
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    env.unlink("f", site="unlink")
    env.sync_dir("/", site="sync_dir")


@litmus("writes and syncs through the handle of an unlinked file bring nothing back", exactly(""))
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    env.unlink("f", site="unlink")
    env.sync_dir("/", site="sync_dir")
    write(file, 0, "BB")
    sync(file)
    write(file, 0, "CC")


@litmus(
    "two writes to different sectors survive in any combination",
    (r"f=[AB*][A][AC*]", {"f=AAA", "f=BAA", "f=AAC", "f=BAC"}),
    exactly("f=AAA", "f=BAA", "f=AAC", "f=BAC"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AAA")
    write(file, 0, "B")
    write(file, 2, "C")


@litmus(
    "one write may survive sector by sector",
    (
        r"f=A[AB*0]{3}A",
        {"f=AAAAA", "f=ABAAA", "f=ABBAA", "f=AABBA", "f=ABABA", "f=ABBBA", "f=A*AAA", "f=ABB*A"},
    ),
    (r"f=A[AB]{3}A", {"f=AAAAA", "f=ABAAA", "f=ABBAA", "f=AABBA", "f=ABABA", "f=ABBBA"}),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AAAAA"), 1, "BBB")


@litmus(
    "a write of part of a sector never damages the rest of that sector",
    (r"f=[A*]A", {"f=AA", "f=*A"}),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AA")
    file.write_at(100, b"B" * 50, site="write")
    for state in crash_states(env, CLASSES):
        data = state.build().open("f").read_at(0, SECTOR)
        assert data[:100] == b"A" * 100 and data[150:] == b"A" * (SECTOR - 150)


@litmus(
    "an allocation that was not synced may be missing or hold garbage",
    (r"f=A([0*]{2})?", {"f=A", "f=A00", "f=A**"}),
    exactly("f=A", "f=A00"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A").allocate(3 * SECTOR, site="allocate")


@litmus(
    "writes inside a synced allocation never change the size",
    (r"f=[B0*][C0*]00", {"f=0000", "f=B000", "f=0C00", "f=BC00", "f=B*00"}),
    exactly("f=0000", "f=B000", "f=0C00", "f=BC00"),
)
def _(env: SimEnv) -> None:
    file = create(env, "f")
    file.allocate(4 * SECTOR, site="allocate")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    write(file, 0, "B")
    write(file, 1, "C")


@litmus(
    "a synced write inside a synced allocation survives what follows it",
    (r"f=A[B0*]0", {"f=A00", "f=AB0", "f=A*0"}),
    exactly("f=A00", "f=AB0"),
)
def _(env: SimEnv) -> None:
    file = create(env, "f")
    file.allocate(3 * SECTOR, site="allocate")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    write(file, 0, "A")
    sync(file)
    write(file, 1, "B")


@litmus("a truncation may be lost until the file is synced", exactly("f=AAA", "f=A"))
def _(env: SimEnv) -> None:
    durable(env, "f", "AAA").truncate(SECTOR, site="truncate")


@litmus("a synced truncation survives", exactly("f=A"))
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AAA")
    file.truncate(SECTOR, site="truncate")
    sync(file)


@litmus(
    "replacing a file's content by truncation is not atomic",
    (r"f=(AA|[AB*0]A|[B*0]?)", {"f=AA", "f=", "f=B", "f=BA"}),
    (r"f=(AA|BA|B?)", {"f=AA", "f=", "f=B", "f=BA"}),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AA")
    file.truncate(0, site="truncate")
    write(file, 0, "B")


@litmus(
    "a sync of one file does not cover another",
    (r"f=A( g=[B0*]?)?|g=[B0*]?|", {"", "f=A", "f=A g=", "f=A g=B", "g=B", "f=A g=*"}),
    exactly("f=A g=", "f=A g=B"),
)
def _(env: SimEnv) -> None:
    file = create(env, "f", "A")
    create(env, "g", "B")
    sync(file)


@litmus(
    "two new names survive in any combination unless names are ordered",
    exactly("", "a=", "b=", "a= b="),
    exactly("", "a=", "a= b="),
)
def _(env: SimEnv) -> None:
    create(env, "a")
    create(env, "b")


@litmus(
    "the old file may go before the new one comes unless names are ordered",
    exactly("", "new=B", "old=A", "new=B old=A"),
    exactly("new=B old=A", "new=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "old", "A")
    sync(create(env, "new", "B"))
    env.unlink("old", site="unlink")


@litmus(
    "a folder sync between a new file and an unlink keeps one of the two",
    exactly("new=B old=A", "new=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "old", "A")
    durable(env, "new", "B")
    env.unlink("old", site="unlink")


@litmus(
    "a name used again may mean the old file, the new one, or nothing",
    exactly("", "f=A", "f=B"),
    exactly("f=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    env.unlink("f", site="unlink")
    sync(create(env, "f", "B"))


@litmus(
    "a new folder may vanish with all its files until its parent is synced",
    exactly("", "d(f=A)"),
    exactly("d(f=A)"),
)
def _(env: SimEnv) -> None:
    env.make_dir("d", site="make_dir")
    sync(create(env, "d/f", "A"))
    env.sync_dir("d", site="sync_dir")


@litmus(
    "a synced parent does not make the names in a folder durable",
    exactly("d()", "d(f=A)"),
    exactly("d(f=A)"),
)
def _(env: SimEnv) -> None:
    env.make_dir("d", site="make_dir")
    sync(create(env, "d/f", "A"))
    env.sync_dir("/", site="sync_dir")


@litmus(
    "closing a file makes nothing durable",
    (r"f=A[B0*]?", {"f=A", "f=AB", "f=A0", "f=A*"}),
    exactly("f=A", "f=AB"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 1, "B")
    file.close()


@litmus(
    "a write beyond the end leaves zeros in the gap or was not there",
    (r"f=A(00[C0*])?", {"f=A", "f=A00C", "f=A000", "f=A00*"}),
    exactly("f=A", "f=A00C"),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "A"), 3, "C")


@litmus("a sync after a lost write proves nothing", exactly("f=A"))
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 0, "B")
    file.lose_writes(revert=False)  # type: ignore[attr-defined]
    sync(file)
    assert shown(file.read_at(0, SECTOR)) == "B"


@pytest.mark.parametrize("test", LITMUS, ids=[test.sentence.replace(" ", "_") for test in LITMUS])
@pytest.mark.parametrize("profile", ["posix-min", "ext4-ordered"])
def test_litmus(profile: str, test: Litmus) -> None:
    pattern, required = test.posix if profile == "posix-min" else test.ext4
    env = SimEnv(profile=profile)
    test.program(env)
    names = seen(env)
    forbidden = {name for name in names if not re.fullmatch(pattern, name)}
    assert set() == forbidden
    assert set() == required - names


@pytest.mark.parametrize("profile", ["posix-min", "ext4-ordered"])
def test_a_killed_process_loses_nothing_and_a_cut_that_drops_all_leaves_what_was_synced(
    profile: str,
) -> None:
    for test in LITMUS:
        if test.sentence == "a sync after a lost write proves nothing":
            continue
        env = SimEnv(profile=profile)
        test.program(env)
        volatile = described(env)
        states = {state.name: described(state.build()) for state in crash_states(env, CLASSES)}
        assert volatile == states.get("all", states["none"]), test.sentence


def test_a_larger_sector_is_not_torn() -> None:
    """A write of one aligned sector of 4096 bytes is there or not, on a disk that does not tear
    sectors.
    """
    env = SimEnv(profile="ext4-ordered", sector_bytes=4096)
    file = durable(env, "f", "A" * 16)
    write(file, 8, "B" * 8)
    assert {"f=" + "A" * 16, "f=" + "A" * 8 + "B" * 8} == seen(env)


def test_room_that_grew_may_hold_stale_bytes_of_another_file() -> None:
    env = SimEnv()
    durable(env, "1.wal", "XYZ")
    file = durable(env, "2.wal", "A")
    write(file, 1, "BB")
    assert "1.wal=XYZ 2.wal=AYZ" in seen(env)
