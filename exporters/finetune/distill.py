"""Distill the FP32 teacher into the student: minimize the mean KL(teacher || student) over the tokens of captions, teacher-forced.

KL to the logits of the teacher is used rather than the likelihood of the captions: it needs no labels of the original task, and works with
partial data (QAD, arXiv 2601.20088). The learning rate rises linearly, then falls with a cosine.

Axes: B images, R rows, T tokens, V vocabulary.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exporters.finetune.examples import Rows, TrainingExample, batches, rows_of
from exporters.finetune.image_states import ImageStates
from exporters.finetune.models import Models
from exporters.finetune.training_state import TrainingState

WARM_UP = 0.05
"""Part of the steps in which the learning rate rises."""
FINAL_RATE = 0.01
"""Last learning rate, as a part of the largest."""
EVALUATIONS_PER_EPOCH = 2
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a run."""

    epochs: int = 2
    learning_rate: float = 3e-5
    batch_images: int = 16
    seed: int = 0
    patience: int = 3
    """Evaluations without a smaller KL after which the run stops."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is."""

    step: int
    steps: int
    loss: float | None
    """Mean KL of the last batch; None before the first."""
    held_out_kl: float | None
    """Mean KL of the held-out part, if it was just measured."""
    seconds_left: float | None


def bfloat16_works(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than FP32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.10
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def sum_of_kl(teacher: Tensor, student: Tensor, counted: Tensor) -> tuple[Tensor, int]:
    """Return the sum of KL(teacher || student) over the counted tokens, and their number.

    Args:
        teacher: Log-probabilities f32[R,T,V].
        student: Log-probabilities f32[R,T,V].
        counted: bool[R,T].
    """
    chosen = counted.to(teacher.device)
    expected, actual = teacher[chosen], student[chosen]
    return (expected.exp() * (expected - actual)).sum(), len(expected)


class Distiller:
    """Trains the student of `Models` on examples."""

    def __init__(
        self,
        models: Models,
        examples: Sequence[TrainingExample],
        pixels: Callable[[Sequence[int]], Tensor],
        stored: tuple[ImageStates, ImageStates | None],
        settings: TrainingSettings,
    ) -> None:
        """Prepare a run.

        Args:
            models: Teacher and student.
            examples: All examples.
            pixels: Indices of examples → pixels f32[B,3,S,S].
            stored: Image states of the teacher, and those of the student if its encoder is not trained.
            settings: Settings of the run.
        """
        self._models, self._examples, self._pixels, self._settings = models, examples, pixels, settings
        self._teacher_states, self._student_states = stored
        self._pad_id = models.checkpoint.tokenizer.pad_id
        self._optimizer = torch.optim.AdamW(models.trained.values(), lr=settings.learning_rate, weight_decay=0.0)
        self._low_precision = bfloat16_works(models.device)

    def train(
        self,
        training: Sequence[int],
        held_out: Sequence[int],
        state: TrainingState,
        save: Callable[[TrainingState], None],
        on_step: Callable[[Progress], None],
    ) -> None:
        """Run the steps that are left, and leave the best parameters in `state.best_parameters`.

        Args:
            training: Indices of the training part.
            held_out: Indices of the held-out part.
            state: A new state, or that of a stopped run; modified.
            save: Called with the state after each evaluation.
            on_step: Called at the start and after each step.
        """
        settings, started = self._settings, time.monotonic() - state.seconds
        per_epoch = math.ceil(len(training) / settings.batch_images)
        steps = per_epoch * settings.epochs
        every = max(1, per_epoch // EVALUATIONS_PER_EPOCH)
        self._restore(state)
        if not state.history:
            self._evaluate(held_out, state)
            save(self._kept(state, started))
        on_step(Progress(step=state.step, steps=steps, loss=None, held_out_kl=state.history[-1][1], seconds_left=None))
        first, began = state.step, time.monotonic()
        while state.step < steps and not self._stopped(state):
            epoch, position = divmod(state.step, per_epoch)
            if position == 0 or state.step == first:
                order = batches(self._examples, training, settings.batch_images, settings.seed, epoch)
            for group in self._optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate(state.step, steps)
            loss = self._step(order[position])
            state.step += 1
            evaluated = state.step % every == 0 or state.step == steps
            if evaluated:
                self._evaluate(held_out, state)
                save(self._kept(state, started))
            left = (time.monotonic() - began) / (state.step - first) * (steps - state.step)
            on_step(
                Progress(
                    step=state.step, steps=steps, loss=loss, held_out_kl=state.history[-1][1] if evaluated else None, seconds_left=left
                )
            )

    def _step(self, batch: Sequence[int]) -> float:
        """Train on one batch; return its mean KL."""
        models, rows = self._models, self._rows(batch)
        with torch.no_grad():
            teacher = models.log_probabilities(models.teacher, self._teacher_states[batch], rows.token_ids)
        with torch.autocast(models.device.type, torch.bfloat16, enabled=self._low_precision):
            student = models.log_probabilities(models.student, self._states(batch), rows.token_ids)
        total, tokens = sum_of_kl(teacher, student, rows.counted)
        self._optimizer.zero_grad(set_to_none=True)
        (total / tokens).backward()
        torch.nn.utils.clip_grad_norm_(models.trained.values(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        return float(total.detach()) / tokens

    @torch.no_grad()
    def _evaluate(self, held_out: Sequence[int], state: TrainingState) -> None:
        """Measure the KL of the held-out part in FP32, and keep the parameters if it is the smallest so far."""
        models, total, tokens = self._models, 0.0, 0
        for start in range(0, len(held_out), self._settings.batch_images):
            batch = held_out[start : start + self._settings.batch_images]
            rows = self._rows(batch)
            teacher = models.log_probabilities(models.teacher, self._teacher_states[batch], rows.token_ids)
            student = models.log_probabilities(models.student, self._states(batch), rows.token_ids)
            part, count = sum_of_kl(teacher, student, rows.counted)
            total, tokens = total + float(part), tokens + count
        state.history.append((state.step, total / tokens))
        if total / tokens < state.best_kl:
            state.best_kl, state.best_step = total / tokens, state.step
            state.best_parameters = {name: parameter.detach().clone() for name, parameter in models.trained.items()}

    def _states(self, batch: Sequence[int]) -> Tensor:
        """Return the student's image states of a batch."""
        if self._student_states is not None:
            return self._student_states[batch]
        return self._models.states(self._models.student, self._pixels(batch))

    def _rows(self, batch: Sequence[int]) -> Rows:
        return rows_of([self._examples[index] for index in batch], self._pad_id)

    def _stopped(self, state: TrainingState) -> bool:
        """Return whether the last evaluations brought no smaller KL."""
        best = next(position for position, (step, _) in enumerate(state.history) if step == state.best_step)
        return len(state.history) - 1 - best >= self._settings.patience

    def _restore(self, state: TrainingState) -> None:
        """Set parameters and optimizer to those of a stopped run."""
        with torch.no_grad():
            for name, values in state.parameters.items():
                self._models.trained[name].copy_(values)
        if state.optimizer:
            self._optimizer.load_state_dict(state.optimizer)

    def _kept(self, state: TrainingState, started: float) -> TrainingState:
        """Put the current parameters, the optimizer's state and the time into a state, and return it."""
        state.parameters = {name: parameter.detach() for name, parameter in self._models.trained.items()}
        state.optimizer = self._optimizer.state_dict()
        state.seconds = time.monotonic() - started
        return state


def rate(step: int, steps: int) -> float:
    """Return the learning rate of a step, as a part of the largest."""
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    return FINAL_RATE + (1 - FINAL_RATE) * falling
