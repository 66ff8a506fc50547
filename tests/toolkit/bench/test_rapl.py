"""Energy counters of a made-up machine: joules worked out by hand, counters that start again, and what cannot be read."""

import pytest

from toolkit.bench.meters.rapl import EnergyMeter


def zone(root, folder, name, microjoules, most=1_000_000):
    """Write one zone as the kernel shows it."""
    (root / folder).mkdir(exist_ok=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (root / folder / file).write_text(f"{value}\n")


@pytest.fixture
def root(tmp_path):
    """Two packages, and zones that hold parts of them, the same package again, and the whole board."""
    (tmp_path / "intel-rapl").mkdir()
    zone(tmp_path, "intel-rapl:0", "package-0", 100)
    zone(tmp_path, "intel-rapl:0:0", "core", 50)
    zone(tmp_path, "intel-rapl:0:1", "dram", 50)
    zone(tmp_path, "intel-rapl:1", "package-1", 999_000)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100)
    return tmp_path


def test_packages_are_summed_and_nothing_counts_twice(root):
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


def test_a_counter_that_starts_again_goes_on(root):
    """Package 1 stands 1,000 below its range: to 500 it took 1,500; and again to 400 it took 999,900."""
    meter = EnergyMeter(root)
    zone(root, "intel-rapl:1", "package-1", 500)
    meter.update()
    assert meter.joules == 0.0015
    zone(root, "intel-rapl:1", "package-1", 400)
    meter.update()
    assert meter.joules == 1.0014


@pytest.mark.parametrize("damaged", ["energy_uj", "max_energy_range_uj"])
def test_a_part_of_the_packages_is_no_measurement(root, damaged):
    (root / "intel-rapl:1" / damaged).unlink()
    meter = EnergyMeter(root)
    meter.update()
    assert meter.joules is None


def test_a_counter_that_goes_away_ends_the_measurement(root):
    meter = EnergyMeter(root)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    meter.update()
    zone(root, "intel-rapl:0", "package-0", 900)
    meter.update()
    assert meter.joules is None


def test_without_packages_nothing_is_measured(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        meter = EnergyMeter(root)
        meter.update()
        assert meter.joules is None
    zone(tmp_path, "intel-rapl:0", "psys", 7)
    assert EnergyMeter(tmp_path).joules is None


def test_links_of_the_class_folder_are_followed(root, tmp_path):
    """The kernel's class folder holds links to devices."""
    links = tmp_path / "class"
    links.mkdir()
    (links / "intel-rapl:0").symlink_to(root / "intel-rapl:0")
    meter = EnergyMeter(links)
    zone(root, "intel-rapl:0", "package-0", 600)
    meter.update()
    assert meter.joules == 0.0005
