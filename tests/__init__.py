import fastai_deploy  # noqa: F401 - switches telemetry off before a test imports a library
