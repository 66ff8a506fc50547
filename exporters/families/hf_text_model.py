"""BLIP models of transformers in FP32 that generate texts: the reference of the gate and the baseline of benchmarks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import torch
import transformers

from exporters.families.tokenizer import load_tokenizer
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.search import PhaseTimer
from runtimes.decoding.session import Float32
from runtimes.errors import CheckpointError, ToolkitError
from runtimes.images.reading import ImageInput, read_image
from runtimes.tasks.results import GeneratedText

Weights = Mapping[str, torch.Tensor]
BIAS, DECODER_BIAS = "text_decoder.cls.predictions.bias", "text_decoder.cls.predictions.decoder.bias"
"""Names of one tensor, the bias of the head."""


class HfTextModel:
    """A BLIP model of transformers with a text decoder, in FP32, with its Pillow-based image processor."""

    MODEL: ClassVar[str]
    """Name of the class in transformers."""

    def __init__(self, directory: Path, threads: int, *, tied: bool = True, weights: Weights | None = None, device: str = "cpu") -> None:
        """Load the checkpoint.

        Args:
            directory: The checkpoint's folder.
            threads: CPU threads of torch; set for the whole process.
            tied: Whether its head and its word embeddings are one tensor.
            weights: The weights by transformers' names, for a checkpoint whose files have other names.
            device: Device of torch that the model runs on.

        Raises:
            CheckpointError: transformers cannot load it.
        """
        torch.set_num_threads(threads)
        self._weights, self._device = weights, torch.device(device)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            self.model = self._model(directory, tied=tied).eval().to(self._device)
            self._images = pillow_processor().from_pretrained(directory)
            self._tokenizer = load_tokenizer(directory, self.model.config.text_config.pad_token_id)
        except Exception as error:  # transformers passes on the exceptions of its parsers
            raise CheckpointError(
                str(directory), f"transformers cannot load it: {next(iter(str(error).splitlines()), type(error).__name__)}"
            ) from error
        self._tokenizer.model_max_length = int(1e9)  # suppresses a warning about a length limit that BLIP's decoder does not have
        self._timer: _HookTimer | None = None
        # Settings of the checkpoint that artifacts do not apply must not change the comparison; the others are arguments of `generate`.
        self.model.text_decoder.generation_config = transformers.GenerationConfig()
        self.model.vision_model.register_forward_hook(lambda *_: self._timer and self._timer("encode"))
        if hasattr(self.model, "text_encoder"):
            self.model.text_encoder.register_forward_hook(lambda *_: self._timer and self._timer("question"))
        self.model.text_decoder.register_forward_hook(lambda *_: self._timer and self._timer.token())

    def _model(self, directory: Path, *, tied: bool) -> Any:  # noqa: ANN401 - transformers is untyped
        """Load the model; subclasses override this to load another precision."""
        return load_transformers_model(directory, torch.float32, tied=tied, weights=self._weights, model=self.MODEL)

    @torch.inference_mode()
    def generate(
        self,
        images: Sequence[ImageInput],
        questions: Sequence[str | None],
        *,
        prompt: str | None = None,
        batch_size: int = 1,
        timer: PhaseTimer | None = None,
        **options: Any,  # noqa: ANN401 - fields of GenerationConfig
    ) -> list[GeneratedText]:
        """Generate one text for each pair of image and question; see `TextGenerator.generate`.

        Options that are left out have the defaults of `GenerationConfig`. `prompt` is for captions.
        """
        config = GenerationConfig(**{name: value for name, value in options.items() if value is not None})
        texts: list[GeneratedText] = []
        for start in range(0, len(images), batch_size):
            started, batch = perf_counter(), slice(start, start + batch_size)
            pixels, errors = readable_pixels(images[batch], self._pixels)
            asked = [question or prompt for question, error in zip(questions[batch], errors, strict=True) if error is None]
            if timer:
                timer("read", perf_counter() - started)
            readable = self._texts(torch.cat(pixels), asked, config, timer) if pixels else iter(())
            failed = (GeneratedText(text="", token_ids=(), score=None, error=error) for error in errors if error is not None)
            texts += [next(readable if error is None else failed) for error in errors]
        return texts

    def _texts(
        self, pixels: torch.Tensor, texts: Sequence[str | None], config: GenerationConfig, timer: PhaseTimer | None
    ) -> Iterator[GeneratedText]:
        beams = config.num_beams > 1
        output = self.output(pixels, texts, config, timer, scores=beams)
        for row, sequence in enumerate(output.sequences.tolist()):
            ids = self._trim(sequence)
            yield GeneratedText(text=self._text(ids), token_ids=tuple(ids), score=float(output.sequences_scores[row]) if beams else None)

    def strip_prompt(self, text: GeneratedText, prompt: str | None) -> str:
        """Return a text without its prompt."""
        return self._text(text.token_ids[1 if prompt is None else len(self.text_ids(prompt)) - 1 :]).strip()

    @torch.inference_mode()
    def output(
        self,
        pixels: torch.Tensor,
        texts: Sequence[str | None],
        config: GenerationConfig,
        timer: PhaseTimer | None = None,
        *,
        scores: bool = False,
    ) -> Any:  # noqa: ANN401 - transformers is untyped
        """Run transformers' `generate` and return its output object.

        Args:
            pixels: f32[B,3,S,S].
            texts: Prompt or question of each image, or None for each. Shorter ones are padded, as transformers' processor does.
            config: Settings of the search.
            timer: Called with the name and seconds of each phase.
            scores: Also return the scores of every step.
        """
        given = [text for text in texts if text is not None]
        inputs = self._tokenizer(given, padding=True, return_tensors="pt", return_token_type_ids=False).to(self._device) if given else {}
        self._timer = _HookTimer(timer) if timer else None
        try:
            return self.model.generate(
                pixel_values=pixels,
                **inputs,
                **transformers_settings(config),
                use_cache=True,
                return_dict_in_generate=True,
                output_scores=scores,
            )
        finally:
            self._timer = None

    @torch.inference_mode()
    def reference_log_probabilities(self, image: ImageInput, question: str | None, texts: Sequence[str]) -> list[Float32]:
        """Return the teacher-forced log-probabilities f32[T,V] of each text; see `TextGenerator.reference_log_probabilities`."""
        config = self.model.config.text_config
        ids = [self.text_ids(text) for text in texts]
        width = max(map(len, ids)) - 1
        inputs = torch.full((len(ids), width), config.pad_token_id)
        attended = torch.zeros(len(ids), width, dtype=torch.int64)
        for row, sequence in enumerate(ids):
            inputs[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
            attended[row, : len(sequence) - 1] = 1
        states = self._states(image, question).expand(len(ids), -1, -1)
        logits = self.model.text_decoder(
            input_ids=inputs.to(self._device), attention_mask=attended.to(self._device), encoder_hidden_states=states
        ).logits
        log_probabilities = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return [log_probabilities[row, : len(sequence) - 1] for row, sequence in enumerate(ids)]

    def _states(self, image: ImageInput, question: str | None) -> torch.Tensor:
        """Return the states f32[1,N,D] that the decoder attends to."""
        return self.model.vision_model(self._pixels(image)).last_hidden_state

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def text_ids(self, caption: str) -> list[int]:
        """Return the token ids [DEC] words [SEP], cut to the model's number of positions."""
        config = self.model.config.text_config
        words = self._tokenizer(caption).input_ids[1:-1]
        return [config.bos_token_id, *words, config.sep_token_id][: config.max_position_embeddings]

    def _pixels(self, image: ImageInput) -> torch.Tensor:
        # Without input_data_format, transformers takes an image 1 or 3 pixels high for one with its channels first.
        return self._images(read_image(image), input_data_format="channels_last", return_tensors="pt").pixel_values.to(self._device)

    def _trim(self, ids: list[int]) -> list[int]:
        """Remove the padding after the end token."""
        end = self.model.config.text_config.sep_token_id
        first = 1  # the first token of a caption is never the end token
        return ids[: ids.index(end, first) + 1] if end in ids[first:] else ids


def readable_pixels(
    images: Sequence[ImageInput], read: Callable[[ImageInput], torch.Tensor]
) -> tuple[list[torch.Tensor], list[str | None]]:
    """Return the pixels of the images that can be read, and for each image its error or None."""
    pixels: list[torch.Tensor] = []
    errors: list[str | None] = []
    for image in images:
        try:
            pixels.append(read(image))
            errors.append(None)
        except ToolkitError as error:
            errors.append(str(error))
    return pixels, errors


def transformers_settings(config: GenerationConfig) -> dict[str, Any]:
    """Return the arguments of transformers' `generate` for settings."""
    settings = {name: value or None if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    if settings["bad_words_ids"]:
        settings["bad_words_ids"] = [list(word) for word in config.bad_words_ids]
    for name in ("seed", *(() if config.do_sample else ("temperature", "top_k", "top_p"))):
        del settings[name]
    del settings["max_length" if config.max_new_tokens is not None else "max_new_tokens"]
    return settings


class _HookTimer:
    """Measures phases in the model's forward hooks and reports their seconds."""

    def __init__(self, timer: PhaseTimer) -> None:
        self._report, self._phase, self._started = timer, "first_token", perf_counter()

    def __call__(self, phase: str) -> None:
        now = perf_counter()
        self._report(phase, now - self._started)
        self._started = now

    def token(self) -> None:
        self(self._phase)
        self._phase = "token"


def load_transformers_model(
    directory: Path, dtype: torch.dtype, *, tied: bool, weights: Weights | None = None, model: str = "BlipForConditionalGeneration"
) -> Any:  # noqa: ANN401
    """Load transformers' model of a checkpoint, from its files or from weights by transformers' names.

    transformers 4.57 replaces an untied head by the word embeddings when it loads a checkpoint, unless the configuration forbids it.

    Args:
        directory: Folder of the checkpoint, with its configuration.
        dtype: Precision of the model.
        tied: False: the head keeps its own weights.
        weights: Weights by transformers' names; None: those of the folder.
        model: Name of the class in transformers.
    """
    config = transformers.BlipConfig.from_pretrained(directory)
    if not tied:
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    source = directory if weights is None else None
    # transformers 5 has two biases in an untied head, and replaces a missing one by zeros.
    state = None if weights is None else {**weights, DECODER_BIAS: weights[BIAS]}
    return getattr(transformers, model).from_pretrained(source, config=config, state_dict=state, dtype=dtype)


def untied_model(directory: Path, weights: Weights, model: str = "BlipForConditionalGeneration") -> Any:  # noqa: ANN401
    """See `FamilyAdapter.untied_model`."""
    copies = {name: each.clone() for name, each in weights.items()}
    return load_transformers_model(directory, torch.float32, tied=False, weights=copies, model=model)


def pillow_processor() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the class of the Pillow-based image processor.

    transformers 5 calls it `BlipImageProcessorPil`; its `BlipImageProcessor` needs torchvision.
    """
    return getattr(transformers, "BlipImageProcessorPil", None) or transformers.BlipImageProcessor
