"""For all tests: one thread, an OpenGL library chosen before mujoco is imported, a limit on how long a test takes."""

import faulthandler
import os

import pytest

from lerobot.common.envs.koch_sim.gl import select_gl

# One thread: the tensors of the tests are tiny, and a process that is forked while OpenMP has threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
select_gl()

LONGEST_TEST_S = 600  # the longest takes 20 s; a test that is still there hangs
LONGEST_SLOW_TEST_S = 4 * 3600
LONGEST_END_S = 120  # from the last test to the end of the process

_stderr = None


def pytest_configure(config):
    """Keep a way to the terminal that pytest does not capture."""
    global _stderr
    _stderr = os.fdopen(os.dup(2), "w")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs ends the run with the stack of every thread, also where it hangs in C and no signal arrives."""
    limit = LONGEST_SLOW_TEST_S if item.get_closest_marker("slow") else LONGEST_TEST_S
    faulthandler.dump_traceback_later(limit, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """A thread or process that outlives the tests may not keep the run from its end."""
    faulthandler.dump_traceback_later(LONGEST_END_S, exit=True, file=_stderr)
