"""The commands of examples/huggingface-folder do what its README says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import Fdeploy

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "huggingface-folder"


def commands() -> list[list[str]]:
    """The README's first block of commands, as words."""
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"(?m)^(?:    .+\n)+", page)[:1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_example(fdeploy: Fdeploy) -> None:
    shutil.copy(EXAMPLE / "make_folder.py", fdeploy.folder)
    made, inspect, up, invoke, teardown = commands()
    assert made[:2] == ["python", "make_folder.py"]
    subprocess.run([sys.executable, *made[1:]], cwd=fdeploy.folder, check=True)
    assert "verdict    convertible" in fdeploy.ok(*inspect[1:]).stdout
    fdeploy.ok(*up[1:])
    answer = fdeploy.ok(*invoke[1:], "--json").json
    assert answer["label"] == "positive"
    assert answer["score"] > 0.8
    fdeploy.ok(*teardown[1:], "--yes")
