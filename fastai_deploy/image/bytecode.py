"""The layer with bytecode, without which a container compiles 550 modules whenever it starts.

    /opt/fdeploy/bytecode/    what PYTHONPYCACHEPREFIX names: a tree like that of the sources

Neither wheels nor the official Python images have bytecode, and a container cannot keep what it
compiles. Python compares bytecode with its source before it uses it: somebody may put an image with
a patched library on top of this one.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fastai_deploy import files
from fastai_deploy.image.base import PYTHON, Base, read_below
from fastai_deploy.image.blobs import BlobStore, Layer
from fastai_deploy.image.layers import CODE, PACKAGES, LayerWriter, wheel_files, writing
from fastai_deploy.packaging.bytecode import compile_folder
from fastai_deploy.packaging.wheels import Wheel

BYTECODE = PurePosixPath("opt/fdeploy/bytecode")
_FORMAT = "1"  # another number makes the layers in the cache obsolete
_ABOUT = 32 << 20  # bytes of the layer and of the sources
# What a server has no use for.
_UNUSED = frozenset(
    {
        *("_pyrepl", "curses", "dbm", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3"),
        *("test", "tests", "tkinter", "turtledemo", "unittest", "venv", "wsgiref", "xmlrpc"),
        *("f2py", "quantization", "tools", "transformers"),  # of numpy, ONNX Runtime and OpenVINO
    }
)


def bytecode_layer(
    base: Base, wheels: Sequence[Wheel], code: Mapping[str, bytes], python: Path, store: BlobStore
) -> Layer:
    """The layer with the bytecode of the base's library, of wheels and of the serving code.

    ``code`` is by path below the code's folder; ``python`` is an interpreter of the image's version
    that compiles. Raises ImageError or FileError.
    """
    parts = [_FORMAT, base.reference.digest, base.machine, *(wheel.sha256 for wheel in wheels)]
    for path, data in sorted(code.items()):
        parts += [path, hashlib.sha256(data).hexdigest()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def write(layer: LayerWriter) -> None:
        with tempfile.TemporaryDirectory(prefix="fdeploy-") as scratch:
            folder = Path(scratch)
            for path, data in _sources(base, wheels, code, store):
                with files.creating(folder / path) as file:
                    file.write(data)
            for place, made in compile_folder(python, folder, "/", checked=True).items():
                content = files.read(made)
                # Below the prefix, bytecode is where the source is, not in __pycache__.
                layer.add(BYTECODE / place.parents[1] / place.name, content, _deflated(content))

    return store.layer(f"bytecode-{key}", writing(write), size=_ABOUT)


def _sources(
    base: Base, wheels: Sequence[Wheel], code: Mapping[str, bytes], store: BlobStore
) -> Iterator[tuple[str, bytes]]:
    """What a server may import, by path in the image."""
    library = PurePosixPath(base.python).parents[1] / "lib" / f"python{PYTHON}"
    found = read_below(base, f"{library}/".removeprefix("/"), store)
    found.update({f"{CODE}/{path}": data for path, data in code.items()})
    for wheel in wheels:
        found.update({f"{PACKAGES}/{path}": data for path, data in wheel_files(wheel, ".py")})
    for path, data in found.items():
        parts = PurePosixPath(path).parts
        if path.endswith(".py") and ".." not in parts and _UNUSED.isdisjoint(parts):
            yield path, data


def _deflated(content: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(content) + deflate.flush()
