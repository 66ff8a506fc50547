"""The text format of metrics, as `prometheus_client`'s parser reads it."""

import math

from prometheus_client.parser import text_string_to_metric_families

from toolkit.serve.metrics import BUCKETS_S, Counter, Gauge, Histogram, exposition


def read(*metrics):
    families = {family.name: family for family in text_string_to_metric_families(exposition(metrics))}
    return {name: (family.type, [(s.name, s.labels, s.value) for s in family.samples]) for name, family in families.items()}


def test_counters_and_gauges():
    counter = Counter("blip_requests_total", "Requests.")
    counter.add(path='a "quoted"\\path\n', status="200")
    counter.add(2, path="/", status="429")
    gauge = Gauge("blip_ready", "Ready.", lambda: {(): True})
    families = read(counter, gauge)
    assert families["blip_requests"] == (
        "counter",
        [
            ("blip_requests_total", {"path": 'a "quoted"\\path\n', "status": "200"}, 1.0),
            ("blip_requests_total", {"path": "/", "status": "429"}, 2.0),
        ],
    )
    assert families["blip_ready"] == ("gauge", [("blip_ready", {}, 1.0)])


def test_histograms():
    histogram = Histogram("blip_request_seconds", "Seconds.")
    values = [0.001, 0.01, 0.0101, 1.0, 1000.0]
    for value in values:
        histogram.observe(value, path="/")
    kind, samples = read(histogram)["blip_request_seconds"]
    buckets = {float(labels["le"]): value for name, labels, value in samples if name.endswith("_bucket")}
    assert kind == "histogram"
    assert list(buckets) == [*BUCKETS_S, math.inf]
    assert buckets == {bound: sum(value <= bound for value in values) for bound in buckets}
    assert [value for name, _, value in samples if name.endswith(("_sum", "_count"))] == [sum(values), 5.0]
