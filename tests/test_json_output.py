"""The shape of --json is declared, shipped and current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from fastai_deploy.cli.commands import app
from fastai_deploy.cli.shapes import RESULTS, json_schema
from tests.conftest import ROOT, Fdeploy, result_of

SCHEMA = Path(ROOT, "fastai_deploy/cli/results.schema.json")


def test_every_command_has_a_shape() -> None:
    assert set(RESULTS) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_shipped_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema(), "make schema"


def test_a_result_of_another_shape_is_noticed() -> None:
    with pytest.raises(Exception, match="'advice' is a required property"):
        result_of(
            '{"schema": "fdeploy/1", "command": "explain", "result": '
            '{"code": "usage", "exit_code": 2, "meaning": "", "errors": []}}'
        )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_is_valid_in_every_encoding(fdeploy: Fdeploy, encoding: str) -> None:
    """Characters outside of the stream's encoding are escaped as JSON escapes them."""
    name = "r\u00e9\U0001f600\u2588.pkl"
    (fdeploy.folder / "fdeploy.toml").write_text(f'[model]\nlearner = "{name}"\n', encoding="utf-8")
    command = Fdeploy(fdeploy.folder, {"PYTHONIOENCODING": encoding}, fresh=True)
    found = command("config", "--json").json
    assert found["settings"]["model.learner"]["value"] == name


def test_people_read_stand_ins_where_the_encoding_lacks_a_character(fdeploy: Fdeploy) -> None:
    command = Fdeploy(fdeploy.folder, {"PYTHONIOENCODING": "ascii"}, fresh=True)
    (fdeploy.folder / "fdeploy.toml").write_text(
        '[model]\nlearner = "\u00e9\u2588.pkl"\n', encoding="utf-8"
    )
    shown = command("config").stdout
    assert '"\\xe9#.pkl"' in shown or '"\\u00e9\\u2588.pkl"' in shown
    refused = command("inspect")
    assert refused.status == 4
    assert "\\xe9#.pkl does not exist" in refused.stderr
