"""The adapter files through which each kind of container finds the serving code in an artifact.

    code/inference.py                        the four functions of the SageMaker PyTorch toolkit
    MAR-INF/MANIFEST.json, model-config.yaml
    code/handler.py                          TorchServe's native handler
    config.yaml, deployment.py               Ray Serve, which starts
    code/model_server.py                     fdeploy's own model server

Each adds the artifact's wheels to the path before importing anything that needs them; Ray's needs
none.
"""

from __future__ import annotations

import json

_WHEELS = """\
from pathlib import Path

from fdeploy_runtime.vendored import add_to_path

add_to_path(Path(__file__).resolve().parent)

"""

_INFERENCE = f"""{_WHEELS}\
from fdeploy_runtime.hosts.toolkit import input_fn, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
"""

_HANDLER = """\
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fdeploy_runtime.vendored import add_to_path

add_to_path(Path(__file__).resolve().parent)

from fdeploy_runtime.hosts.torchserve import Handler

handle = Handler()
"""

_MODEL_SERVER = f"""{_WHEELS}\
from fdeploy_runtime.server import main

raise SystemExit(main())
"""

_BACKEND_PORT = 8001  # free in AWS's image: Ray Serve has 8000, and AWS's adapter 8080
BACKEND_URL = f"http://127.0.0.1:{_BACKEND_PORT}"
"""Where the model server listens beside Ray Serve, for ``RAYSERVE_BACKEND_URL``."""

# Ray's own processes run with the image's packages alone; the model server adds the wheels.
_DEPLOYMENT = f"""\
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "code"))

from fdeploy_runtime.hosts.rayserve import bind

app = bind(FOLDER, port={_BACKEND_PORT})
"""

_MANIFEST = {
    "createdOn": "01/01/1980 00:00:00",
    "runtime": "python",
    "model": {
        "modelName": "model",
        "handler": "code/handler.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    },
    "archiverVersion": "0.12.0",
}

# One worker with all cores: another worker would be another model in memory on the same cores.
# Timeouts are in seconds, the delay in ms: only requests that already wait are batched.
_MODEL_CONFIG = """\
minWorkers: 1
maxWorkers: 1
batchSize: 32
maxBatchDelay: 1
responseTimeout: 60
startupTimeout: 600
"""

_RAY_CONFIG = """\
applications:
  - name: fdeploy
    route_prefix: /
    import_path: deployment:app
"""

ADAPTERS = {
    "MAR-INF/MANIFEST.json": (json.dumps(_MANIFEST, indent=2) + "\n").encode(),
    "code/handler.py": _HANDLER.encode(),
    "code/inference.py": _INFERENCE.encode(),
    "code/model_server.py": _MODEL_SERVER.encode(),
    "config.yaml": _RAY_CONFIG.encode(),
    "deployment.py": _DEPLOYMENT.encode(),
    "model-config.yaml": _MODEL_CONFIG.encode(),
}
"""The adapters by path in the artifact, the same for every container."""
