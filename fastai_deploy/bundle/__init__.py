"""The bundle and its manifest; ``docs/bundle.md`` is the specification."""

from fastai_deploy.bundle.folder import Bundle, building, read_bundle, read_manifest, seal
from fastai_deploy.bundle.manifest import (
    FileEntry,
    LearnerSpec,
    Manifest,
    ModelSpec,
    Padding,
    Provenance,
    RuntimeSpec,
    Task,
    TextSpec,
)

__all__ = [
    "Bundle",
    "FileEntry",
    "LearnerSpec",
    "Manifest",
    "ModelSpec",
    "Padding",
    "Provenance",
    "RuntimeSpec",
    "Task",
    "TextSpec",
    "building",
    "read_bundle",
    "read_manifest",
    "seal",
]
