"""The facts about this machine that records of `tests.load` and `tests.scale` have."""

import os
import platform

from runtimes.host.facts import read_host


def described_host() -> dict[str, object]:
    """Return them as JSON values."""
    host = read_host()
    return {"cpu": host.cpu, "cores": os.cpu_count(), "cpu_features": sorted(host.cpu_features), "system": platform.platform()}
