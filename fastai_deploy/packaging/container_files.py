"""The files by which each kind of container finds the serving code in an artifact.

    code/inference.py                        the four functions of the SageMaker PyTorch toolkit
    MAR-INF/MANIFEST.json, model-config.yaml
    code/handler.py                          TorchServe's native handler
    config.yaml, deployment.py               Ray Serve

Each puts the artifact's wheels on the path before it imports what needs them.
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

_DEPLOYMENT = """\
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "code"))

from fdeploy_runtime.vendored import add_to_path

add_to_path(FOLDER / "code")

from fdeploy_runtime.hosts.rayserve import bind

app = bind(FOLDER)
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

# One worker with every core: a worker more is a model more in memory, and shares the same cores.
# Seconds for the time-outs; milliseconds for the delay: only what waits already goes together.
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
    "config.yaml": _RAY_CONFIG.encode(),
    "deployment.py": _DEPLOYMENT.encode(),
    "model-config.yaml": _MODEL_CONFIG.encode(),
}
"""The adapters by their path in the artifact; the same for every container."""
