"""Builds the compiled kernels: every `src/holdfast/**/_*_c.pyx` is one extension module."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PROFILE = os.environ.get("HOLDFAST_BUILD", "release")
COMPILE_ARGS = {
    "release": ["-O2", "-g0", "-fwrapv"],
    "debug": ["-Og", "-g3", "-fwrapv"],
    "coverage": ["-O0", "-g0", "-fwrapv"],
    "asan": ["-O1", "-g", "-fwrapv", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"],
}[PROFILE]
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
"""Build only the kernels of these rooms; empty builds all."""


def extensions() -> list[Extension]:
    """Return one extension per kernel source file."""
    found = []
    for path in sorted(SOURCE.glob("holdfast/**/_*_c.pyx")):
        if ROOMS and path.parent.name not in ROOMS:
            continue
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        link = ["-fsanitize=address,undefined"] if PROFILE == "asan" else []
        macros = [("CYTHON_TRACE_NOGIL", "1")] if PROFILE == "coverage" else []
        found.append(Extension(name, [str(path)], extra_compile_args=COMPILE_ARGS,
                               extra_link_args=link, define_macros=macros))
    return found


setup(ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES, include_path=["src"],
                            build_dir=f"build/cython-{PROFILE}"))
