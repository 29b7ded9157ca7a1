"""Imports of real series survive SIGKILL at 200 random moments.

After each kill the rows are a prefix of whole batches that holds every acknowledged one, and at the
end of each life the export equals the input; `holdfast.testing.kills` says it in full.
"""

import pytest

from holdfast.testing.kills import run_kills


@pytest.mark.slow
def test_every_acknowledged_batch_is_there_after_200_kills(tmp_path, data_folder, seed):
    report = run_kills(str(tmp_path), str(data_folder), kills=200, seed=seed)
    print(report)
    assert [] == report.failures
    assert 200 <= report.kills
    assert {"while opening", "while importing", "while closing"} == {
        moment for moment, count in report.moments.items() if count >= 5
    }
