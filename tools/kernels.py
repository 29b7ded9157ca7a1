"""Build the compiled kernels in place, and only those whose inputs changed.

A kernel's stamp is a hash over everything that decides its bytes: its `.pyx`, every `.pxd` and `.h`
it reaches, setup.py, the profile, the compiler and the Python and Cython versions. Hashes, not
times: a fresh clone, a switched branch and a switched profile are all seen for what they are.

Run as `python -m tools.kernels [profile] [room or kernel ...]` with the environment's interpreter.
"""

import concurrent.futures
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PROFILES = ("release", "debug", "asan", "coverage")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

IMPORT = re.compile(
    r"^[ \t]*(?:from[ ]+(?P<module>[\w.]+)[ ]+(?P<c1>c?)import[ ]+(?P<names>\([^)]*\)|[^\n(]+)"
    r"|(?P<c2>c?)import[ ]+(?P<modules>[\w., ]+))",
    re.MULTILINE,
)
HEADER = re.compile(r"""^\s*cdef\s+extern\s+from\s+["']([^"'<>]+)["']""", re.MULTILINE)


def imports(path: Path, *, cimports_only: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line number, module) for each import and cimport line of a Cython file.

    `from a import b` yields `a` and `a.b`, as `b` may be a module.
    """
    text = path.read_text(encoding="utf-8")
    for found in IMPORT.finditer(text):
        if cimports_only and not (found["c1"] or found["c2"]):
            continue
        line = text.count("\n", 0, found.start()) + 1
        if found["module"]:
            yield line, found["module"]
            for name in re.findall(r"\w+", re.sub(r"\s+as\s+\w+|#.*", "", found["names"])):
                yield line, f"{found['module']}.{name}"
        else:
            for name in found["modules"].split(","):
                yield line, name.split()[0]


def kernel_name(path: Path) -> str:
    """Return the module name of a kernel source file."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def inputs(path: Path) -> list[Path]:
    """Return the files a kernel is compiled from: itself, and the .pxd and .h files it reaches."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        if file.suffix == ".h":
            continue
        if file.suffix == ".pyx":
            waiting.append(file.with_suffix(".pxd"))
        waiting.extend(
            SOURCE.joinpath(*module.split(".")).with_suffix(".pxd")
            for _, module in imports(file, cimports_only=True)
        )
        headers = HEADER.findall(file.read_text(encoding="utf-8"))
        waiting.extend(file.parent / header for header in headers)
    return sorted(seen)


def stamp(path: Path, profile: str) -> str:
    """Return the hash of everything that decides the bytes of a kernel."""
    digest = hashlib.sha256()
    parts = [profile, sys.version, SUFFIX, importlib.metadata.version("Cython")]
    parts.append(os.environ.get("CC", ""))
    digest.update("\0".join(parts).encode())
    for file in [ROOT / "setup.py", *inputs(path)]:
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def stamp_file(path: Path) -> Path:
    """Return where the stamp of a kernel's last build is kept."""
    return ROOT / "build" / "stamps" / f"{kernel_name(path)}{SUFFIX}"


def built_file(path: Path) -> Path:
    """Return where the compiled module of a kernel stands."""
    return path.with_name(path.stem + SUFFIX)


def is_current(path: Path, profile: str) -> bool:
    """Return whether the compiled module is the one we built from the inputs as they are now."""
    try:
        kept = stamp_file(path).read_text(encoding="utf-8").split()
        changed = str(built_file(path).stat().st_mtime_ns)
    except FileNotFoundError:
        return False
    return kept == [stamp(path, profile), changed]


def install(built: Path, target: Path) -> None:
    """Put a module in its place in one step: who has loaded the old one keeps it whole."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.so")
    shutil.copyfile(built, beside)
    beside.replace(target)


def build_one(path: Path, profile: str) -> tuple[Path, float, str]:
    """Build one kernel; returns the path, seconds, and the compiler's words when it failed."""
    before = stamp(path, profile)
    begin = time.monotonic()
    variables = {
        "HOLDFAST_BUILD": profile,
        "HOLDFAST_ROOMS": kernel_name(path),
        "HOLDFAST_FORCE": "1",
    }
    folder = ROOT / "build" / f"lib-{profile}{SUFFIX}"
    places = ["--build-lib", str(folder), "--build-temp", f"build/temp-{profile}{SUFFIX}"]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *places],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begin
    if done.returncode:
        return path, seconds, done.stdout
    install(folder / built_file(path).relative_to(SOURCE), built_file(path))
    stamp_file(path).parent.mkdir(parents=True, exist_ok=True)
    changed = built_file(path).stat().st_mtime_ns
    stamp_file(path).write_text(f"{before} {changed}\n", encoding="ascii")
    return path, seconds, ""


def remove_orphans(profile: str) -> None:
    """Remove compiled modules whose source is gone, and C files that a coverage build left."""
    if profile != "coverage":
        for file in SOURCE.glob("holdfast/**/_*_c.c"):
            file.unlink()
    for file in SOURCE.glob(f"holdfast/**/_*_c{SUFFIX}"):
        if not file.with_name(file.name.removesuffix(SUFFIX) + ".pyx").exists():
            file.unlink()


def build(profile: str, rooms: list[str]) -> int:
    """Build what changed, on all cores; returns the number of kernels that failed."""
    remove_orphans(profile)
    found = sorted(SOURCE.glob("holdfast/**/_*_c.pyx"))
    unknown = set(rooms) - {path.parent.name for path in found} - {kernel_name(p) for p in found}
    if unknown:
        print(f"no kernels in {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    chosen = [p for p in found if not rooms or {p.parent.name, kernel_name(p)} & set(rooms)]
    stale = [path for path in chosen if not is_current(path, profile)]
    # The largest first, so that no core waits for one that began last.
    stale.sort(key=lambda path: path.stat().st_size, reverse=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, seconds, words in pool.map(lambda path: build_one(path, profile), stale):
            did = "failed" if words else "built"
            print(f"{did} {kernel_name(path)} ({profile}) in {seconds:.1f} s", flush=True)
            if words:
                failed += 1
                print(words, file=sys.stderr)
    return failed


def main(arguments: list[str]) -> int:
    """Entry point."""
    profile = os.environ.get("HOLDFAST_BUILD") or "release"
    if arguments and arguments[0] in PROFILES:
        profile = arguments.pop(0)
    if profile not in PROFILES:
        print(f"no such profile: {profile}; profiles are {', '.join(PROFILES)}", file=sys.stderr)
        return 2
    return 1 if build(profile, arguments) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
