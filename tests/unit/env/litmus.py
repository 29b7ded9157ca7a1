"""What a litmus test of the simulated disk is: a small program, and what may be found after a crash
at its end.

A file is named by its letters, 512 bytes each: a letter for bytes that are all of it, `0` for
zeros, `*` for anything else. A letter is a sector unless the test says that a sector holds more.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.env import CRASH_CLASSES, File, Operation, SimEnv, crash_states
from holdfast.env.sim_disk import FileNode

LETTER = 512
CLASSES = (*CRASH_CLASSES, "power-set")

INHERITED = {
    "ext4-ordered": "posix-min",
    "xfs-delalloc": "ext4-ordered",
    "cow-btrfs": "xfs-delalloc",
    "nvme-4k": "posix-min",
    "no-psow": "posix-min",
    "no-psow-4k": "no-psow",
}
"""The profile whose rule holds where a test gives none."""

Rule = tuple[str, set[str]]
"""The pattern of what may be seen, and what must be."""

Program = Callable[[SimEnv], object]


def letters_of(text: str) -> bytes:
    """Return the bytes of some letters; `0` is zeros."""
    return b"".join(bytes(LETTER) if c == "0" else c.encode() * LETTER for c in text)


def write(file: File, offset: int, letters: str) -> None:
    file.write_at(offset * LETTER, letters_of(letters), site="write")


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


def room(env: SimEnv, name: str, count: int) -> File:
    """Return a file of durable zeros."""
    file = create(env, name)
    file.allocate(count * LETTER, written=True, site="allocate")
    sync(file)
    env.sync_dir("/", site="sync_dir")
    return file


def shown(data: bytes) -> str:
    assert len(data) % LETTER == 0, "litmus programs write whole letters"
    letters = ""
    for start in range(0, len(data), LETTER):
        kinds = set(data[start : start + LETTER])
        letter = chr(kinds.pop()) if len(kinds) == 1 else "*"
        letters += "0" if letter == "\0" else letter
    return letters


def described(env: SimEnv, folder: str = "/") -> str:
    """Return every file of a disk with its letters."""
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
    """Return what may be found after a crash."""
    names = set()
    for state in crash_states(env, CLASSES):
        built = state.build()
        names.add(described(built))
        assert built.op_count == 0
    return names


@dataclass
class Litmus:
    """A sentence, a program, and the rules of the profiles; the others inherit theirs."""

    sentence: str
    program: Program
    rules: dict[str, Rule]
    sector_letters: int = 1
    found: dict[str, set[str]] = field(default_factory=dict)

    def machine(self, profile: str) -> SimEnv:
        return SimEnv(profile=profile, sector_bytes=LETTER * self.sector_letters)

    def outcomes(self, profile: str) -> set[str]:
        """Return what may be found after the program on a machine of this profile."""
        if profile not in self.found:
            env = self.machine(profile)
            self.program(env)
            self.found[profile] = seen(env)
        return self.found[profile]

    def steps(self) -> str:
        """Return the program in words: offsets, sizes and counts are in letters."""
        env = self.machine("posix-min")
        nodes: dict[str, FileNode] = {}
        words: list[str] = []

        def tell(operation: Operation) -> None:
            if operation.kind == "create":
                nodes[operation.path] = env.disk.find_file(operation.path)
            words.append(told(operation, nodes))

        env.observer = tell
        self.program(env)
        text = "; ".join(words)
        text = re.sub(r"create (\w+); \1\[0\] = (\w+); sync \1; sync /", r"durable \1 = \2", text)
        return text or "nothing"

    def rule(self, profile: str) -> Rule | None:
        """Return the rule of a profile. `liar` has one only where it is given."""
        while profile not in self.rules and profile in INHERITED:
            profile = INHERITED[profile]
        return self.rules.get(profile)


def told(operation: Operation, nodes: dict[str, FileNode]) -> str:
    """Return an operation in words."""
    kind, path, detail = operation.kind, operation.path, operation.detail
    if kind == "rename":
        return f"rename {path} to {detail}"
    if kind in ("create", "unlink", "sync"):
        return f"{kind} {path}"
    if kind == "sync_dir":
        return "sync /" if path == "/" else f"sync folder {path}"
    if kind == "make_dir":
        return f"create folder {path}"
    assert isinstance(detail, tuple)
    if kind == "write":
        data = nodes[path].volatile.read(*detail)
        return f"{path}[{detail[0] // LETTER}] = {shown(data)}"
    return f"{kind} {path} to {detail[0] // LETTER}"


def exactly(*names: str) -> Rule:
    """Return the rule that these are seen and nothing else."""
    return "|".join(re.escape(name) for name in names), set(names)


LITMUS: list[Litmus] = []


def litmus(
    sentence: str,
    posix: Rule,
    ext4: Rule | None = None,
    *,
    xfs: Rule | None = None,
    btrfs: Rule | None = None,
    nvme: Rule | None = None,
    no_psow: Rule | None = None,
    liar: Rule | None = None,
    sector_letters: int = 1,
) -> Callable[[Program], Program]:
    """Add a test; used as a decorator of its program."""
    given = {
        "posix-min": posix,
        "ext4-ordered": ext4,
        "xfs-delalloc": xfs,
        "cow-btrfs": btrfs,
        "nvme-4k": nvme,
        "no-psow": no_psow,
        "liar": liar,
    }
    rules = {name: rule for name, rule in given.items() if rule is not None}

    def add(program: Program) -> Program:
        LITMUS.append(Litmus(sentence, program, rules, sector_letters))
        return program

    return add
