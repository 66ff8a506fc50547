"""Throttling counters of a made-up machine."""

import pytest

from toolkit.bench.meters.throttling import ThrottleMeter


def write(root, file, text):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


HEAT = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_total_time_ms"


def test_heat_is_the_largest_increase_of_a_counter(tmp_path):
    for cpu, kind, before in ((0, "core", 5000), (0, "package", 100), (1, "core", 70), (1, "package", 100)):
        write(tmp_path, HEAT.format(cpu, kind), f"{before}\n")
    meter = ThrottleMeter(tmp_path)
    assert meter.seconds() == 0.0
    write(tmp_path, HEAT.format(0, "core"), "5100\n")
    write(tmp_path, HEAT.format(1, "package"), "350\n")
    assert meter.seconds() == pytest.approx(0.25)


def test_the_quota_of_a_parent_cgroup_is_counted(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    own, above = "sys/fs/cgroup/a/b/cpu.stat", "sys/fs/cgroup/a/cpu.stat"
    write(tmp_path, own, "usage_usec 1\nnr_throttled 3\nthrottled_usec 4000000\n")
    write(tmp_path, above, "throttled_usec 1000000\n")
    meter = ThrottleMeter(tmp_path)
    write(tmp_path, above, "throttled_usec 3500000\n")
    write(tmp_path, own, "throttled_usec 4250000\n")
    assert meter.seconds() == pytest.approx(2.5)


def test_cgroups_v1_count_nanoseconds(tmp_path):
    write(tmp_path, "proc/self/cgroup", "1:cpu,cpuacct:/docker\n")
    stat = "sys/fs/cgroup/cpu,cpuacct/docker/cpu.stat"
    write(tmp_path, stat, "nr_periods 9\nthrottled_time 1000000000\n")
    meter = ThrottleMeter(tmp_path)
    write(tmp_path, stat, "nr_periods 9\nthrottled_time 1750000000\n")
    assert meter.seconds() == pytest.approx(0.75)


def test_there_is_no_value_without_counters(tmp_path):
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 17\n")
    assert ThrottleMeter(tmp_path).seconds() is None
