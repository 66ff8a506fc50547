"""Print pip's constraints for the lowest versions that pyproject.toml allows: `python -m tests.lowest > constraints.txt`.

Only direct dependencies are constrained; pip chooses what they need in turn.
"""

import re
import tomllib

from tests.paths import ROOT

LOWER_BOUND = re.compile(r"([A-Za-z0-9_-]+)(?:\[[^]]*\])?>=([0-9.]+)")
OTHERWISE = {"torch": "2.13.0"}
"""torch's lowest version has no small CPU build on the package index: gigabytes of CUDA. It is tried at the version that tests use."""


def constraints() -> list[str]:
    """Return `name==version` for each direct dependency that has a lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lowest = dict(match.groups() for match in map(LOWER_BOUND.match, requirements) if match)
    return [f"{name}=={version}" for name, version in sorted((lowest | OTHERWISE).items())]


if __name__ == "__main__":
    print("\n".join(constraints()))
