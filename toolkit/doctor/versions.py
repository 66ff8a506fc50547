"""Versions as far as the doctor compares them: text goes in, numbers and verdicts come out. Devices need not have `packaging`."""

import re


def release(version: str) -> tuple[int, ...]:
    """Return a version's numbers without what follows them: 2.13.0+cpu is (2, 13), as is 2.13."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in leading[0].split(".")] if leading else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def satisfies(version: str, ranges: str) -> bool:
    """Whether a version is in ranges like ">=2.10,<2.14", the kinds that manifests have; what is of another kind excludes nothing."""
    limits = re.findall(r"(>=|<)\s*(\d[\d.]*)", ranges)
    return all((release(version) >= release(bound)) == (operator == ">=") for operator, bound in limits)
