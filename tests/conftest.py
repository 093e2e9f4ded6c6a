"""Options and fixtures of every part."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-golden", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture(scope="session")
def refresh_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew; the change then shows in the version control's diff."""
    return bool(request.config.getoption("--refresh-golden"))


# How long an example takes says more of what else the machine does than of the code: nothing is timed in a test.
settings.register_profile("edgeclf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeclf")
