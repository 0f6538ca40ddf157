"""``fdeploy explain`` knows every error, and says what helps."""

from __future__ import annotations

import pytest

from fastai_deploy.cli.explain import advice, error_kinds, explain, meaning
from fastai_deploy.errors import UsageError
from tests.conftest import Fdeploy


def test_every_error_has_advice_and_no_other_has() -> None:
    assert set(advice()) == set(error_kinds())


@pytest.mark.parametrize("code", sorted(error_kinds()))
def test_an_explanation_is_readable(code: str) -> None:
    found = explain(code)
    assert found.meaning == meaning(error_kinds()[code])
    assert found.meaning.endswith(".")
    assert found.advice.endswith(".")
    assert "``" not in " ".join(found.lines())


@pytest.mark.parametrize("number", [0, 1, 15, 130, 141])
def test_an_exit_code_that_is_no_error(number: int) -> None:
    assert explain(str(number)).errors == ()


def test_an_exit_code_names_its_errors() -> None:
    assert [each.partition(":")[0] for each in explain("9").errors] == [
        *("deploy", "port-taken", "server-died", "stack-failed")
    ]


def test_an_unknown_code_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as refused:
        explain("nothing")
    assert "record-stale" in refused.value.hint


def test_the_command(fdeploy: Fdeploy) -> None:
    assert "fdeploy config shows every setting" in fdeploy.ok("explain", "settings").stdout
    assert fdeploy("explain", "99").status == 2
