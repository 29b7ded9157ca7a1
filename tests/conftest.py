"""What every test shares: checks on, Hypothesis profiles, seeds that replay, and the real input.

`HOLDFAST_HYPOTHESIS` selects the profile: `ci` (the default) draws the same examples in every run,
`deep` draws many new ones. `HOLDFAST_SEED` sets the seed behind the `rng` fixture; a failing test
prints the seed it ran with.
"""

import os
import random
import signal
import sys
import zlib
from pathlib import Path

import hypothesis
import pytest

# Before any test module imports holdfast: the constant is read at import.
os.environ.setdefault("HOLDFAST_CHECKS", "1")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores it, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
PROFILE = os.environ.get("HOLDFAST_HYPOTHESIS", "ci")

TOO_SLOW = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=TOO_SLOW
)
hypothesis.settings.register_profile(
    "deep", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=TOO_SLOW
)
hypothesis.settings.load_profile(PROFILE)


def pytest_report_header() -> str:
    return (
        f"holdfast: twins={'plain' if os.environ.get('HOLDFAST_PURE') == '1' else 'compiled'} "
        f"checks={os.environ['HOLDFAST_CHECKS']} hypothesis={PROFILE} HOLDFAST_SEED={SEED}"
    )


def pytest_runtest_setup() -> None:
    """Forget what other tests brought about, so that a mark that is seen is this test's own."""
    events = sys.modules.get("holdfast.base.events")
    if events is not None:
        events._seen.clear()


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with real time series (one CSV file each, columns timestamp and value)."""
    folder = ROOT.parent / "shared" / "data" / "nab"
    if not folder.is_dir():
        pytest.fail(
            "the real input is absent: tests read CSV files of the Numenta Anomaly Benchmark "
            f"from ../shared/data/nab beside the checkout, that is {folder}"
        )
    return folder


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of this test's own, printed so that a failure can be replayed."""
    value = zlib.crc32(f"{SEED} {request.node.name}".encode())
    print(f"replay: HOLDFAST_SEED={SEED} (seed {value})")
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A random generator that draws the same in every run with the same HOLDFAST_SEED."""
    return random.Random(seed)
