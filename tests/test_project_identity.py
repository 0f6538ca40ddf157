"""The name and the id of a project, written into fdeploy.toml beside what stands there."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from fastai_deploy.errors import SettingsError
from fastai_deploy.settings import load_settings
from fastai_deploy.settings.identity import add_to_project, new_id

BOTH = {"name": "demo", "id": "0123456789ab"}


def written(folder: Path, text: str | None, values: dict[str, str]) -> str:
    path = folder / "fdeploy.toml"
    if text is not None:
        path.write_bytes(text.encode())
    assert add_to_project(path, values) == values
    return path.read_bytes().decode()


def test_a_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    text = written(tmp_path, None, BOTH)
    assert text == '[project]\nname = "demo"\nid = "0123456789ab"\n'
    settings = load_settings(folder=tmp_path, environ={})
    assert (settings.project_name, settings.sections.project.id) == ("demo", "0123456789ab")


FORMS = {
    "a table": "# ours\n[api]\nrate = 1 # few\n\n[project]  # here\nregion = 'eu-central-1'\n",
    "another form of it": '[ "project" ]\nregion = "eu-central-1"\n[api]\nrate = 1\n',
    "its last line": "[api]\nrate = 1\n[project]",
    "none": "[api]\nrate = 1",
    "only a stage's": "[stages.prod.project]\nttl = '4h'\n",
    "dotted keys": "project.region = 'eu-central-1'\nproject.ttl = '4h'\n[api]\nrate = 1\n",
    "inline": "project = { region = 'eu-central-1' }\napi = {rate = 1}\n",
    "inline and empty": "project = {}\n",
    "in another line's text": '[package]\nname = """\n[project]\n"""\n[project]\n',
    "of another system": "[project]\r\nregion = 'eu-central-1'\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_only_the_keys_are_added(tmp_path: Path, form: str) -> None:
    before = FORMS[form]
    text = written(tmp_path, before, BOTH)
    expected = tomli.loads(before)
    expected.setdefault("project", {}).update(BOTH)
    assert tomli.loads(text) == expected
    assert ("\r\n" in text) == ("\r\n" in before)
    kept = iter(text.splitlines())
    if not form.startswith("inline"):  # every line is there, in order
        assert all(line in kept for line in before.splitlines())
        assert len(text.splitlines()) <= len(before.splitlines()) + 4


def test_one_key_is_one_line(tmp_path: Path) -> None:
    before = "[project]\nname = 'mine' # a comment\n\n[api]\nrate = 1\n"
    text = written(tmp_path, before, {"id": "0123456789ab"})
    assert text.splitlines() == [
        *("[project]", "name = 'mine' # a comment", 'id = "0123456789ab"', "", "[api]", "rate = 1")
    ]


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "fdeploy.toml"
    before = '[project]\nid = "ffffffffffff"\n'
    path.write_text(before)
    assert add_to_project(path, BOTH) == {"name": "demo", "id": "ffffffffffff"}
    assert path.read_text() == '[project]\nid = "ffffffffffff"\nname = "demo"\n'


def test_the_file_behind_a_link_is_written_with_its_permissions(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("[api]\nrate = 1\n")
    real.chmod(0o600)
    (tmp_path / "fdeploy.toml").symlink_to(real)
    add_to_project(tmp_path / "fdeploy.toml", BOTH)
    assert (tmp_path / "fdeploy.toml").is_symlink()
    assert "0123456789ab" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_a_form_that_takes_no_line_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "fdeploy.toml"
    path.write_text("alarms = {latency = nan}\n")  # which equals nothing, so nothing is proven
    with pytest.raises(SettingsError) as refused:
        add_to_project(path, BOTH)
    assert 'id = "0123456789ab"' in refused.value.hint
    assert path.read_text() == "alarms = {latency = nan}\n"


def test_two_at_once_agree_on_one_id(tmp_path: Path) -> None:
    """Two stages of one folder, made at the same time."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fastai_deploy.settings.identity import add_to_project, new_id\n"
        "sys.stdin.readline()\n"
        "print(add_to_project(Path('fdeploy.toml'), {'id': new_id()})['id'])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for each in running:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    ids = {each.communicate(timeout=60)[0].strip() for each in running}
    (id_,) = ids
    assert re.fullmatch("[0-9a-f]{12}", id_)
    assert tomli.loads((tmp_path / "fdeploy.toml").read_text()) == {"project": {"id": id_}}


def test_ids_differ() -> None:
    assert len({new_id() for _ in range(100)}) == 100
