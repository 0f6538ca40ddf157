"""Computes what the ONNX exporter cannot export with what it can, while a model is traced.

``Filled`` replaces calls of such functions by their definition: exact, up to rounding, so that
``Checks`` holds the graph against the model as it was. What is not here is left to the exporter,
which refuses it by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Complex:
    """Complex numbers as two tensors: ONNX has no type for them."""

    real: torch.Tensor
    imag: torch.Tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse what ``Filled`` does not replace; without this method, torch takes no pair."""
        del types, args, kwargs
        name = getattr(func, "__name__", func)
        raise RuntimeError(f"ONNX has no complex numbers, and {name} needs them")

    @property
    def device(self) -> torch.device:
        """Where both parts are."""
        return self.real.device

    def __mul__(self, other: Complex | torch.Tensor | float) -> Complex:
        if isinstance(other, Complex):
            return Complex(
                self.real * other.real - self.imag * other.imag,
                self.real * other.imag + self.imag * other.real,
            )
        return Complex(self.real * other, self.imag * other)

    def __getitem__(self, place: Any) -> Complex:
        return Complex(self.real[place], self.imag[place])

    def to(self, device: torch.device) -> Complex:
        """The numbers on another device."""
        return Complex(self.real.to(device), self.imag.to(device))

    def unsqueeze(self, dim: int) -> Complex:
        """The numbers with another dimension of size 1."""
        return Complex(self.real.unsqueeze(dim), self.imag.unsqueeze(dim))


class Filled(TorchFunctionMode):
    """Inside the block, torch's functions that cannot be exported are computed with others."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The function's result, from its replacement if it has one."""
        del types
        return _REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def _repeat_interleave(
    value: torch.Tensor,
    repeats: torch.Tensor | int,
    dim: int | None = None,
    *,
    output_size: int | None = None,
) -> torch.Tensor:
    """The exporter loses the number of dimensions."""
    if not isinstance(repeats, int) or dim is None:
        return torch.repeat_interleave(value, repeats, dim=dim, output_size=output_size)
    place = dim % value.dim()
    kept = (-1,) * (place + 1), (-1,) * (value.dim() - place - 1)
    repeated = value.unsqueeze(place + 1).expand(*kept[0], repeats, *kept[1])
    return repeated.flatten(place, place + 1)


def _rms_norm(
    value: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(value.dtype).eps if eps is None else eps
    made = value * torch.rsqrt(value.pow(2).mean(dim=dims, keepdim=True) + least)
    return made if weight is None else made * weight


def _with_number(func: Callable[..., Any], place: int) -> Callable[..., Any]:
    """``func`` with 0 or 1 for a truth value at ``place``: the tracer fills with numbers only."""

    def filled(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        if len(given) > place and isinstance(given[place], bool):
            given[place] = int(given[place])
        if isinstance(kwargs.get("value"), bool):
            kwargs["value"] = int(kwargs["value"])
        return func(*given, **kwargs)

    return filled


def _masked_fill(tensor: torch.Tensor, mask: torch.Tensor, value: Any) -> torch.Tensor:
    """ONNX Runtime chooses between numbers only."""
    if isinstance(value, bool) and tensor.dtype is torch.bool:
        return tensor | mask if value else tensor & ~mask
    return tensor.masked_fill(mask, value)


def _index_add(
    value: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1
) -> torch.Tensor:
    """The exporter's own keeps only one of several rows that are added at the same place."""
    shape = [1] * source.dim()
    shape[dim] = -1
    return value.scatter_add(dim, index.view(shape).expand_as(source), source * alpha)


def _tolist(value: torch.Tensor) -> Any:
    """Numbers that depend on the text stay tensors: the exporter takes others for constants."""
    return list(value.unbind()) if value.dim() == 1 else value.tolist()


def _stride(value: torch.Tensor, dim: int | None = None) -> Any:
    """As if the tensor were contiguous, like ``_as_strided``.

    The exporter takes the strides of the traced text for those of every text.
    """
    found: list[Any] = [1]
    for size in reversed(value.shape[1:]):
        found.insert(0, found[0] * size)
    return tuple(found) if dim is None else found[dim]


def _as_strided(
    value: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
) -> torch.Tensor:
    """By index, because the exporter takes size and stride for constants."""
    index = torch.as_tensor(storage_offset or 0, device=value.device)
    for count, step in zip(size, stride, strict=True):
        index = index[..., None] + torch.arange(count, device=value.device) * step
    return value.flatten()[index]


def _polar(size: torch.Tensor, angle: torch.Tensor) -> Complex:
    return Complex(size * angle.cos(), size * angle.sin())


def _view_as_complex(value: torch.Tensor) -> Complex:
    return Complex(value[..., 0], value[..., 1])


def _view_as_real(value: Complex | torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return torch.view_as_real(value)
    return torch.stack((value.real, value.imag), dim=-1)


def _fftn(
    value: torch.Tensor,
    s: Sequence[int] | None = None,
    dim: Sequence[int] | None = None,
    norm: str | None = None,
) -> Any:
    """As products with the matrix of the transform: ONNX's DFT is slower, and not on a GPU."""
    if s is not None or dim is None or norm not in (None, "backward"):
        return torch.fft.fftn(value, s=s, dim=dim, norm=norm)
    made = Complex(value, torch.zeros_like(value))
    for each in dim:
        made = _transformed(made, each)
    return made


def _transformed(value: Complex, dim: int) -> Complex:
    """The discrete Fourier transform along a dimension."""
    real, imag = value.real.transpose(dim, -1), value.imag.transpose(dim, -1)
    size = real.shape[-1]
    place = torch.arange(size, device=real.device)
    # The remainder keeps angles below a full turn, where float32 has the digits for them.
    angle = (place[:, None] * place % size).to(real.dtype) * (2 * math.pi / size)
    cos, sin = angle.cos(), angle.sin()
    return Complex(
        (real @ cos + imag @ sin).transpose(dim, -1), (imag @ cos - real @ sin).transpose(dim, -1)
    )


# Functions that fill parts of a tensor, and the place of the value among their arguments.
_FILLING: dict[Callable[..., Any], int] = {
    torch.scatter: 3,
    torch.Tensor.scatter: 3,
    torch.Tensor.scatter_: 3,
    torch.index_fill: 3,
    torch.Tensor.index_fill: 3,
    torch.Tensor.index_fill_: 3,
    torch.Tensor.fill_: 1,
}
_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    **{func: _with_number(func, place) for func, place in _FILLING.items()},
    torch.repeat_interleave: _repeat_interleave,
    torch.Tensor.repeat_interleave: _repeat_interleave,
    functional.rms_norm: _rms_norm,
    torch.masked_fill: _masked_fill,
    torch.Tensor.masked_fill: _masked_fill,
    torch.index_add: _index_add,
    torch.Tensor.index_add: _index_add,
    torch.as_strided: _as_strided,
    torch.Tensor.as_strided: _as_strided,
    torch.Tensor.stride: _stride,
    torch.Tensor.tolist: _tolist,
    torch.polar: _polar,
    torch.view_as_complex: _view_as_complex,
    torch.view_as_real: _view_as_real,
    torch.fft.fftn: _fftn,
}
