"""Room for results of plans that run side by side."""

from __future__ import annotations

import pytest

from transom.services.house import utc_now
from transom.services.spool import Spool


@pytest.mark.parametrize("keeps", [(False, False), (True, False), (False, True), (True, True)])
def test_plans_of_one_project_run_side_by_side_whatever_is_kept_of_them(tmp_path, keeps):
    spool = Spool(tmp_path, utc_now)
    first, second = (spool.room("mine", 1, 10, keeps=each) for each in keeps)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    with spool.room("mine", 1, 10, keeps=True):
        pass
