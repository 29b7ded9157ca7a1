"""The build backend: setuptools, and a C compiler from PyPI where the machine has none.

Everything is setuptools' own, but on a machine without a C compiler `ziglang` joins the build
requirements and becomes the compiler, so that `pip install .` works with nothing but Python.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_sdist, get_requires_for_build_sdist
from setuptools.build_meta import prepare_metadata_for_build_editable as _metadata_for_editable
from setuptools.build_meta import prepare_metadata_for_build_wheel as _metadata_for_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ZIGLANG = "ziglang>=0.13"

prepare_metadata_for_build_editable = _metadata_for_editable
prepare_metadata_for_build_wheel = _metadata_for_wheel


def has_compiler() -> bool:
    """Return whether the compiler that a build would use is on this machine."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    words = shlex.split(command)
    return bool(words) and shutil.which(words[0]) is not None


def use_ziglang(python: str) -> None:
    """Make `ziglang`, installed for the interpreter `python`, the compiler of child processes."""
    os.environ["CC"] = f"{shlex.quote(python)} -m ziglang cc"
    os.environ["LDSHARED"] = f"{os.environ['CC']} -shared"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what setuptools asks for, and `ziglang` when there is no compiler."""
    required: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    return required if has_compiler() else [*required, ZIGLANG]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return what setuptools asks for, and `ziglang` when there is no compiler."""
    required: list[str] = build_meta.get_requires_for_build_editable(config_settings)
    return required if has_compiler() else [*required, ZIGLANG]


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel; returns its file name."""
    if not has_compiler():
        use_ziglang(sys.executable)
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build an editable wheel; returns its file name."""
    if not has_compiler():
        use_ziglang(sys.executable)
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name
