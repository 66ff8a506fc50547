"""The package's long description: README without what only works inside the repository, that is images and relative links."""

import re
from pathlib import Path

from setuptools import setup

IMAGE = re.compile(r"<!-- image [\w:-]+ -->\n.*?<!-- end -->\n+", re.DOTALL)
COMMENT = re.compile(r"<!-- .*? -->\n")
RELATIVE_LINK = re.compile(r"\[([^\[\]]+)\]\((?![a-z]+:)[^()\s]+\)")

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=RELATIVE_LINK.sub(r"\1", COMMENT.sub("", IMAGE.sub("", readme))),
    long_description_content_type="text/markdown",
)
