"""`fdeploy image` on a full disk, behind a proxy, and on bases that do not fit."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.packaging.wheels import default_cache
from tests.conftest import ROOT, Fdeploy
from tests.image.bases import CONTENT, put_base
from tests.registry import Registry, Trouble, running_registry

NOISE = random.Random(1).randbytes(1 << 20)  # noqa: S311 - what no compression shrinks
LOGIN = "http://me:s3cret@"
IMAGE = ("image", "--output", "image.tar", "--machine", "x86_64", "--json")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        put_base(running)
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of its own, with the wheels that are here."""
    folder = tmp_path / "cache" / "fastai-deploy"
    folder.mkdir(parents=True)
    (folder / "wheels").symlink_to(default_cache())
    return folder


def configure(fdeploy: Fdeploy, base: str) -> None:
    path = fdeploy.folder / "fdeploy.toml"
    path.write_text(f'[project]\nname = "demo"\n[package]\nbase_image = "{base}"\n')


def limited(fdeploy: Fdeploy, cache: Path, most: int) -> dict[str, Any]:
    """The error of the command where no file may have more than ``most`` bytes."""
    done = subprocess.run(
        [*(sys.executable, "-m", "fastai_deploy"), *IMAGE],
        cwd=fdeploy.folder,
        env={**os.environ, "PYTHONPATH": ROOT, "XDG_CACHE_HOME": str(cache.parent)},
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return error


def proxies(**wanted: str) -> dict[str, str]:
    """Variables with these proxies, and without those of this machine."""
    given = {name.lower() for name in wanted}
    others = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"} - given
    return {**dict.fromkeys(others, ""), **wanted}


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file() and path.name != ".gitignore"]


@pytest.mark.parametrize("what", ["the base", "a layer", "the file"])
def test_a_full_disk(fdeploy: Fdeploy, registry: Registry, cache: Path, what: str) -> None:
    configure(fdeploy, f"{registry.address}/library/python:3.13-slim")
    fdeploy.environ["XDG_CACHE_HOME"] = str(cache.parent)
    output, place = fdeploy.folder / "image.tar", cache / "image"
    if what == "the base":
        put_base(registry, {**CONTENT, "noise": NOISE})
    if what == "the file":
        fdeploy.ok(*IMAGE)
        output.unlink()
        place = fdeploy.folder
    error = limited(fdeploy, cache, 500_000)
    assert error["code"] == "disk-full"
    assert "it needs about " in error["message"]
    assert f"{place}" in error["message"]
    assert "free some space" in error["hint"]
    assert not output.exists()
    assert half_written(cache / "image") == half_written(fdeploy.folder) == []
    fdeploy.ok(*IMAGE)


@pytest.mark.parametrize(
    ("trouble", "host", "variable", "words"),
    [
        ("404", "registry.example", "HTTPS_PROXY", "proxy in HTTPS_PROXY refuses it (404)"),
        ("407", "registry.example", "https_proxy", "in https_proxy asks for a user and a password"),
        ("407", "localhost:1", "HTTP_PROXY", "the proxy in HTTP_PROXY asks for a user"),
        ("html", "localhost:1", "HTTP_PROXY", "the proxy in HTTP_PROXY, answered with text/html"),
        ("gone", "registry.example", "ALL_PROXY", "the proxy in ALL_PROXY does not answer"),
    ],
)
def test_a_proxy_in_the_way(
    fdeploy: Fdeploy, registry: Registry, *, trouble: str, host: str, variable: str, words: str
) -> None:
    configure(fdeploy, f"{host}/library/python:3.13-slim")
    address = registry.address
    if trouble == "gone":
        with running_registry() as ended:
            address = ended.address
    else:
        registry.trouble(Trouble(trouble, times=0))
    fdeploy.environ = proxies(**{variable: f"{LOGIN}{address}"})
    outcome = fdeploy(*IMAGE)
    assert outcome.status == 13
    assert words in outcome.error["message"]
    assert variable in outcome.error["hint"]
    assert "s3cret" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("around", [False, True])
def test_a_proxy_is_followed(
    fdeploy: Fdeploy, registry: Registry, cache: Path, *, around: bool
) -> None:
    """Through a proxy that asks for a login, or around one that does not answer."""
    host = registry.address if around else "localhost:1"
    configure(fdeploy, f"{host}/library/python:3.13-slim")
    fdeploy.environ = {
        "XDG_CACHE_HOME": str(cache.parent),
        **proxies(
            HTTP_PROXY=f"{LOGIN}{'127.0.0.1:1' if around else registry.address}",
            NO_PROXY="127.0.0.1" if around else "nobody.example",
        ),
    }
    fdeploy.ok(*IMAGE)
    assert all(("Proxy-Authorization" in asked.headers) != around for asked in registry.asked)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("alpine", "has no glibc (it has musl"),
        ("old", "has no Python 3.13"),
        ("arm", "has no image for x86_64"),
    ],
)
def test_a_base_that_does_not_fit(
    fdeploy: Fdeploy, registry: Registry, cache: Path, base: str, words: str
) -> None:
    layers: Mapping[str, Mapping[str, bytes]] = {
        "alpine": {"usr/local/bin/python3.13": b"", "lib/ld-musl-x86_64.so.1": b""},
        "old": {path: data for path, data in CONTENT.items() if "python" not in path},
        "arm": CONTENT,
    }
    machine = "arm64" if base == "arm" else "amd64"
    digest = put_base(registry, layers[base], tag=base, machine=machine)
    if base == "arm":
        registry.put_index("library/python", "arm", {"linux/arm64": digest})
    configure(fdeploy, f"{registry.address}/library/python:{base}")
    fdeploy.environ["XDG_CACHE_HOME"] = str(cache.parent)
    error = fdeploy(*IMAGE).error
    assert (error["code"], error["exit_code"]) == ("image", 13)
    assert words in error["message"]
    assert "base_image in [package]" in error["hint"]
    # The record keeps no base that does not fit: the next command asks for the tag again.
    assert not (fdeploy.folder / ".fdeploy/base-image.json").exists()
