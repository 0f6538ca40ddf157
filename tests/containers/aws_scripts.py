"""AWS's own start script and adapter of the Ray Serve image, fetched when they are needed.

They are not part of this project (aws/deep-learning-containers, Apache-2.0).
"""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

ENTRYPOINT = "sagemaker_entrypoint.sh"
ADAPTER = "sagemaker_serve.py"
_COMMIT = "e0ecedea6a1c56d6b5914f9cfb2fec5c548e67e0"  # 2026-08-21
_PLACE = f"https://raw.githubusercontent.com/aws/deep-learning-containers/{_COMMIT}/scripts/docker"
_STANDING_IN = """\
set -e
export PYTHONPATH="/opt/ml/model:/opt/ml/model/code:$PYTHONPATH"
ray start --head --port=6379 --include-dashboard=False
serve start --http-host=0.0.0.0 --http-port=8000
serve run /opt/ml/model/config.yaml &
python /app/sagemaker_serve.py
"""


def bring(folder: Path, given: Path | None) -> str:
    """Put both files into ``folder``, from ``given`` or the network; return whose they are.

    Where they cannot be had, replicas stand in.
    """
    folder.mkdir(parents=True)
    if given is not None:
        for name in (ENTRYPOINT, ADAPTER):
            shutil.copyfile(given / name, folder / name)
        return f"AWS's own, from {given}"
    try:
        for name in (ENTRYPOINT, ADAPTER):
            place = f"{_PLACE}/ray/{name}"
            with urllib.request.urlopen(place, timeout=30) as answer:  # noqa: S310  # https
                (folder / name).write_bytes(answer.read())
    except OSError as error:
        (folder / ENTRYPOINT).write_text(_STANDING_IN)
        shutil.copyfile(Path(__file__).with_name("ray_adapter.py"), folder / ADAPTER)
        return f"replicas, because AWS's could not be fetched ({error})"
    return f"AWS's own, of the commit {_COMMIT[:12]}"
