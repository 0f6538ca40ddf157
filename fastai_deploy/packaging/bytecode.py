"""Compiles Python sources for a container, which would otherwise compile them at every start."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path, PurePosixPath

from fastai_deploy.errors import FileError


def compile_folder(
    python: Path, folder: Path, runs_in: str, *, checked: bool
) -> dict[PurePosixPath, Path]:
    """Compile the sources below a folder, which will be at ``runs_in``, with an interpreter.

    Returns the files of bytecode by the path that Python gives them, relative to the folder; a
    source that does not compile has none. The same sources make the same bytes. ``checked``: Python
    compares the bytecode with its source before it uses it (PEP 552). Nothing of the sources is
    run. Raises FileError if nothing compiles.
    """
    mode = "checked-hash" if checked else "unchecked-hash"
    ran = subprocess.run(
        [
            *(str(python), "-I", "-m", "compileall", "-q", "--invalidation-mode", mode),
            *("-s", str(folder), "-p", runs_in, str(folder)),
        ],
        check=False,  # what does not compile is left as source
        capture_output=True,
        text=True,
        errors="replace",
    )
    found = sorted(folder.rglob("*.pyc"))
    if not found and any(folder.rglob("*.py")):
        said = ran.stderr.strip() or ran.stdout.strip() or f"exit code {ran.returncode}"
        raise FileError(
            f"{python} compiles nothing: {said.splitlines()[-1][:200]}",
            hint=f"check {python} -m compileall --help, and the space in {tempfile.gettempdir()}",
        )
    return {PurePosixPath(path.relative_to(folder).as_posix()): path for path in found}
