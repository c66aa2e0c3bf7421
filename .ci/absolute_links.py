"""README.md as a package index shows it, where nothing lies beside it: links and pictures that lead to the repository.

    python .ci/absolute_links.py https://github.com/OWNER/NAME TAG

changes README.md in place, before a distribution is built. In the repository links are relative, so that they lead to
the same version in every clone and fork.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def absolute(text: str, repository: str, tag: str) -> str:
    """The text with every relative link, outside of code, at `tag` of `repository`."""

    def lead(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository}/{kind}/{tag}/{target})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    link = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?:|#|mailto:)([^()\s]+)\)")
    return "".join(part if part.startswith("```") else link.sub(lead, part) for part in parts)


if __name__ == "__main__":
    README.write_text(absolute(README.read_text(), sys.argv[1].rstrip("/"), sys.argv[2]))
