"""Profiles: time in Python, time in operators, and reading the profilers' files."""

import json

import pytest

from runtimes.engine_registry import ENGINES, load_target
from toolkit.bench.profiling.operator_classes import BETWEEN, CLASSES, by_class
from toolkit.bench.profiling.ort_trace import add_events
from toolkit.bench.profiling.profile import Profile, Profiled, Stage
from toolkit.bench.profiling.profile_tables import RENDERERS
from toolkit.bench.profiling.profile_worker import summarize
from toolkit.bench.profiling.trace import Trace, outside_runs


class Laps:
    """A pass of two images: the first has two tokens, the second one."""

    phases = ("read", "encode", "first_token", "token", "read", "encode", "first_token")

    def __init__(self, seconds, total_s):
        self.seconds, self.total_s = seconds, total_s

    def sums(self):
        return {name: sum(s for p, s in zip(self.phases, self.seconds, strict=True) if p == name) for name in dict.fromkeys(self.phases)}


PLAIN = Laps([0.5, 8.0, 2.0, 1.0, 0.5, 8.0, 2.0], 23.0)
RUNS = [7.0, 1.5, 0.75, 7.5, 1.0]


def test_python_time_is_a_phase_without_its_engine_run():
    assert outside_runs(list(Laps.phases), PLAIN.seconds, iter(RUNS)) == {"encode": 1.5, "first_token": 1.5, "token": 0.25}


def test_stages_are_means_over_images_and_add_up():
    profile = summarize(PLAIN, RUNS, Laps(PLAIN.seconds, 46.0), Trace(), 2)
    assert [(stage.name, stage.seconds, stage.python_seconds) for stage in profile.stages] == [
        ("read", 0.5, None),
        ("encode", 8.0, 0.75),
        ("first_token", 2.0, 0.75),
        ("token", 0.5, 0.125),
        ("rest", 0.5, None),
    ]
    assert (profile.seconds, profile.traced_seconds, profile.tokens) == (11.5, 23.0, 1.5)
    assert sum(stage.seconds for stage in profile.stages) == profile.seconds


def test_without_timed_runs_the_share_of_the_traced_pass_is_used():
    """The profiler doubles all times, of runs and of Python."""
    trace = Trace(runs=[2 * run for run in RUNS])
    profile = summarize(PLAIN, [], Laps([2 * seconds for seconds in PLAIN.seconds], 46.0), trace, 2)
    assert [stage.python_seconds for stage in profile.stages] == [None, 0.75, 0.75, 0.125, None]


def test_events_of_the_warm_up_are_not_counted(tmp_path):
    def operator(name, start, duration):
        return {"cat": "Node", "name": f"x{name}_kernel_time", "ts": start, "dur": duration, "args": {"op_name": name}}

    runs = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 100} for start in (1000, 2000, 3000)]
    nodes = [operator("MatMul", start + 5, 60) for start in (1000, 2000, 3000)]
    nodes += [
        operator("Add", 1070, 20),
        operator("Add", 2070, 10),
        {"cat": "Node", "name": "x_fence_before", "ts": 2001, "dur": 7, "args": {}},
    ]
    file = tmp_path / "decoder.json"
    file.write_text(json.dumps([{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 500}, *runs, *nodes]))
    trace = Trace()
    add_events(trace, "decoder", file, skipped=1)
    assert trace.operators["decoder"] == pytest.approx({"MatMul": 120e-6, "Add": 10e-6, BETWEEN: 70e-6})
    assert trace.operators["encoder"] == {}


def test_classes_are_sorted_and_contain_all_operators():
    classes = by_class({"Add": 1.0, "MatMulNBits": 2.0, "DynamicQuantizeMatMul": 3.0, "Unheard": 0.5, BETWEEN: 4.0})
    assert [(name, list(members)) for name, members in classes.items()] == [
        ("integer products", ["DynamicQuantizeMatMul", "MatMulNBits"]),
        ("between operators", [BETWEEN]),
        ("additions", ["Add"]),
        ("other", ["Unheard"]),
    ]
    operators = [operator for members in CLASSES.values() for operator in members]
    assert len(operators) == len(set(operators))


def test_every_runtime_has_a_profiler():
    for engine in ENGINES.values():
        assert engine.profiler is not None
        assert {"timing_runs", "open", "start", "read"} <= set(dir(load_target(engine.profiler)))


def test_tables():
    additions = dict.fromkeys(("Add", "Sub", "Mul", "Div"), 0.0)
    profile = Profile(
        images=2,
        tokens=1.5,
        seconds=0.0115,
        traced_seconds=0.023,
        stages=(
            Stage(name="read", seconds=0.0005, python_seconds=None),
            Stage(name="encode", seconds=0.008, python_seconds=0.002),
            Stage(name="token", seconds=0.003, python_seconds=0.0),
        ),
        operators={
            "encoder": {"Add": 0.002, "MatMul": 0.006},
            "decoder": {"Gather": 0.001, **additions},
        },
    )
    profiles = [
        Profiled(case="onnx-fp32", profile=profile, error=None),
        Profiled(case="onnx-fp16", profile=None, error="not run: no GPU"),
    ]
    text = RENDERERS["md"](profiles)
    parts = text.split("\n\n")
    assert parts[0] == "onnx-fp32: 11.5 ms per caption of 1.5 tokens (+100% with the profiler)"
    assert parts[1].splitlines() == [
        "| stage          | ms   | share | Python ms    |",
        "|----------------|------|-------|--------------|",
        "| read           | 0.50 | 4.3%  | -            |",
        "| encode         | 8.00 | 69.6% | 2.00 (25.0%) |",
        "| further tokens | 3.00 | 26.1% | 0.00 (0.0%)  |",
    ]
    assert parts[2].splitlines()[2:] == ["| float products | 6.00 | 75.0% | MatMul    |", "| additions      | 2.00 | 25.0% | Add       |"]
    assert parts[3].splitlines()[3] == "| additions | 0.00 | 0.0%   | Add, Sub, Mul and 1 more |"
    assert parts[4] == "Failed:\n- onnx-fp16: not run: no GPU"
    assert parts[5].startswith("All times are means over images.")
    lines = RENDERERS["csv"](profiles).splitlines()
    assert lines[0] == "case,part,name,seconds,share,python_seconds,operators"
    assert len(lines) == 1 + 3 + 2 + 2
    assert json.loads(RENDERERS["json"](profiles))["cases"][1] == {
        "case": "onnx-fp16",
        "profile": None,
        "error": "not run: no GPU",
        "rows": [],
    }
