"""Builds the compiled kernels: every `src/holdfast/**/_*_c.pyx` is one extension module.

Three variables steer it: `HOLDFAST_BUILD` is the profile (release, debug, coverage or asan),
`HOLDFAST_ROOMS` names the rooms or kernels to build (empty: all), `HOLDFAST_FORCE=1` builds them
even when they look up to date.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PROFILE = os.environ.get("HOLDFAST_BUILD", "release")
SANITIZE = "-fsanitize=address,undefined"
COMPILE_ARGS = {
    "release": ["-O2", "-g0", "-fwrapv"],
    "debug": ["-Og", "-g3", "-fwrapv"],
    "coverage": ["-O0", "-g0", "-fwrapv"],
    "asan": ["-O1", "-g", "-fwrapv", SANITIZE, "-fno-omit-frame-pointer"],
}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": PROFILE == "debug",
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": PROFILE == "debug",
    "linetrace": PROFILE == "coverage",
    "embedsignature": True,
}
SOURCE = Path("src")
ROOMS = os.environ.get("HOLDFAST_ROOMS", "").split()
FORCE = os.environ.get("HOLDFAST_FORCE", "") == "1"


def extensions() -> list[Extension]:
    """Return one extension per selected kernel source file."""
    found = []
    for path in sorted(SOURCE.glob("holdfast/**/_*_c.pyx")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if ROOMS and path.parent.name not in ROOMS and name not in ROOMS:
            continue
        extension = Extension(name, [str(path)], extra_compile_args=COMPILE_ARGS[PROFILE])
        if PROFILE == "asan":
            extension.extra_link_args = [SANITIZE]
        if PROFILE == "coverage":
            extension.define_macros = [
                ("CYTHON_TRACE_NOGIL", "1"),
                ("CYTHON_USE_SYS_MONITORING", "0"),
            ]
        found.append(extension)
    return found


def main() -> None:
    """Translate and compile on all cores (translation: only on Linux, its workers need fork)."""
    if PROFILE not in COMPILE_ARGS:
        sys.exit(f"HOLDFAST_BUILD is {PROFILE!r}; it must be one of {', '.join(COMPILE_ARGS)}")
    cores = os.cpu_count() or 1
    selected = extensions()
    parallel = sys.platform == "linux" and len(selected) > 1 and cores > 1
    modules = cythonize(
        selected,
        compiler_directives=DIRECTIVES,
        include_path=["src"],
        # The coverage plugin finds the C files only beside their sources.
        build_dir=None if PROFILE == "coverage" else f"build/cython-{PROFILE}",
        nthreads=cores if parallel else 0,
        force=FORCE or None,
    )
    setup(ext_modules=modules, options={"build_ext": {"parallel": cores, "force": FORCE}})


if __name__ == "__main__":
    main()
