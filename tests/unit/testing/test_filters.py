"""The filters that are compared miss no key, and the figures say what they should."""

import random

import pytest

from holdfast.testing import filters


@pytest.mark.parametrize("kind", filters.KINDS)
@pytest.mark.parametrize("bits", [8, 12])
def test_a_filter_misses_no_key_and_denies_most_others(kind: str, bits: int, seed: int) -> None:
    source = random.Random(seed)
    hashes = [source.getrandbits(64) for _ in range(1_000)]
    taken, contains = filters.KINDS[kind](hashes, bits)
    assert all(map(contains, hashes))
    assert 0.8 * bits < taken < 1.1 * bits
    assert sum(contains(source.getrandbits(64)) for _ in range(2_000)) < 120


def test_more_bits_above_ask_for_fewer_pages_at_little_more_memory() -> None:
    rows = {}
    for line in filters.levels_table(2_000).splitlines()[2:]:
        name, _, second, _ = [cell.strip() for cell in line.strip("|").split("|")]
        pages, memory = second.split(" at ")
        rows[name] = float(pages), float(memory)
    assert rows["10, then 5 more"][0] < 0.6 * rows["11 everywhere"][0]
    assert rows["10, then 5 more"][1] < rows["11 everywhere"][1]
    assert rows["0, then 10"][0] > 1


def test_a_database_has_the_bits_of_its_levels() -> None:
    lines = filters.database_table(6_000).splitlines()[2:]
    bits = [float(line.split("|")[5]) for line in lines]
    assert len(bits) > 1
    assert 10 <= bits[-1] < bits[0]


@pytest.mark.parametrize("interpolates", [False, True])
def test_a_search_ends_at_the_key(interpolates: bool, seed: int) -> None:
    for keys in filters.search_keys(random.Random(seed)).values():
        for wanted in keys:
            count = filters.looked_at(keys, wanted, interpolates=interpolates)
            assert 1 <= count <= (len(keys) if interpolates else 8)


def test_wrong_counts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        filters.main(["--keys", "0"])
    assert ended.value.code == 2
    assert "1 or more, not 0" in capsys.readouterr().err
