"""The wait of module build_job, without a host: when does it go back to the controller?"""

from __future__ import annotations

import pytest
from ansible_collections.labredes.pbx.plugins.modules import build_job

COMPILE = {"step": "compile"}
PACKAGE = {"step": "package"}


@pytest.mark.parametrize(
    "looks",
    [
        [(False, True, COMPILE), (True, True, COMPILE)],  # the result is there
        [(False, True, COMPILE), (False, False, COMPILE)],  # the unit has ended without one
        [(False, True, COMPILE), (False, True, COMPILE), (False, True, PACKAGE)],  # there is a step to show
        [(False, True, {}), (False, True, COMPILE)],  # the first step has begun
        [(True, False, PACKAGE)],  # it was whole before
        [(False, False, {})],  # nobody is at work
    ],
)
def test_the_wait_ends_with_what_there_is_to_tell(looks: list[tuple[bool, bool, dict]]) -> None:
    rest = list(looks)
    assert build_job.wait(lambda: rest.pop(0), seconds=60, nap=0) == looks[-1]
    assert not rest, "it went back too early"


def test_the_wait_ends_when_its_time_is_over() -> None:
    looks = iter(range(1000))

    def look() -> tuple[bool, bool, dict]:
        next(looks)
        return False, True, COMPILE

    assert build_job.wait(look, seconds=0.2, nap=0.05) == (False, True, COMPILE)
    assert 3 < next(looks) < 10
