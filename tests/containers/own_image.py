"""fdeploy's own image in a container: `make test-own-image`, as root on Debian.

    python -m tests.containers.own_image [--base FOLDER] [--mirror URL]

It makes a base with ``debootstrap`` (or takes a root file system that has Python 3.13), exports and
packages a real learner, builds the image with the real command, has ``skopeo`` and ``umoci``
read and unpack it, and runs it with ``runc``: no network, a read-only root file system, and the
artifact mounted at /opt/ml/model, as SageMaker does it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastai_deploy.image.archive import write_archive
from fastai_deploy.image.blobs import default_store
from fastai_deploy.image.build import Wanted, container_of, serving_image
from fastai_deploy.packaging.artifact import unpack, write_artifact
from tests.containers.checks import Checks
from tests.containers.families import OWN_IMAGE
from tests.flow.learners import CONVERTIBLE, bring
from tests.registry import Registry, digest_of, running_registry

LEARNER = CONVERTIBLE[2]
MACHINE = "x86_64"
_SUITE = "trixie"  # which has Python 3.13
_PACKAGES = "python3.13-minimal,libpython3.13-stdlib,libstdc++6"
_MIRROR = re.compile(r"^(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S*debian/?)(?:\s|$)", re.MULTILINE)
_CAPABILITIES = ["CAP_SETGID", "CAP_SETUID", "CAP_KILL"]
MEMORY = 512 << 20


def main() -> int:
    """Prepare, then check inside a network namespace without a route; the exit code."""
    options = _options()
    if options.inside:
        return Checks(OWN_IMAGE, Path(sys.executable), options.inside).run()
    options.base = options.base or debootstrap(options.mirror)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, "project")
        with running_registry() as registry:
            put_base(registry, options.base)
            _export(registry, project)
            _image(project, Path(scratch, "with-model.tar"), "--with-model")
            _image(project, Path(scratch, "image.tar"))
            again = Path(scratch, "again.tar")
            _image(project, again)
            assert again.read_bytes() == Path(scratch, "image.tar").read_bytes()
        done = 0
        for name, user in (("image", None), ("image", "0:0"), ("with-model", None)):
            print(f"{name}, user {user or 'of the image'}", flush=True)
            base = Path(scratch, f"{name}-{bool(user)}")
            unpack_image(Path(scratch, f"{name}.tar"), base)
            _artifact(project, base)
            _configure(base, user, mounted=name == "image")
            inside = [sys.executable, "-m", "tests.containers.own_image", "--inside", str(base)]
            command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *inside]
            done |= subprocess.run(command, check=False).returncode
    return done


def debootstrap(mirror: str | None) -> Path:
    """A base of Debian in a cache, made if it is not there.

    Like the official images of Python, it has no bytecode.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastai-deploy")
    made = folder / "base-image"
    if not (made / "usr/bin/python3.13").exists():
        partial = folder / "base-image.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        chosen = mirror or next(_mirrors(), "")
        options = ["--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(partial)]
        subprocess.run(["debootstrap", *options, *([chosen] if chosen else [])], check=True)
        shutil.rmtree(partial / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(partial / "var/lib/apt/lists", ignore_errors=True)
        partial.rename(made)
    for compiled in made.rglob("*.pyc"):
        compiled.unlink()
    return made


def _mirrors() -> Iterator[str]:
    """The mirrors of this machine's own sources."""
    listed = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for path in listed:
        if path.is_file():
            yield from _MIRROR.findall(path.read_text(encoding="utf-8"))


def put_base(registry: Registry, root: Path) -> None:
    """Put a root file system into the registry, as one layer."""
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        command = ["tar", "--create", "--directory", str(root), "--exclude=./dev/*", "."]
        packed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        zipped = subprocess.run(
            ["gzip", "-1", "-n"], check=True, input=packed, stdout=subprocess.PIPE
        ).stdout
        file.write(zipped)
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(packed)]},
    }
    registry.put_image("library/python", "3.13-slim", layers=[zipped], config=config)


def _export(registry: Registry, folder: Path) -> None:
    """A project with the bundle of a real learner."""
    folder.mkdir()
    learner, golden = bring(LEARNER, folder)
    (folder / "fdeploy.toml").write_text(
        f'[model]\nlearner = "{learner}"\ngolden = "{golden}"\n'
        f'[package]\nbase_image = "{registry.address}/library/python:3.13-slim"\n',
        encoding="utf-8",
    )
    fdeploy(folder, "export")


def _image(project: Path, output: Path, *options: str) -> None:
    said = fdeploy(project, "image", "--output", str(output), *options)
    print(f"image: {said['bytes']:,} bytes, {said['digest']}", flush=True)
    inspected = subprocess.run(
        ["skopeo", "inspect", f"oci-archive:{output}"], check=True, stdout=subprocess.PIPE
    )
    assert json.loads(inspected.stdout)["Digest"] == said["digest"]
    subprocess.run(
        ["skopeo", "inspect", f"docker-archive:{output}"], check=True, stdout=subprocess.DEVNULL
    )


def write_image(registry: Registry, output: Path, machine: str, *, openvino: bool) -> None:
    """Write the image on the registry's base, for any model."""
    image = serving_image(
        f"{registry.address}/library/python:3.13-slim",
        Wanted(machine, openvino),
        lambda _: None,
        store=default_store(),
        record=output.with_suffix(".json"),
    )
    built = image.build(user="1000:1000")
    write_archive(built, "fdeploy-server:1", output, machine, lambda *_: None)


def fdeploy(folder: Path, *arguments: str) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "fastai_deploy", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout)["result"]
    return found


def unpack_image(archive: Path, base: Path) -> None:
    """Have others' tools unpack the image to ``base/container``."""
    base.mkdir()
    layout = base / "layout"
    tag = json.loads(_member(archive, "index.json"))["manifests"][0]["annotations"]
    name = tag["org.opencontainers.image.ref.name"]
    subprocess.run(["skopeo", "copy", f"oci-archive:{archive}", f"oci:{layout}:{name}"], check=True)
    command = ["umoci", "unpack", "--image", f"{layout}:{name}", str(base / "container")]
    subprocess.run(command, check=True)


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


def _artifact(project: Path, base: Path) -> None:
    """The unpacked artifact, and the goldens that the checks ask."""
    packed = base / "model.tar.gz"
    write_artifact(
        project / ".fdeploy/dev/bundle",
        packed,
        name="checked",
        notify=lambda *_: None,
        container=container_of(MACHINE),
    )
    unpack(packed, base / "model")
    shutil.copyfile(project / "golden.jsonl", base / "golden.jsonl")


def _configure(base: Path, user: str | None, *, mounted: bool) -> None:
    """Configure the container in ``base/container``; ``base`` is the HOME of its processes."""
    container = base / "container"
    config = json.loads((container / "config.json").read_bytes())
    if mounted:
        (container / "rootfs/opt/ml/model").mkdir(parents=True)
    # By which the checks find the processes of this container.
    variables = {"HOME": str(base)}
    limited(config, variables, user=user, model=base / "model" if mounted else None)
    (container / "config.json").write_text(json.dumps(config), encoding="utf-8")


def limited(
    config: dict[str, Any],
    variables: Mapping[str, str],
    *,
    user: str | None = None,
    model: Path | None = None,
    memory: int | None = MEMORY,
) -> None:
    """Give a container in ``runc``'s configuration what a host would: limits, and the model.

    ``memory`` is in bytes; None gives it the machine's, as an instance does. ``user`` runs it
    instead of the image's, with what Docker allows root, of which the server needs three. It stays
    in the network namespace of the caller.
    """
    process = config["process"]
    process["terminal"] = False
    kept = [each for each in process["env"] if each.partition("=")[0] not in variables]
    process["env"] = kept + [f"{name}={value}" for name, value in variables.items()]
    kinds = ("bounding", "effective", "permitted")
    process["capabilities"] = dict.fromkeys(kinds, _CAPABILITIES if user else [])
    if user:
        uid, gid = map(int, user.split(":"))
        process["user"] = {"uid": uid, "gid": gid}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]
    config["root"]["readonly"] = True
    if model is not None:
        config["mounts"].append(
            {
                "destination": "/opt/ml/model",
                "type": "bind",
                "source": str(model),
                "options": ["rbind", "ro"],
            }
        )
    spaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "network"]
    if memory is not None:
        config["linux"].setdefault("resources", {})["memory"] = {"limit": memory}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.containers.own_image")
    parser.add_argument("--base", type=Path, help="a root file system with Python 3.13")
    parser.add_argument("--mirror", help="where debootstrap gets Debian from")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
