"""Start TorchServe as AWS's image does: the toolkit, unmodified, on free ports."""

from __future__ import annotations

from pathlib import Path

from benchmarks.comparison.competitors.base import Launch, Site

_SERVE = "from sagemaker_pytorch_serving_container import serving; serving.main()"


def start_torchserve(site: Site, *, workers: int | None) -> Launch:
    """Serve ``site.folder/model``; ``workers`` None leaves the number to TorchServe.

    The toolkit writes ``/etc/sagemaker-ts.properties``, which needs root, and refuses to start
    while another TorchServe is running.
    """
    port, metrics, inference, management = map(str, site.ports[:4])
    scratch = site.folder / "tmp"
    scratch.mkdir()
    variables = {
        "SAGEMAKER_BASE_DIR": str(site.folder),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_BIND_TO_PORT": port,
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
        "TS_GRPC_INFERENCE_PORT": inference,
        "TS_GRPC_MANAGEMENT_PORT": management,
        "LOG_LOCATION": str(site.folder / "logs"),
        "METRICS_LOCATION": str(site.folder / "metrics"),
        "TMPDIR": str(scratch),
    }
    if workers:
        variables["SAGEMAKER_MODEL_SERVER_WORKERS"] = str(workers)
    return Launch((str(site.python), "-c", _SERVE), site.folder, variables)


def lay_out(folder: Path, inference: Path, **links: Path) -> None:
    """Create a model folder with ``code/inference.py`` and links to the named files and folders."""
    code = folder / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_bytes(inference.read_bytes())
    for name, path in links.items():
        (folder / "model" / name).symlink_to(path)
