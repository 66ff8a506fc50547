"""Read data sets in the format of VQAv2: a file of questions and a file of answers (Goyal et al. 2017).

    questions    {"questions": [{"question_id", "image_id", "question"}]}
    annotations  {"annotations": [{"question_id", "answers": [{"answer"}]}]}

The file of answers is beside that of questions, with the names of VQAv2: `questions.json` and `annotations.json`, or
`v2_OpenEnded_mscoco_val2014_questions.json` and `v2_mscoco_val2014_annotations.json`. The id of an image is the number at the end of its
file's name, or the name itself.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.gate.labelled_image import LabelledImage
from runtimes.errors import DatasetError
from toolkit.image_paths import in_folder


def read_questions(parsed: Mapping[str, Any], file: Path, images: Path | None) -> list[LabelledImage]:
    """Return one image for each question, with its answers; without answers if there is no file of them.

    Args:
        parsed: Content of the file of questions.
        file: Its path.
        images: Folder of the images; None for the folder of the file.

    Raises:
        DatasetError: The file of answers cannot be read, or an image of a question is not in the folder.
        KeyError, TypeError, AttributeError: The files are not in the format of VQAv2.
    """
    answers = _answers(annotations_of(file))
    folder = images or file.parent
    by_number = {int(match[0]): path for path in in_folder(folder) if (match := re.search(r"\d+$", path.stem))}
    samples = []
    for question in parsed["questions"]:
        image = question["image_id"]
        path = folder / image if isinstance(image, str) else by_number.get(image)
        if path is None:
            raise DatasetError(str(file), f"its image {image} is not in {folder}; name the folder of the images with --images")
        samples.append(LabelledImage(path, answers.get(question["question_id"], ()), str(question["question"]).strip()))
    return samples


def annotations_of(file: Path) -> Path:
    """Return the path of the answers that belong to a file of questions."""
    return file.with_name(file.name.replace("OpenEnded_", "").replace("questions", "annotations"))


def _answers(file: Path) -> dict[Any, tuple[str, ...]]:
    """Return question id → answers."""
    if not file.is_file():
        return {}
    try:
        parsed = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(str(file), f"cannot be read: {error}") from error
    return {
        annotation["question_id"]: tuple(str(answer["answer"]).strip() for answer in annotation["answers"])
        for annotation in parsed["annotations"]
    }
