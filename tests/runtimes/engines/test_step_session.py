"""Test sessions: which images share a run, and that states give the same values as another way to run the same model."""

import weakref

import numpy as np
import pytest

import runtimes
from runtimes.decoding.request import checked_config
from runtimes.decoding.session import STEPWISE
from runtimes.engines.ort.device_gather import DeviceGather
from runtimes.engines.step_session import StepSession

BOTH = pytest.mark.parametrize("recipe", ["onnx-fp32", "pytorch-fp32"])


@pytest.fixture(scope="module")
def pixels(tiny_artifacts, drawn_images):
    captioner = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)
    return np.stack([captioner._pixels(image.path) for image in drawn_images[:6]])


def session_of(artifact):
    return runtimes.load(artifact, device="cpu", threads=1).session._session  # the session inside the guard that `load` adds


def logits_of(session, state, token_ids):
    """Run the session on new tokens; return the logits at the last one and the next state."""
    ids = np.array(token_ids, dtype=np.int64)
    return session.step(ids, state, np.array([ids.shape[1] - 1], dtype=np.int64))


class CountingEngine:
    """Wraps an engine and records the number of images in each run of the encoder."""

    def __init__(self, engine):
        self._engine, self.encoded = engine, []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run(self, graph, bound, feeds, outputs):
        if graph == "encoder":
            self.encoded.append(self._engine.to_numpy(feeds["pixels"]).shape[0])
        return self._engine.run(graph, bound, feeds, outputs)


@pytest.mark.parametrize(("recipe", "runs"), [("onnx-fp32", [6]), ("onnx-int4", [1] * 6), ("onnx-int8", [1] * 6)])
def test_images_share_a_run_unless_it_has_one_activation_scale(tiny_artifacts, pixels, recipe, runs):
    session = session_of(tiny_artifacts[recipe])
    session._engine = counting = CountingEngine(session._engine)
    session.encode({"pixels": pixels})
    assert counting.encoded == runs


@pytest.mark.parametrize("recipe", ["onnx-int8", "pytorch-int8"])
def test_the_state_of_a_batch_is_that_of_its_images(tiny_artifacts, pixels, recipe):
    """INT8 values are bit-identical, because activation scales are computed per image."""
    session = session_of(tiny_artifacts[recipe])
    pixels = pixels * np.linspace(0.2, 1.0, len(pixels), dtype=np.float32)[:, None, None, None]  # so that the scales of the images differ
    state = session.encode({"pixels": pixels})
    for index in range(len(pixels)):
        alone = session.encode({"pixels": pixels[index : index + 1]})
        for single, batch in zip(cross_of(session, alone), cross_of(session, state), strict=True):
            np.testing.assert_array_equal(single[0], batch[index])


def cross_of(session, state):
    if isinstance(session, StepSession):
        return [session._engine.to_numpy(value) for value in state.encoded.values()]
    return [value.numpy() for value in state.cross]


@pytest.mark.full
@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4"])
def test_results_beside_an_image_with_far_larger_activations_are_bit_equal(mini_artifacts, sample_images, recipe):
    """Encoder outputs, and logits and cache of steps of one token, with blocks that the shipped model's matrices fill."""
    captioner = runtimes.load(mini_artifacts[recipe], device="cpu", threads=1)
    image, mate = (captioner._pixels(image.path)[None] for image in sample_images[:2])
    session = captioner.session._session
    results = []
    for pixels in (image, np.concatenate([image, 50 * mate])):
        state = session.encode({"pixels": pixels})
        values = [cross[0] for cross in cross_of(session, state)]
        for token in (1, 1037, 2829):
            logits, state = logits_of(session, state, [[token]] * len(pixels))
            values += [logits[0], *(session._engine.to_numpy(value)[0] for value in state.past.values())]
        results.append(values)
    for alone, beside in zip(*results, strict=True):
        np.testing.assert_array_equal(alone, beside)


@pytest.mark.full
@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4", "onnx-int8-single"])
def test_captions_of_100_images_do_not_depend_on_the_batch(mini_artifacts, data_images, recipe):
    captioner = runtimes.load(mini_artifacts[recipe], device="cpu", threads=2)
    paths = [image.path for image in data_images]
    assert [caption.token_ids for caption in captioner.stream(paths, batch_size=8)] == [c.token_ids for c in captioner.stream(paths)]


def test_int8_captions_do_not_depend_on_the_batch(tiny_artifacts, drawn_images):
    captioner = runtimes.load(tiny_artifacts["onnx-int8"], threads=1)
    paths = [image.path for image in drawn_images]
    assert captioner.caption(paths, batch_size=16) == captioner.caption(paths)


@BOTH
def test_a_cropped_cache_equals_one_without_the_cropped_tokens(tiny_artifacts, pixels, recipe):
    session = session_of(tiny_artifacts[recipe])
    _, state = logits_of(session, session.encode({"pixels": pixels[:2]}), [[1, 9, 8], [1, 7, 6]])
    _, state = logits_of(session, state, [[11, 12], [13, 14]])
    logits, _ = logits_of(session, session.crop(state, 3), [[5], [4]])
    _, plain = logits_of(session, session.encode({"pixels": pixels[:2]}), [[1, 9, 8], [1, 7, 6]])
    expected, _ = logits_of(session, plain, [[5], [4]])
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@BOTH
def test_selected_rows_keep_their_image_and_cache(tiny_artifacts, pixels, recipe):
    session = session_of(tiny_artifacts[recipe])
    _, state = logits_of(session, session.encode({"pixels": pixels[:3]}), [[1, 9], [1, 8], [1, 7]])
    state = session.select(state, np.array([2, 2, 0, 0]), np.array([2, 0]))
    logits, _ = logits_of(session, state, [[5], [6], [5], [6]])
    for row, (image, history) in enumerate([(2, [1, 7, 5]), (2, [1, 7, 6]), (0, [1, 9, 5]), (0, [1, 9, 6])]):
        expected, _ = logits_of(session, session.encode({"pixels": pixels[image : image + 1]}), [history])
        np.testing.assert_allclose(logits[row], expected[0], atol=1e-5)


@pytest.mark.parametrize("recipe", ["onnx-fp32", "onnx-int8"])
def test_a_non_contiguous_input_is_copied_and_referenced_until_the_run_ends(tiny_artifacts, pixels, recipe):
    """The input is so large that its memory returns to the system when freed; reading it afterwards would crash the process."""
    session = session_of(tiny_artifacts[recipe])
    many = np.concatenate([pixels] * 8)
    backwards = session.encode({"pixels": many[::-1]})
    copied = session.encode({"pixels": np.ascontiguousarray(many[::-1])})
    for strided, contiguous in zip(cross_of(session, backwards), cross_of(session, copied), strict=True):
        np.testing.assert_array_equal(strided, contiguous)


def test_inputs_are_referenced_while_the_graph_runs(tiny_artifacts, pixels):
    """ONNX Runtime reads the array's own memory, and older versions do not keep the array alive."""
    session = session_of(tiny_artifacts["onnx-fp32"])
    engine, arrays, alive = session._engine, [], []
    graph, to_engine = engine._sessions["encoder"], engine.to_engine

    class OlderVersion:
        def __getattr__(self, name):
            return getattr(graph, name)

        def run_with_iobinding(self, binding):
            binding._bound_inputs.clear()
            alive.extend(array() is not None for array in arrays)
            return graph.run_with_iobinding(binding)

    def watched(array):
        value = to_engine(array)
        arrays.append(weakref.ref(value._numpy_obj))
        return value

    engine._sessions = {**engine._sessions, "encoder": OlderVersion()}
    engine.to_engine = watched
    session.encode({"pixels": pixels[:, ::-1]})  # not contiguous, so the engine's copy is the only one
    assert alive == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("axis", "indices"), [(0, [2, 0, 0]), (2, [0, 1])])
def test_a_gather_on_the_device_equals_that_of_numpy(dtype, axis, indices):
    import onnxruntime

    values = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(dtype)
    gather = DeviceGather(["CPUExecutionProvider"], "cpu")
    entries = gather(onnxruntime.OrtValue.ortvalue_from_numpy(values), np.array(indices), axis)
    np.testing.assert_array_equal(entries.numpy(), np.take(values, indices, axis))


@BOTH
def test_capabilities(tiny_artifacts, recipe):
    assert session_of(tiny_artifacts[recipe]).capabilities == STEPWISE


@pytest.mark.parametrize(("recipe", "num_beams"), [("onnx-fp32", 1), ("onnx-fp32", 3), ("pytorch-fp32", 3), ("onnx-int8-single", 1)])
def test_images_with_prompts_of_different_length(tiny_artifacts, pixels, recipe, num_beams):
    captioner = runtimes.load(tiny_artifacts[recipe], device="cpu", threads=1)
    prompts = [captioner.tokenizer.prompt_ids(prompt) for prompt in ("a red dog", None, "two", "a red dog", "big old", None)]
    decoding = checked_config(captioner.manifest, captioner.session, len(prompts[0]), captioner.manifest.defaults, {"num_beams": num_beams})
    together = captioner._search(pixels, [[prompt] for prompt in prompts], decoding, lambda phase, seconds: None)
    for index, prompt in enumerate(prompts):
        (alone,) = captioner._search(pixels[index : index + 1], [[prompt]], decoding, lambda phase, seconds: None)
        assert together[index].token_ids == alone.token_ids
        assert list(alone.token_ids[: len(prompt)]) == prompt
        assert together[index].score == pytest.approx(alone.score, abs=1e-4)
