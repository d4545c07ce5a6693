"""Each fault for a short time: no lost or wrong token, nothing left behind, nothing in the log.

``python -m tests.faults`` does the same for longer, and says what it cost the honest devices.
"""

import pytest

from tests.faults.ground import make_ground
from tests.faults.scenarios import SCENARIOS, NotPossible, Options

pytestmark = pytest.mark.slow

SHORT = Options(seconds=12.0, clients=5, seed=3, kills=4, attackers=8)
# A server that takes every byte that it is sent holds far more than this after a few seconds.
MOST_GROWTH = 100 << 20


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return make_ground(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_honest_devices_get_their_tokens_and_the_server_is_as_before(name, ground):
    try:
        report = SCENARIOS[name](ground, SHORT)
    except NotPossible as reason:
        pytest.skip(str(reason))
    assert report.harm() == []
    assert report.peak - report.warm < MOST_GROWTH
