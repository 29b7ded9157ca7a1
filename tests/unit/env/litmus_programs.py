"""The litmus tests: programs, and per profile what may and must be seen after a crash."""

from holdfast.env import SimEnv
from tests.unit.env.litmus import LETTER, create, durable, exactly, litmus, room, sync, write


@litmus("an empty disk stays empty", exactly(""))
def _(env: SimEnv) -> None:
    pass


@litmus(
    "a file synced and its folder synced survives",
    exactly("f=A"),
    liar=(r"|f=[A0*]?", {"", "f=", "f=A", "f=0"}),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")


@litmus(
    "an append after a sync never takes the synced bytes along",
    (r"f=A[B0*]{0,2}", {"f=A", "f=AB", "f=ABB", "f=A0B", "f=AB0", "f=A00", "f=A**"}),
    exactly("f=A", "f=AB", "f=ABB"),
    xfs=exactly("f=A", "f=AB", "f=ABB", "f=A0B", "f=AB0", "f=A00"),
    nvme=(
        r"f=A([B0][B0*]|B?|[*][*])",
        {"f=A", "f=AB", "f=ABB", "f=A0B", "f=AB0", "f=A00", "f=A**"},
    ),
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
    xfs=exactly("f=A", "f=AB", "f=ABC", "f=A0C", "f=AB0", "f=A00"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 1, "B")
    write(file, 2, "C")


@litmus(
    "a sync covers every write before it",
    exactly("f=AB"),
    liar=(r"|f=|f=[AX0*][B0*]?", {"", "f=", "f=A", "f=AB", "f=X", "f=XB"}),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 0, "X")
    write(file, 0, "AB")
    sync(file)


@litmus(
    "a synced file whose folder was not synced may vanish",
    exactly("", "f=A"),
    exactly("f=A"),
    xfs=exactly("", "f=A"),
)
def _(env: SimEnv) -> None:
    sync(create(env, "f", "A"))


@litmus(
    "a synced folder does not make the bytes of its files durable",
    (r"f=[A0*]?", {"f=", "f=A", "f=0", "f=*"}),
    exactly("f=", "f=A"),
    xfs=exactly("f=", "f=0", "f=A"),
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


@litmus(
    "a rename survives after the folder is synced",
    exactly("b=A"),
    liar=exactly("", "a=A", "b=", "b=A", "b=B", "a=A b=", "a=A b=A", "a=A b=B"),
)
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
    xfs=exactly("", "a=", "a=A", "b=", "b=0", "b=A"),
)
def _(env: SimEnv) -> None:
    create(env, "a", "A")
    env.rename("a", "b", site="rename")


@litmus("an unlinked file may come back until the folder is synced", exactly("", "f=A"))
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    env.unlink("f", site="unlink")


@litmus(
    "an unlinked file is gone after the folder is synced",
    exactly(""),
    liar=(r"|f=[A0*]?", {"", "f=", "f=A"}),
)
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
    nvme=exactly("f=AAA", "f=BAA", "f=AAC", "f=BAC"),
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
    btrfs=exactly("f=AAAAA", "f=ABBBA"),
    nvme=(r"f=A[AB]{3}A", {"f=AAAAA", "f=ABAAA", "f=ABBAA", "f=AABBA", "f=ABABA", "f=ABBBA"}),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AAAAA"), 1, "BBB")


@litmus(
    "an allocation that was not synced may be missing or hold garbage",
    (r"f=A([0*]{2})?", {"f=A", "f=A00", "f=A**"}),
    exactly("f=A", "f=A00"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A").allocate(3 * LETTER, written=True, site="allocate")


@litmus(
    "writes inside a synced allocation never change the size",
    (r"f=[B0*][C0*]00", {"f=0000", "f=B000", "f=0C00", "f=BC00", "f=B*00"}),
    exactly("f=0000", "f=B000", "f=0C00", "f=BC00"),
    nvme=exactly("f=0000", "f=B000", "f=0C00", "f=BC00"),
)
def _(env: SimEnv) -> None:
    file = create(env, "f")
    file.allocate(4 * LETTER, written=True, site="allocate")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    write(file, 0, "B")
    write(file, 1, "C")


@litmus(
    "a synced write inside a synced allocation survives what follows it",
    (r"f=A[B0*]0", {"f=A00", "f=AB0", "f=A*0"}),
    exactly("f=A00", "f=AB0"),
    nvme=exactly("f=A00", "f=AB0"),
    liar=(r"|f=|f=[A0*]([B0*][0*]?)?", {"", "f=", "f=000", "f=A00", "f=0B0", "f=AB0"}),
)
def _(env: SimEnv) -> None:
    file = create(env, "f")
    file.allocate(3 * LETTER, written=True, site="allocate")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    write(file, 0, "A")
    sync(file)
    write(file, 1, "B")


@litmus("a truncation may be lost until the file is synced", exactly("f=AAA", "f=A"))
def _(env: SimEnv) -> None:
    durable(env, "f", "AAA").truncate(LETTER, site="truncate")


@litmus(
    "a synced truncation survives",
    exactly("f=A"),
    liar=(r"|f=|f=[A0*]|f=[A0*]{3}", {"", "f=", "f=A", "f=AAA"}),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AAA")
    file.truncate(LETTER, site="truncate")
    sync(file)


@litmus(
    "replacing a file's content by truncation is not atomic",
    (r"f=(AA|[AB*0]A|[B*0]?)", {"f=AA", "f=", "f=B", "f=BA"}),
    (r"f=(AA|BA|B?)", {"f=AA", "f=", "f=B", "f=BA"}),
    xfs=exactly("f=AA", "f=", "f=B"),
    nvme=exactly("f=AA", "f=BA", "f=", "f=B"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AA")
    file.truncate(0, site="truncate")
    write(file, 0, "B")


@litmus(
    "a sync of one file does not cover another",
    (r"f=A( g=[B0*]?)?|g=[B0*]?|", {"", "f=A", "f=A g=", "f=A g=B", "g=B", "f=A g=*"}),
    exactly("f=A g=", "f=A g=B"),
    xfs=exactly("", "f=A", "f=A g=", "f=A g=0", "f=A g=B"),
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
    xfs=exactly("new=B", "new=B old=A", "old=A"),
)
def _(env: SimEnv) -> None:
    durable(env, "old", "A")
    sync(create(env, "new", "B"))
    env.unlink("old", site="unlink")


@litmus(
    "a folder sync between a new file and an unlink keeps one of the two",
    exactly("new=B old=A", "new=B"),
    liar=(
        r"|new=[B0*]?|old=A|new=[B0*]? old=A",
        {"", "new=B", "old=A", "new=B old=A", "new= old=A"},
    ),
)
def _(env: SimEnv) -> None:
    durable(env, "old", "A")
    durable(env, "new", "B")
    env.unlink("old", site="unlink")


@litmus(
    "a name used again may mean the old file, the new one, or nothing",
    exactly("", "f=A", "f=B"),
    exactly("f=B"),
    xfs=exactly("", "f=A", "f=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    env.unlink("f", site="unlink")
    sync(create(env, "f", "B"))


@litmus(
    "a new folder may vanish with all its files until its parent is synced",
    exactly("", "d(f=A)"),
    exactly("d(f=A)"),
    xfs=exactly("", "d(f=A)"),
)
def _(env: SimEnv) -> None:
    env.make_dir("d", site="make_dir")
    sync(create(env, "d/f", "A"))
    env.sync_dir("d", site="sync_dir")


@litmus(
    "a synced parent does not make the names in a folder durable",
    exactly("d()", "d(f=A)"),
    exactly("d(f=A)"),
    xfs=exactly("d()", "d(f=A)"),
)
def _(env: SimEnv) -> None:
    env.make_dir("d", site="make_dir")
    sync(create(env, "d/f", "A"))
    env.sync_dir("/", site="sync_dir")


@litmus(
    "closing a file makes nothing durable",
    (r"f=A[B0*]?", {"f=A", "f=AB", "f=A0", "f=A*"}),
    exactly("f=A", "f=AB"),
    xfs=exactly("f=A", "f=A0", "f=AB"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "A")
    write(file, 1, "B")
    file.close()


@litmus(
    "a write beyond the end leaves zeros in the gap or was not there",
    (r"f=A(00[C0*])?", {"f=A", "f=A00C", "f=A000", "f=A00*"}),
    exactly("f=A", "f=A00C"),
    xfs=exactly("f=A", "f=A000", "f=A00C"),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "A"), 3, "C")


@litmus(
    "a write over synced bytes and beyond them may survive in either part",
    (
        r"f=A[AB*][B0*]?",
        {"f=AA", "f=AB", "f=ABB", "f=AAB", "f=AA0", "f=AB0", "f=A*", "f=AB*"},
    ),
    exactly("f=AA", "f=AB", "f=ABB"),
    xfs=exactly("f=AA", "f=AB", "f=ABB", "f=AAB", "f=AA0", "f=AB0"),
    nvme=(r"f=A[AB][B0*]?", {"f=AA", "f=AB", "f=ABB", "f=AAB", "f=AA0", "f=AB0", "f=AB*"}),
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AA"), 1, "BB")


@litmus(
    "a write into half of a synced sector leaves the other half alone but for collateral damage",
    exactly("f=AA", "f=AB", "f=A*"),
    exactly("f=AA", "f=AB"),
    nvme=exactly("f=AA", "f=AB"),
    no_psow=exactly("f=AA", "f=AB", "f=A*", "f=*B", "f=**", "f=0B", "f=00"),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AA"), 1, "B")


@litmus(
    "an append into the sector where the synced bytes end puts these at risk",
    exactly("f=A", "f=AB", "f=A0", "f=A*"),
    exactly("f=A", "f=AB"),
    xfs=exactly("f=A", "f=AB", "f=A0"),
    no_psow=exactly("f=A", "f=AB", "f=A0", "f=A*", "f=*B", "f=**", "f=0B", "f=00"),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "A"), 1, "B")


@litmus(
    "an append that begins a sector damages nothing",
    exactly("f=AA", "f=AAB", "f=AA0", "f=AA*"),
    exactly("f=AA", "f=AAB"),
    xfs=exactly("f=AA", "f=AAB", "f=AA0"),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AA"), 2, "B")


@litmus(
    "damage ends where the sector ends",
    exactly("f=AAAAAA", "f=AAABAA", "f=AAA*AA"),
    exactly("f=AAAAAA", "f=AAABAA"),
    nvme=exactly("f=AAAAAA", "f=AAABAA"),
    no_psow=(
        r"f=AA(AA|[A0*]B|A[*]|00|[*][*])AA",
        {"f=AAAAAA", "f=AAABAA", "f=AA*BAA", "f=AA0BAA", "f=AA**AA", "f=AA00AA"},
    ),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AAAAAA"), 3, "B")


@litmus(
    "damage takes a sector of 4096 bytes as a whole, and ends where it ends",
    exactly(f"f={'A' * 24}", f"f={'A' * 11}B{'A' * 12}", f"f={'A' * 11}*{'A' * 12}"),
    exactly(f"f={'A' * 24}", f"f={'A' * 11}B{'A' * 12}"),
    nvme=exactly(f"f={'A' * 24}", f"f={'A' * 11}B{'A' * 12}"),
    no_psow=(
        r"f=A{8}([A0*]{3}[AB0*][A0*]{4})A{8}",
        {
            f"f={'A' * 24}", f"f={'A' * 11}B{'A' * 12}", f"f={'A' * 8}{'0' * 8}{'A' * 8}",
            f"f={'A' * 8}{'*' * 8}{'A' * 8}",
        },
    ),
    sector_letters=8,
)  # fmt: skip
def _(env: SimEnv) -> None:
    write(durable(env, "f", "A" * 24), 11, "B")


@litmus(
    "an append at a multiple of 4096 bytes damages nothing where sectors have that size",
    exactly("f=AAAAAAAA", "f=AAAAAAAAB", "f=AAAAAAAA0", "f=AAAAAAAA*"),
    exactly("f=AAAAAAAA", "f=AAAAAAAAB"),
    xfs=exactly("f=AAAAAAAA", "f=AAAAAAAAB", "f=AAAAAAAA0"),
    sector_letters=8,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AAAAAAAA"), 8, "B")


@litmus(
    "a long write damages its first and last sector only",
    (r"f=A[AB*](AA|BB){2}[AB*]A", {"f=AAAAAAAA", "f=AABBBBBA", "f=ABBBBBAA", "f=ABBBBBBA"}),
    (r"f=A[AB](AA|BB){2}[AB]A", {"f=AAAAAAAA", "f=AABBBBBA", "f=ABBBBBAA", "f=ABBBBBBA"}),
    btrfs=exactly("f=AAAAAAAA", "f=ABBBBBBA"),
    nvme=(r"f=A[AB](AA|BB){2}[AB]A", {"f=AAAAAAAA", "f=AABBBBBA", "f=ABBBBBAA", "f=ABBBBBBA"}),
    no_psow=(
        r"f=[A0*][AB0*](AA|BB){2}[AB0*][A0*]",
        {"f=ABBBBBBA", "f=*BBBBBBA", "f=**BBBBBA", "f=ABBBBBB*", "f=ABBBBB**"},
    ),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    write(durable(env, "f", "AAAAAAAA"), 1, "BBBBBB")


@litmus(
    "a record synced in a sector of its own is safe from the next one",
    exactly("f=A000", "f=A0B0", "f=A0*0"),
    exactly("f=A000", "f=A0B0"),
    nvme=exactly("f=A000", "f=A0B0"),
    no_psow=exactly("f=A000", "f=A0B0", "f=A0*0", "f=A0B*", "f=A0**"),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    file = room(env, "f", 4)
    write(file, 0, "A")
    sync(file)
    write(file, 2, "B")


@litmus(
    "a record synced in a sector that the next one shares is not safe from collateral damage",
    exactly("f=A0", "f=AB", "f=A*"),
    exactly("f=A0", "f=AB"),
    nvme=exactly("f=A0", "f=AB"),
    no_psow=exactly("f=A0", "f=AB", "f=A*", "f=*B", "f=**", "f=0B", "f=00"),
    sector_letters=2,
)
def _(env: SimEnv) -> None:
    file = room(env, "f", 2)
    write(file, 0, "A")
    sync(file)
    write(file, 1, "B")


@litmus(
    "a truncation may overtake a rename unless metadata is ordered",
    exactly("", "a=AA", "a=A", "b=AA", "b=A", "a=AA b=AA", "a=A b=A"),
    exactly("a=AA", "a=A", "b=AA", "b=A"),
    xfs=exactly("a=AA", "b=AA", "b=A"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "a", "AA")
    env.rename("a", "b", site="rename")
    file.truncate(LETTER, site="truncate")


@litmus(
    "a file may grow before an earlier unlink survives unless metadata is ordered",
    (r"f=B[C0*]?( old=A)?", {"f=B old=A", "f=B", "f=BC old=A", "f=BC", "f=B0", "f=B*"}),
    exactly("f=B old=A", "f=B", "f=BC old=A", "f=BC"),
    xfs=exactly("f=B old=A", "f=B", "f=BC", "f=B0"),
)
def _(env: SimEnv) -> None:
    durable(env, "old", "A")
    file = durable(env, "f", "B")
    env.unlink("old", site="unlink")
    write(file, 1, "C")


@litmus(
    "an overwrite in place may overtake a rename",
    (
        r"|[ab]=[AB*]|a=A b=A|a=B b=B|a=[*] b=[*]",
        {"", "a=A", "a=B", "b=A", "b=B", "b=*", "a=A b=A", "a=B b=B"},
    ),
    exactly("a=A", "a=B", "b=A", "b=B"),
    nvme=exactly("", "a=A", "a=B", "b=A", "b=B", "a=A b=A", "a=B b=B"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "a", "A")
    env.rename("a", "b", site="rename")
    write(file, 0, "B")


@litmus(
    "a rename may overtake an allocation unless metadata is ordered",
    (
        r"|[ab]=[A0*]?|a= b=|a=0 b=0|a=A b=A|a=[*] b=[*]",
        {"", "a=", "a=0", "a=A", "b=", "b=0", "b=*", "b=A", "a=A b=A"},
    ),
    exactly("a=", "a=0", "a=A", "b=", "b=0", "b=A"),
    xfs=exactly("a=", "a=0", "a=A", "b=0", "b=A"),
)
def _(env: SimEnv) -> None:
    file = create(env, "a")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    file.allocate(LETTER, written=True, site="allocate")
    write(file, 0, "A")
    env.rename("a", "b", site="rename")


@litmus(
    "replacing a file by an unsynced copy may leave an empty file",
    (
        r"|(f=A)?|f=[B0*]?|t=[B0*]?|f=A t=[B0*]?|f= t=|f=B t=B|f=0 t=0|f=[*] t=[*]",
        {"", "f=A", "f=B", "f=", "f=0", "f=*", "t=", "t=B", "f=A t=", "f=A t=B", "f=B t=B"},
    ),
    exactly("f=A", "f=A t=", "f=A t=B", "f=", "f=B"),
    xfs=exactly("f=A", "f=A t=", "f=A t=B", "f=", "f=0", "f=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    create(env, "t", "B")
    env.rename("t", "f", site="rename")


@litmus(
    "replacing a file by a synced copy leaves one of the two where renames are atomic",
    exactly("", "f=A", "f=B", "t=B", "f=A t=B", "f=B t=B"),
    exactly("f=A t=B", "f=B"),
    xfs=exactly("f=A", "f=A t=B", "f=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    sync(create(env, "t", "B"))
    env.rename("t", "f", site="rename")


@litmus(
    "replacing a file by a copy with a synced name may still lose both names",
    exactly("", "f=A", "f=B", "t=B", "f=A t=B", "f=B t=B"),
    exactly("f=A t=B", "f=B"),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    durable(env, "t", "B")
    env.rename("t", "f", site="rename")


@litmus("a truncation to more adds zeros", exactly("f=A", "f=A0"))
def _(env: SimEnv) -> None:
    durable(env, "f", "A").truncate(2 * LETTER, site="truncate")


@litmus(
    "a write may survive without the truncation before it unless metadata is ordered",
    (r"f=(A|A0[B*]|AA[AB*])", {"f=A", "f=A0B", "f=AAA", "f=AAB"}),
    exactly("f=A", "f=A0B", "f=AAA", "f=AAB"),
    xfs=exactly("f=A", "f=A0B", "f=AAA"),
    nvme=exactly("f=A", "f=A0B", "f=AAA", "f=AAB"),
)
def _(env: SimEnv) -> None:
    file = durable(env, "f", "AAA")
    file.truncate(LETTER, site="truncate")
    write(file, 2, "B")


@litmus(
    "what was synced before the last three syncs survives on a disk that lies about these",
    exactly("f=A g=C"),
    liar=(r"f=A( g=[BC0*]?)?", {"f=A", "f=A g=", "f=A g=B", "f=A g=C"}),
)
def _(env: SimEnv) -> None:
    durable(env, "f", "A")
    file = durable(env, "g", "B")
    write(file, 0, "C")
    sync(file)
