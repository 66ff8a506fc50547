"""Versions and their holes: what is compared how, what is named, and that no range of our own lets a known hole in."""

import re
import tarfile
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from runtimes.engine_registry import ENGINES
from tests.paths import ROOT
from toolkit.doctor.finding import Finding
from toolkit.doctor.holes import HOLES, find_holes, old_tarfile
from toolkit.doctor.versions import release, satisfies

VERSIONS = (
    "0",
    "0.9.9",
    "1",
    "1.21",
    "1.21.0",
    "1.21.1",
    "1.3",
    "2.9.1",
    "2.10",
    "2.10.0+cu128",
    "2.13.0+cpu",
    "12.1.99",
    "12.2.0",
    "2026.4.0",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_compare_as_packaging_compares_them(version):
    for other in VERSIONS:
        assert (release(version) < release(other)) == (Version(Version(version).public) < Version(Version(other).public))


@pytest.mark.parametrize("ranges", [">=1.21", "<2", ">=2.10,<2.14", ">=1.3, <12.2", ">=12.2,<14", ""])
@pytest.mark.parametrize("version", VERSIONS)
def test_ranges_mean_what_they_mean_to_packaging(version, ranges):
    assert satisfies(version, ranges) == (Version(Version(version).public) in SpecifierSet(ranges))


@pytest.mark.parametrize("odd", ["", "dev", "v2", "..", "1..2"])
def test_odd_versions_compare_somehow(odd):
    assert isinstance(release(odd) < (1,), bool)
    assert satisfies("1.0", odd)


def test_a_hole_is_named_with_its_cure():
    assert find_holes({"pillow": "12.1.1", "numpy": "1.0"}) == [
        Finding(
            level="problem",
            text="pillow 12.1.1 has a known hole: a small picture may fill the memory (CVE-2026-40192, fixed in 12.2)",
            remedy="pip install 'pillow>=12.2'",
        )
    ]


@pytest.mark.parametrize(
    ("package", "last", "first"),
    [
        ("onnx", "1.20.1", "1.21.0"),
        ("pillow", "12.1.1", "12.2.0"),
        ("torch", "2.9.1+cpu", "2.10.0+cpu"),
        ("onnxruntime", "1.26.0", "1.27.0"),
        ("onnxruntime-gpu", "1.26.0", "1.27.0"),
        ("nltk", "3.8.2", "3.9"),
    ],
)
def test_the_last_version_with_a_hole_and_the_first_without(package, last, first):
    (found,) = find_holes({package: last})
    assert found.text.startswith(f"{package} {last} has a known hole: ")
    assert find_holes({package: first}) == []


def test_our_own_ranges_let_no_known_hole_in():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    floors = [(one.name, re.search(r">=([\d.]+)", str(one.specifier))) for one in map(Requirement, lines)]
    checked = [(name, find_holes({name: floor[1]})) for name, floor in floors if floor]
    assert [found for _, found in checked if found] == []
    others = set(ENGINES["ort"].distributions[2:])  # builds for single providers, which no extra installs
    assert {name for name, _ in checked} >= {hole.package for hole in HOLES} - others


def test_every_build_of_onnxruntime_has_its_floor():
    assert [finding.level for finding in find_holes({"onnxruntime-openvino": "1.24.1"})] == ["problem"]


def test_tarfile_is_a_note_where_it_is_old():
    found = old_tarfile()
    assert [one.level for one in found] == ([] if hasattr(tarfile, "LinkFallbackError") else ["note"])
    assert all("CVE-2025-4517" in one.text for one in found)
