"""Write the section `sensitivity` of the results on quality from the output of `toolkit sensitivity --json`.

python -m tests.quality.sensitivity RESULT.json --output build/quality/sensitivity.json
"""

import argparse
import json
from pathlib import Path

from tests.quality.sections import write_section

NOTES = (
    "Only: this layer alone is quantized. Except: every other layer is quantized. The formats are emulated in the torch module.",
    "Seconds are saved per image compared with FP32, for 11 tokens.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text(encoding="utf-8"))
    rows = [
        {"case": result["recipe"], "layer": row["layer"], "component": row["component"], "mode": mode, **row[mode], **costs}
        for row in result["layers"]
        for mode, costs in (("only", {"bytes": row["bytes"], "seconds": row["seconds"]}), ("except", {}))
    ]
    dataset, _, part = result["dataset"].partition(" (")  # such as "sample (8 of 21)"
    limit = f" --limit {result['images']}" if part else ""
    write_section(
        arguments.output,
        checkpoint=result["checkpoint"],
        dataset=dataset,
        images=result["images"],
        command=f"toolkit sensitivity models/{result['checkpoint']} --recipe {result['recipe']} --dataset {dataset}{limit}",
        rows=rows,
        notes=NOTES,
    )


if __name__ == "__main__":
    main()
