"""Every host module must start with only the learner's own libraries installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOSTS = ("server", "hosts.toolkit", "hosts.torchserve", "hosts.own_server")
# None in sys.modules is how Python itself says that a module cannot be imported.
WITHOUT = "import sys; sys.modules.update(onnxruntime=None, tokenizers=None); "


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_imports_no_library_of_converted_models(host: str) -> None:
    """The environment of an original learner has torch and fastai, but none of these libraries."""
    command = f"{WITHOUT}import fastai_deploy.runtime.{host}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
