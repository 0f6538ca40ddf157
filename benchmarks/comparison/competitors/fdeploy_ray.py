"""fdeploy's artifact in the software of AWS's Ray Serve image, behind AWS's own adapter.

AWS's start script and adapter run as they are, with other paths and free ports. They are not part
of this project (aws/deep-learning-containers, Apache-2.0); ``prepare`` fetches them once.
"""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from benchmarks.comparison.competitors.base import Competitor, Failed, Launch, Site
from benchmarks.comparison.environments import IMAGE_RAY
from benchmarks.comparison.models import DEFAULT, Model

_COMMIT = "e0ecedea6a1c56d6b5914f9cfb2fec5c548e67e0"  # 2026-08-21
_SOURCE = (
    f"https://raw.githubusercontent.com/aws/deep-learning-containers/{_COMMIT}/scripts/docker/ray"
)
_ENTRYPOINT, _ADAPTER = "sagemaker_entrypoint.sh", "sagemaker_serve.py"
_FOLDER = "aws-ray-serve"
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1"}
"""What a deploy sets for the container; see ``Environment`` in ``aws/templates/endpoint.yaml``."""


def _prepare(model: Model, _python: Path) -> None:
    place = model.work / _FOLDER
    place.mkdir(exist_ok=True)
    for name in (_ENTRYPOINT, _ADAPTER):
        if not (place / name).exists():
            try:
                with urllib.request.urlopen(f"{_SOURCE}/{name}", timeout=30) as found:  # noqa: S310  # https
                    (place / name).write_bytes(found.read())
            except OSError as error:
                message = f"AWS's {name} cannot be fetched ({error}); put it into {place}"
                raise Failed(message) from error


def _launch(site: Site) -> Launch:
    adapter, http, backend, cluster, client, agent = map(str, site.ports)
    artifact = site.model.artifact(DEFAULT, "ray-serve")
    folder, app = site.folder / "model", site.folder / "app"
    folder.mkdir()
    app.mkdir()
    for each in artifact.iterdir():
        (folder / each.name).symlink_to(each)
    deployment = (artifact / "deployment.py").read_text()
    asked = backend if "port=" in deployment else http
    (folder / "deployment.py").unlink()
    (folder / "deployment.py").write_text(re.sub(r"\bport=\d+", f"port={backend}", deployment))
    aws = site.model.work / _FOLDER
    script = _replaced(
        (aws / _ENTRYPOINT).read_text(),
        {
            "/opt/ml/model": str(folder),
            "/app/": f"{app}/",
            # The sockets below its folder have paths of at most 107 characters.
            "--port=6379": f"--port={cluster} --ray-client-server-port={client} "
            f"--dashboard-agent-listen-port={agent} --temp-dir={site.folder}/r",
            "--http-port=8000": f"--http-port={http}",
            "localhost:8000": f"localhost:{http}",
        },
    )
    (app / _ENTRYPOINT).write_text(script)
    (app / _ADAPTER).write_text(
        _replaced((aws / _ADAPTER).read_text(), {"port=8080": f"port={adapter}"})
    )
    return Launch(
        ("bash", str(app / _ENTRYPOINT), "serve"),
        app,
        {
            **ENVIRONMENT,
            "RAY_ADDRESS": f"127.0.0.1:{cluster}",
            "RAY_raylet_start_wait_time_s": "120",
            "RAYSERVE_BACKEND_URL": f"http://127.0.0.1:{asked}",
        },
    )


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        if old not in text:
            raise Failed(f"AWS's script has changed: no {old} in it")
        text = text.replace(old, new)
    return text


COMPETITOR = Competitor(
    "fdeploy-ray",
    "fdeploy (AWS's Ray Serve image)",
    "The artifact with default settings in the software of AWS's Ray Serve image, started by AWS's "
    "own script, behind AWS's own adapter, with the `Environment` that a deploy sets.",
    _launch,
    environment=IMAGE_RAY,
    prepare=_prepare,
    form=DEFAULT,
)
