"""API keys: creating them, and which requests they admit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastai_deploy.errors import FileMissing, SettingsError
from fastai_deploy.targets.local.gateway.config import GatewayConfig, new_key
from fastai_deploy.targets.local.gateway.usage_plans import KeyRing


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name * 10}\n")
    return KeyRing([tmp_path / "one", tmp_path / "two"])


def test_new_keys_are_long_and_unique() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch("[A-Za-z0-9]{40}", key) for key in keys)


def test_a_key_is_known_by_an_id_that_is_not_the_key(ring: KeyRing) -> None:
    first, second = ring.identify("one" * 10), ring.identify("two" * 10)
    assert first is not None
    assert second is not None
    assert first != second
    assert "one" not in first


@pytest.mark.parametrize(
    "wrong",
    [None, "", "one", "one" * 9, "one" * 11, "ONE" * 10, "\ud800", "é" * 30, "one" * 10 + " "],
)
def test_nothing_else_is_a_key(ring: KeyRing, wrong: str | None) -> None:
    assert ring.identify(wrong) is None


def test_a_change_of_a_file_counts_at_once(ring: KeyRing, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("new" * 10)
    assert ring.identify("one" * 10) is None
    assert ring.identify("new" * 10) is not None
    (tmp_path / "one").unlink()
    assert ring.identify("new" * 10) is None


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_an_empty_file_lets_nobody_in(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    ring = KeyRing([tmp_path / "key"])
    assert ring.identify(content) is None
    assert ring.identify("") is None
    assert ring.identify(None) is None


def test_a_missing_key_file_is_reported_at_start(ring: KeyRing, tmp_path: Path) -> None:
    ring.check()
    (tmp_path / "two").unlink()
    with pytest.raises(FileMissing):
        ring.check()


def test_the_configuration_survives_its_file() -> None:
    config = GatewayConfig("e", "/state", ("/key",), quota=7, cors_origins=("https://a.example",))
    assert GatewayConfig.decode(config.encode()) == config


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"endpoint": "e", "colour": 1}', b"\xff"])
def test_another_file_is_not_a_configuration(data: bytes) -> None:
    with pytest.raises(SettingsError):
        GatewayConfig.decode(data)
