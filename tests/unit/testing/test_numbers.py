"""Numbers of the harnesses' command lines that cannot be meant end with status 2 at once."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.testing import (
    bench,
    crash_command,
    filters,
    fuzz,
    histories,
    interleavings_run,
    kills,
    pool_compare,
    simulate,
)
from tools import mutate

FLOATS = ["nan", "inf", "-1", "0", "soon"]
COUNTS = ["0", "-1", "1.5", "nan"]
WRONG: list[tuple[Callable[..., Any], str, list[str]]] = [
    (bench.main, "--count --reads --rounds --starts --commits --threads", COUNTS),
    (bench.main, "--replay-mb --load-gb", FLOATS),
    (crash_command.main, "--exhaustive --seeds --jobs", COUNTS),
    (crash_command.main, "--nested-sample", ["-1", "nan"]),
    (crash_command.main, "--budget", FLOATS),
    (filters.main, "--keys --rows", COUNTS),
    (fuzz.main, "--executions --jobs", COUNTS),
    (fuzz.main, "--seconds", FLOATS),
    (histories.main, "--runs --transactions --jobs", COUNTS),
    (histories.main, "--serial --right --slices", ["-1", "nan"]),
    (histories.main, "--minutes --small", FLOATS),
    (interleavings_run.main, "--jobs", COUNTS),
    (interleavings_run.main, "--minutes", FLOATS),
    (kills.main, "--kills --jobs", COUNTS),
    (pool_compare.main, "--rows --reads", COUNTS),
    (simulate.main, "--flushes", COUNTS),
    (mutate.main, "--jobs", COUNTS),
    (mutate.main, "--minutes", FLOATS),
]
CASES = [
    (main, option, value)
    for main, options, values in WRONG
    for option in options.split()
    for value in values
]


@pytest.mark.parametrize(("main", "option", "value"), CASES)
def test_a_number_that_cannot_be_meant_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], main: Callable[..., Any], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, value])
    assert 2 == ended.value.code
    assert option in capsys.readouterr().err
