"""The list of what is in an image, in CycloneDX's JSON format (specification version 1.6)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import BytesHeaderParser
from typing import Any

from fastai_deploy import __version__
from fastai_deploy.image.base import Base
from fastai_deploy.packaging.wheels import Wheel

_FORMAT = "1.6"
# The fields of a wheel's metadata that state its licence: the newer one is an SPDX expression.
_EXPRESSION, _NAME = "License-Expression", "License"
_LONGEST_NAME = 100  # some packages put the whole text there


def render_sbom(base: Base, wheels: Sequence[Wheel]) -> bytes:
    """The list, as JSON; the same image has the same list.

    The packages of the base itself are in the base's own list, if its makers have one.
    """
    name, digest = base.reference.repository, base.reference.digest
    purl = f"pkg:oci/{name.rpartition('/')[2]}@{digest.replace(':', '%3A')}?repository_url={name}"
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{_FORMAT}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": _FORMAT,
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": "fdeploy-server",
                "version": __version__,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": [
            {
                "type": "container",
                "bom-ref": "base",
                "name": name,
                "version": base.reference.tag or digest,
                "hashes": [_sha256(digest.removeprefix("sha256:"))],
                "purl": purl,
            },
            *(_component(wheel) for wheel in sorted(wheels, key=lambda each: each.package)),
        ],
        "dependencies": [
            {"ref": "image", "dependsOn": ["base", *sorted(_reference(each) for each in wheels)]}
        ],
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _component(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _reference(wheel),
        "name": wheel.package,
        "version": wheel.version,
        "hashes": [_sha256(wheel.sha256)],
        "licenses": list(_licences(wheel)),
        "purl": _reference(wheel),
    }


def _reference(wheel: Wheel) -> str:
    return f"pkg:pypi/{wheel.package}@{wheel.version}"


def _sha256(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _licences(wheel: Wheel) -> Iterator[dict[str, Any]]:
    """What the wheel's metadata states."""
    with zipfile.ZipFile(wheel.path) as archive:
        found = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = BytesHeaderParser().parsebytes(archive.read(found[0]) if found else b"")
    expression, name = metadata.get(_EXPRESSION), str(metadata.get(_NAME) or "")
    if expression:
        yield {"expression": str(expression)}
    elif name and len(name) <= _LONGEST_NAME:
        yield {"license": {"name": name}}
