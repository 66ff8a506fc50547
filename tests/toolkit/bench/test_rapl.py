"""RAPL counters of a made-up machine: sums, counters that wrap around, and counters that cannot be read."""

import pytest

from toolkit.bench.meters.rapl import EnergyMeter


def zone(root, folder, name, microjoules, most=1_000_000):
    """Write the files of one zone as the kernel does."""
    (root / folder).mkdir(exist_ok=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (root / folder / file).write_text(f"{value}\n")


@pytest.fixture
def root(tmp_path):
    """Two packages; zones of their parts, of a repeated package, and of the whole board."""
    (tmp_path / "intel-rapl").mkdir()
    zone(tmp_path, "intel-rapl:0", "package-0", 100)
    zone(tmp_path, "intel-rapl:0:0", "core", 50)
    zone(tmp_path, "intel-rapl:0:1", "dram", 50)
    zone(tmp_path, "intel-rapl:1", "package-1", 999_000)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100)
    return tmp_path


def test_each_package_is_counted_once(root):
    meter = EnergyMeter(root)
    assert meter.joules == 0.0
    for folder, name, microjoules in (
        ("intel-rapl:0", "package-0", 300_100),
        ("intel-rapl:0:0", "core", 200_000),
        ("intel-rapl:0:1", "dram", 200_000),
        ("intel-rapl:1", "package-1", 999_500),
        ("intel-rapl:2", "psys", 900_000),
        ("intel-rapl-mmio:0", "package-0", 300_100),
    ):
        zone(root, folder, name, microjoules)
    assert meter.joules == 0.0, "not read yet"
    meter.update()
    assert meter.joules == 0.3005


def test_a_counter_may_wrap_around(root):
    """Package 1 is 1,000 below its range: from there to 500 are 1,500, and from 500 around to 400 are 999,900."""
    meter = EnergyMeter(root)
    zone(root, "intel-rapl:1", "package-1", 500)
    meter.update()
    assert meter.joules == 0.0015
    zone(root, "intel-rapl:1", "package-1", 400)
    meter.update()
    assert meter.joules == 1.0014


@pytest.mark.parametrize("damaged", ["energy_uj", "max_energy_range_uj"])
def test_there_is_no_value_if_a_package_cannot_be_read(root, damaged):
    (root / "intel-rapl:1" / damaged).unlink()
    meter = EnergyMeter(root)
    meter.update()
    assert meter.joules is None


def test_there_is_no_value_after_a_counter_disappeared(root):
    meter = EnergyMeter(root)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    meter.update()
    zone(root, "intel-rapl:0", "package-0", 900)
    meter.update()
    assert meter.joules is None


def test_there_is_no_value_without_packages(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        meter = EnergyMeter(root)
        meter.update()
        assert meter.joules is None
    zone(tmp_path, "intel-rapl:0", "psys", 7)
    assert EnergyMeter(tmp_path).joules is None


def test_zones_may_be_symbolic_links(root, tmp_path):
    """The kernel's class folder contains links to devices."""
    links = tmp_path / "class"
    links.mkdir()
    (links / "intel-rapl:0").symlink_to(root / "intel-rapl:0")
    meter = EnergyMeter(links)
    zone(root, "intel-rapl:0", "package-0", 600)
    meter.update()
    assert meter.joules == 0.0005
