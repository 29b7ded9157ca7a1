"""`./dev profile`: what perf prints is read, and names are told as the source has them."""

from __future__ import annotations

import shutil

import pytest

from tools import sampling
from tools.sampling import Profile, Sample, owner, parse, readable, shown

REPORT = """\
# Samples: 4K of event 'cpu-clock:ppp'
#
 27.29% ;   4711:python       ;[kernel.kallsyms]                          ;[k] iowrite16
  6.60% ;   4712:python       ;backend_c.cpython-311-x86_64-linux-gnu.so  ;[.] ZSTD_compress
  2.18% ;   4711:python       ;_checksum_c.cpython-311-x86_64-linux-gnu.so;[.] __pyx_f_8holdfast_5codec_11_checksum_c_xxh64

"""  # noqa: E501


def test_a_report_is_read_line_by_line() -> None:
    assert list(parse(REPORT)) == [
        Sample(27.29, 4711, "[kernel.kallsyms]", "iowrite16"),
        Sample(6.6, 4712, "backend_c.cpython-311-x86_64-linux-gnu.so", "ZSTD_compress"),
        Sample(
            2.18, 4711, "_checksum_c.cpython-311-x86_64-linux-gnu.so", "codec._checksum_c.xxh64"
        ),
    ]
    assert list(parse("Error:\nnothing ; here\n")) == []


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("__pyx_f_8holdfast_7sstable_7_page_c_check_entries.constprop.0",
         "sstable._page_c.check_entries"),
        ("__pyx_f_8holdfast_10bufferpool_7_pool_c_10BufferPool_find",
         "bufferpool._pool_c.BufferPool.find"),
        ("__pyx_pw_8holdfast_6engine_7_core_c_12KeyspaceCore_3get",
         "engine._core_c.KeyspaceCore.get"),
        ("ZSTD_decompressSequences_bmi2.constprop.0", "ZSTD_decompressSequences_bmi2.constprop.0"),
        ("__pyx_f_5other_4room", "__pyx_f_5other_4room"),
        ("__libc_pread", "__libc_pread"),
    ],
)  # fmt: skip
def test_names_are_those_of_the_source(function: str, name: str) -> None:
    assert readable(function) == name


def test_every_file_has_an_owner() -> None:
    assert [
        owner(code)
        for code in (
            "[kernel.kallsyms]", "libpython3.11.so.1.0", "python3.12", "libc.so.6", "[vdso]",
            "_page_c.cpython-311-x86_64-linux-gnu.so", "backend_c.cpython-311-x86_64-linux-gnu.so",
            "rocksdict.abi3.so",
        )
    ] == [
        "kernel", "interpreter", "interpreter", "C library", "C library", "holdfast", "zstandard",
        "rocksdict",
    ]  # fmt: skip


def test_shares_are_of_all_samples_and_small_ones_are_left_out() -> None:
    samples = [
        Sample(30.0, 1, "libc.so.6", "memcpy"),
        Sample(9.5, 2, "libc.so.6", "memcpy"),
        Sample(10.1, 2, "_pool_c.cpython-311-x86_64-linux-gnu.so", "bufferpool._pool_c.find"),
        Sample(0.4, 1, "libc.so.6", "free"),
    ]
    lines = shown(Profile("get-cold", "holdfast", 80.0, 40.0, 1, samples))
    assert "- first thread: 61 %" in lines
    assert "- C library 80 %, holdfast 20 %" in lines
    assert lines[-3:] == [
        "| C library | `memcpy` | 79.0 % |",
        "| holdfast | `bufferpool._pool_c.find` | 20.2 % |",
        "",
    ]
    assert shown(Profile("get-cold", "holdfast", 80.0, 40.0, 1, []))[-1] == ""


def test_without_perf_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert sampling.main(["get-cold"]) == 2
    assert "there is no `perf` here" in capsys.readouterr().err


def test_an_unknown_workload_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/perf")
    with pytest.raises(SystemExit):
        sampling.main(["get-colder"])
    assert "no such workload: get-colder" in capsys.readouterr().err
