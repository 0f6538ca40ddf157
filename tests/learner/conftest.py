from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastai_deploy.bundle import Bundle
from fastai_deploy.learner.convert import convert
from fastai_deploy.progress import silent
from tests.learner.files import learner, write_goldens

LEARNERS = Path(__file__).parent.parent / "learners"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Each learner converted once, with all of its goldens."""
    folder = tmp_path_factory.mktemp("bundles")
    made: dict[str, Bundle] = {}

    def bundle(name: str) -> Bundle:
        if name not in made:
            golden = write_goldens(name, folder / f"{Path(name).name}.jsonl")
            made[name] = convert(learner(name), folder / Path(name).name, golden=golden,
                                 tolerance=1e-4, name="reviews", report=silent)  # fmt: skip
        return made[name]

    return bundle
