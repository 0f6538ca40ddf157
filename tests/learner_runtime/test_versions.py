"""Choosing the Python and the versions from the file, the installation and the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastai_deploy.environments.requirements import missing_here, parse_requirements
from fastai_deploy.errors import UsageError
from fastai_deploy.learner.examine.anatomy import Anatomy, examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.serve_original import (
    check_definitions,
    main_names,
    python_for,
    requirements_here,
)
from tests.learner.files import CONVERTIBLE, learner

ROBERTA, CLOUDPICKLE = CONVERTIBLE[0], CONVERTIBLE[4]
HERE = {"fastai": "2.8.12", "torch": "2.13.0+cpu", "transformers": "5.23.0", "numpy": "2.4.6",
        "fastcore": "2.2.41"}  # fmt: skip
OWNERS = {"fastai": ["fastai"], "transformers": ["transformers"], "torch": ["torch"]}


def anatomy(name: str) -> Anatomy:
    with open_archive(learner(name)) as (source, archive):
        return examine(archive, source.size)


@pytest.mark.parametrize(
    ("needed", "stated", "here", "chosen"),
    [
        (None, None, "3.12", "3.12"),
        (None, "3.8", "3.12", "3.8"),
        ("3.9", None, "3.12", "3.9"),
        ("3.11 or 3.12", None, "3.12", "3.12"),
        ("3.11 or 3.12", "3.11", "3.12", "3.11"),
        ("3.8 to 3.10", None, "3.12", "3.10"),
        ("3.11 or newer", None, "3.13", "3.13"),
        ("3.11 or newer", None, "3.10", "3.11"),
    ],
)
def test_the_python(needed: str | None, stated: str | None, here: str, chosen: str) -> None:
    found = replace(anatomy(ROBERTA), python=needed)
    assert python_for(found, stated, here) == chosen


def test_a_python_that_cannot_run_the_bytecode() -> None:
    found = replace(anatomy(CLOUDPICKLE), python="3.11")
    with pytest.raises(UsageError, match=r"bytecode for Python 3\.11, not 3\.9"):
        python_for(found, "3.9", "3.11")


def test_the_versions_that_are_installed_here() -> None:
    found = requirements_here(anatomy(CLOUDPICKLE), "3.11", here="3.11", find=HERE.get,
                              distributions=OWNERS)  # fmt: skip
    assert found.text.splitlines() == [
        "fastai==2.8.12", "fastcore==2.2.41", "numpy==2.4.6", "torch==2.13.0",
        "transformers==5.23.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "here", "message"),
    [
        (CLOUDPICKLE, {"fastai": None}, "3.11", "fastai is not installed here"),
        (CLOUDPICKLE, {"fastai": "1.0.61"}, "3.11", r"and 1\.0\.61 is installed"),
        (ROBERTA, {}, "3.11", r"it needs fastai 1, and 2\.8\.12 is installed"),
        (CLOUDPICKLE, {}, "3.12", r"needs Python 3\.11, and fdeploy runs on 3\.12"),
    ],
)
def test_what_to_state(name: str, changes: dict[str, str | None], here: str, message: str) -> None:
    installed: dict[str, str | None] = {**HERE, **changes}
    with pytest.raises(UsageError, match=message) as caught:
        requirements_here(anatomy(name), "3.11", here=here, find=installed.get, distributions={})
    assert "fastai==..." in caught.value.hint


def test_names_in_main() -> None:
    names = main_names(anatomy(ROBERTA))
    assert names == ("CustomTransformerModel", "TransformersBaseTokenizer", "TransformersVocab")
    assert main_names(anatomy(CLOUDPICKLE)) == ()
    with pytest.raises(UsageError, match="CustomTransformerModel"):
        check_definitions(anatomy(ROBERTA), None)
    with pytest.raises(UsageError, match="not a valid module name"):
        check_definitions(anatomy(ROBERTA), Path("model-def.py"))
    check_definitions(anatomy(CLOUDPICKLE), None)


def test_requirements_are_pinned() -> None:
    text = "# learner\nfastai==2.8.12\n\ntorch == 2.13.0+cpu  # a build\nspacy[lookups]==3.8.2\n"
    found = parse_requirements(text, "requirements.txt")
    assert found.pins == (("fastai", "2.8.12"), ("torch", "2.13.0+cpu"), ("spacy", "3.8.2"))
    assert found.text == "fastai==2.8.12\ntorch == 2.13.0+cpu\nspacy[lookups]==3.8.2\n"


@pytest.mark.parametrize(
    "line",
    ["fastai", "fastai>=2", "fastai==2.*", "-e .", "-r other.txt", "x @ file:///x.whl",
     "--index-url https://x", "fastai==2.8 ; os_name == 'posix' --hash=sha256:0"],
)  # fmt: skip
def test_what_is_not_pinned_is_refused_by_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"r\.txt, line 2: .* is not pinned"):
        parse_requirements(f"torch==2.13.0\n{line}\n", "r.txt")
    with pytest.raises(UsageError, match="lists no packages"):
        parse_requirements("# nothing\n", "r.txt")


def test_what_is_missing_here() -> None:
    wanted = parse_requirements("torch==2.13.0\nfastai==2.8.12\nspacy==3.8.2\nnumpy==1.0\n", "r")
    assert missing_here(wanted, HERE.get) == ("spacy==3.8.2", "numpy==1.0")
    assert missing_here(parse_requirements("torch==2.13.0+cu128\n", "r"), HERE.get)
