"""What a case returned for one image, and the numbers that scores are computed from: a part of a record."""

from dataclasses import dataclass


def require_at_least(minimum: int, value: object, *names: str) -> None:
    """Raise ValueError if a number is below the minimum; None is accepted."""
    if too_small := [name for name in names if (number := getattr(value, name)) is not None and number < minimum]:
        raise ValueError(f"{', '.join(too_small)} must be {minimum} or more")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How a matcher compares one image with texts. Images that cannot be read are left out, with their texts."""

    text_rank: int
    """Number of texts of other images with a higher similarity than the best one of the image's own texts."""
    image_ranks: tuple[int, ...]
    """Per own text: number of images with a higher similarity than this one."""
    best_images: tuple[tuple[int, ...], ...]
    """Per own text: indices in the dataset of the images with the highest similarity, the best first; at most 5."""
    similarities: tuple[float, ...]
    """Cosines of the embeddings: with the image's own texts, then with the texts that every image is compared with."""
    probabilities: tuple[float, ...]
    """Probabilities of the matching head with the same texts."""


@dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """The text about one image, and the numbers that scores are computed from."""

    file: str
    """Name of the image file."""
    caption: str
    """Generated text; of a matcher, the reference text of any image with the highest similarity."""
    tokens: int
    """Number of generated tokens; 0 of a matcher."""
    error: str | None = None
    """Why the image has no caption; None if it has a caption."""
    matches: tuple[int, int, int, int] | None = None
    """BLEU: matching n-grams, clipped, for n = 1 to 4."""
    totals: tuple[int, int, int, int] | None = None
    """BLEU: n-grams of the caption, for n = 1 to 4."""
    hypothesis_length: int | None = None
    """BLEU: words of the caption."""
    reference_length: int | None = None
    """BLEU: words of the closest reference."""
    cider: float | None = None
    """CIDEr-D of the image."""
    rouge_l: float | None = None
    """ROUGE-L of the image, 0 to 1."""
    log_probability: float | None = None
    """Teacher-forced log-probability of the references, summed, in nat."""
    scored_tokens: int | None = None
    """Number of tokens in `log_probability`."""
    kl_divergence: float | None = None
    """KL(FP32 || case) of the next-token distributions at the references' tokens, summed, in nat; None if it was not measured."""
    question: str | None = None
    """What the text answers; None for other tasks."""
    vqa_accuracy: float | None = None
    """Accuracy of the answer as VQAv2 defines it, 0 to 1."""
    retrieval: Retrieval | None = None
    """Of a matcher."""

    def __post_init__(self) -> None:
        """Raise ValueError if only some of the scores are given."""
        counts = (self.matches, self.totals, self.hypothesis_length, self.reference_length)
        if len({count is None for count in counts}) > 1:
            raise ValueError("matches, totals and both lengths must be given together")
        if self.log_probability is not None and self.scored_tokens is None:
            raise ValueError("log_probability needs scored_tokens")
        if self.kl_divergence is not None and self.scored_tokens is None:
            raise ValueError("kl_divergence needs scored_tokens")
        require_at_least(1, self, "scored_tokens")
