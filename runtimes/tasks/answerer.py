"""The `Answerer` that `runtimes.load` returns for the task "vqa" (visual question answering)."""

import zlib
from collections.abc import Generator, Iterator, Sequence, Sized
from functools import partial
from time import perf_counter
from typing import Any, Unpack, cast

import numpy as np

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.decoding.search import PhaseTimer, by_length
from runtimes.decoding.session import Float32, Int64, QuestionSession, State, require
from runtimes.errors import RequestError
from runtimes.images.reading import ImageInput, Images, each_image, is_image
from runtimes.tasks.questions import Question, Questions, questions_of
from runtimes.tasks.results import Answer
from runtimes.tasks.text_generator import DecoderRun, TextGenerator


class Answerer(TextGenerator[Question, Answer]):
    """A loaded artifact that answers questions about images. The questions about one image share a run of the vision encoder.

    Several threads may use it at once. As a context manager, it is closed at the end of the block.
    """

    ARGUMENT = "question"

    def answer(
        self,
        images: Images,
        questions: Questions,
        *,
        batch_size: int = 1,
        workers: int = 0,
        generation_config: GenerationConfig | None = None,
        log_probabilities: bool = False,
        timer: PhaseTimer | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Answer]:
        """Answer one question or several about one image or several.

        An image that cannot be read yields an `Answer` with `error` for each of its questions.

        Args:
            images: See `Captioner.caption`.
            questions: A question that is asked of every image; or for each image, a question or a list of questions. For a single image,
                its question or a list of them. `itertools.repeat([...])` asks the same questions of every image.
            batch_size: Images per run of the vision encoder. Answers do not depend on it, except for `pytorch-int8`.
            workers: See `Captioner.caption`.
            generation_config: See `Captioner.caption`.
            log_probabilities: See `Captioner.caption`.
            timer: See `Captioner.caption`. "encode" is the time of the vision encoder, "question" that of the question encoder.
            options: See `Captioner.caption`.

        Returns:
            One `Answer` per image and question: the answers of the first image, in the order of its questions, then those of the next.

        Raises:
            RequestError: An argument is invalid or exceeds a limit of the artifact, a question is empty, too long or not text, or the model
                is closed.
            EngineError, OutOfMemoryError, UnavailableError: See `Captioner.caption`.
        """
        return list(
            self.stream(
                images,
                questions,
                batch_size=batch_size,
                workers=workers,
                generation_config=generation_config,
                log_probabilities=log_probabilities,
                timer=timer,
                **options,
            )
        )

    def stream(
        self,
        images: Images,
        questions: Questions,
        *,
        batch_size: int = 1,
        workers: int = 0,
        generation_config: GenerationConfig | None = None,
        log_probabilities: bool = False,
        timer: PhaseTimer | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[Answer, None, None]:
        """Answer questions as `answer` does, and yield the answers of each batch of images when it is done; see `Captioner.stream`."""
        groups = self._questions(images, questions)
        prompt = len(self.tokenizer.prompt_ids(None))
        config = self._config([prompt], generation_config, options, batch_size, workers, log_probabilities=log_probabilities)
        timer = timer or (lambda phase, seconds: None)
        return self._stream(each_image(images), groups, config, batch_size, workers, timer, log_probabilities=log_probabilities)

    def score(self, images: Images, questions: Questions, *, answers: Sequence[str] | Sequence[Sequence[str]]) -> list[Float32]:
        """Return the natural-log probability of given answers by teacher forcing, end token included.

        The answer with the largest value is the answer of BLIP's ranking (Li et al. 2022, section 4.3).

        Args:
            images: See `answer`. An iterator is consumed first.
            questions: See `answer`.
            answers: Answers that are scored for every question; or a list of answers for each question, in the order of `answer`'s results.

        Returns:
            For each question, f32[K] with K its number of answers, in order.

        Raises:
            ImageReadError: An image cannot be read.
            RequestError: See `answer`; or the numbers of questions and lists differ, or a question has no answer.
            EngineError, OutOfMemoryError: See `answer`.
        """
        sources = list(each_image(images))
        groups = self._questions(images if is_image(images) else sources, questions)
        each_question = [(image, group) for image, group in zip(sources, groups, strict=False)]
        count = sum(len(group) for _, group in each_question)
        shared = all(isinstance(answer, str) for answer in answers)
        lists = [list(answers)] * count if shared else [list(each) for each in answers]
        if len(lists) != count:
            raise RequestError(f"{count} questions but answers for {len(lists)}")
        scores: list[Float32] = []
        for image, group in each_question:
            encoded = self._encode(self._pixels(image)[None])
            for question in group:
                texts = cast("list[str]", lists[len(scores)])
                scores.append(self._totals(texts, self._log_probabilities(partial(self._ask_one, encoded, question), texts)))
        return scores

    def token_log_probabilities(self, image: ImageInput, question: str, *, answers: Sequence[str]) -> list[Float32]:
        """Return the natural-log probabilities of the whole vocabulary at every token of given answers, by teacher forcing.

        Args:
            image: One image.
            question: One question about it.
            answers: Answers to the question.

        Returns:
            For each answer, f32[T,V] with T its number of tokens, end token included, and V the size of the vocabulary.

        Raises:
            ImageReadError, RequestError, EngineError, OutOfMemoryError: See `score`.
        """
        ((checked,),) = self._questions(image, [question])
        pixels = self._pixels(image)[None]
        return self._log_probabilities(lambda: self._ask_one(self._encode(pixels), checked), answers)

    def generate(self, images: Sequence[ImageInput], questions: Sequence[str | None], **arguments: Any) -> list[Answer]:  # noqa: ANN401
        """See `TextGenerator.generate`."""
        return self.answer(images, cast("Sequence[str]", questions), **arguments)

    def reference_log_probabilities(self, image: ImageInput, question: str | None, texts: Sequence[str]) -> list[Float32]:
        """See `TextGenerator.reference_log_probabilities`."""
        return self.token_log_probabilities(image, cast("str", question), answers=texts)

    def _questions(self, images: Images, questions: Questions) -> Iterator[list[Question]]:
        single = is_image(images)
        count = 1 if single else len(images) if isinstance(images, Sized) else None
        limit = self.manifest.model.max_positions
        return questions_of(questions, count, single=single, tokenizer=self.tokenizer, limit=limit)

    def _result(self, query: Question, **fields: Any) -> Answer:  # noqa: ANN401
        return Answer(question=query.text, **fields)

    def _key(self, pixels: Float32, query: Question) -> int:
        return zlib.crc32(np.array(query.ids).tobytes(), super()._key(pixels, query))

    def _runs(self, pixels: Float32, queries: Sequence[tuple[int, Question]], timer: PhaseTimer) -> Iterator[DecoderRun]:
        encoded = self._encode(pixels, timer)
        images = np.array([image for image, _ in queries])
        for indices, ids in by_length([question.ids for _, question in queries]):
            prompts = np.array([self.tokenizer.prompt_ids(None)] * len(indices))
            yield DecoderRun(queries=indices, prompts=prompts, begin=partial(self._ask, encoded, images[indices], ids, timer))

    def _ask(self, encoded: State, images: Int64, ids: Int64, timer: PhaseTimer = lambda phase, seconds: None) -> State:
        started = perf_counter()
        state = cast("QuestionSession", require(self.session, "ask")).ask(encoded, images, ids)
        timer("question", perf_counter() - started)
        return state

    def _ask_one(self, encoded: State, question: Question) -> State:
        return self._ask(encoded, np.zeros(1, dtype=np.int64), np.array([question.ids]))
