import operator
import os

import pytest

from qmsam_core.workers import call_each


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_jobs(processes):
    assert call_each(divmod, [(n, 3) for n in range(7)], processes) == [divmod(n, 3) for n in range(7)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_job_is_raised(processes):
    with pytest.raises(ZeroDivisionError):
        call_each(operator.floordiv, [(1, 1), (1, 0)], processes)


def test_work_leaves_this_process_only_if_there_is_some_to_share():
    here = os.getpid()
    assert call_each(os.getpid, [()], 2) == [here]
    assert call_each(os.getpid, [(), ()], 1) == [here, here]
    assert here not in call_each(os.getpid, [(), ()], 2)
