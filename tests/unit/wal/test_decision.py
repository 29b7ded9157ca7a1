"""The recovery decision table answers every combination of answers with exactly one row."""

from __future__ import annotations

from itertools import product

import pytest

from holdfast.wal import decision
from holdfast.wal.decision import QUESTIONS, TABLE, Decision, Row, Situation, decide

ALL = [
    Situation(**dict(zip(QUESTIONS, answers, strict=True)))
    for answers in product((False, True), repeat=10)
]
CALM = dict.fromkeys(QUESTIONS, False)


def test_exactly_one_row_matches_each_of_the_1024_situations() -> None:
    assert len(ALL) == 1024
    for situation in ALL:
        assert sum(row.matches(situation) for row in TABLE) == 1
        assert decide(situation) in TABLE


@pytest.mark.parametrize("rows", [TABLE[:-1], (*TABLE, TABLE[-1])], ids=["none", "two"])
def test_a_table_that_does_not_answer_once_is_not_followed(
    rows: tuple[Row, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "TABLE", rows)
    with pytest.raises(AssertionError, match=r"exactly one row matches Situation\("):
        decide(Situation(**CALM))
    assert decide(Situation(**{**CALM, "zeros": True})).decision == Decision.STOP_CLEAN


def test_every_row_answers_every_question_and_is_reached() -> None:
    assert all(len(row.answers) == len(QUESTIONS) for row in TABLE)
    assert {decide(situation).reason for situation in ALL} == {row.reason for row in TABLE}


def test_nothing_is_cut_while_anything_proves_it_durable() -> None:
    for situation in ALL:
        decision = decide(situation).decision
        proven = (
            situation.manifest_proves
            or situation.later_segment_proves
            or situation.later_record_proves
        )
        if decision in (Decision.CUT_TAIL, Decision.STOP_CLEAN):
            assert not proven
            assert not situation.ended
            assert not (situation.foreign or situation.link_lost)
            assert not (situation.manifest_behind or situation.past_clean_end)
        if decision == Decision.CONTINUE:
            assert situation.ended
            assert situation.next_whole


@pytest.mark.parametrize("question", ["manifest_behind", "past_clean_end", "link_lost", "foreign"])
def test_a_contradiction_is_always_refused(question: str) -> None:
    assert all(decide(s).decision == Decision.REFUSE for s in ALL if getattr(s, question))


@pytest.mark.parametrize(
    ("known", "decision"),
    [
        ({"zeros"}, Decision.STOP_CLEAN),
        (set(), Decision.CUT_TAIL),
        ({"ended", "next_whole", "zeros"}, Decision.CONTINUE),
        ({"ended", "zeros"}, Decision.REFUSE),
        ({"zeros", "manifest_proves"}, Decision.REFUSE),
        ({"later_record_proves"}, Decision.REFUSE),
        ({"zeros", "later_segment_proves"}, Decision.REFUSE),
    ],
)
def test_the_common_cases(known: set[str], decision: Decision) -> None:
    assert decide(Situation(**{**CALM, **dict.fromkeys(known, True)})).decision == decision


@pytest.mark.parametrize("times", [0, 2])
def test_a_table_that_does_not_answer_once_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr("holdfast.wal.decision.TABLE", TABLE * times)
    with pytest.raises(AssertionError, match="exactly one row"):
        decide(Situation(**CALM))
