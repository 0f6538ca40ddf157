"""What the operators in torch share: the form they have, and how their inputs meet.

Shapes and what is worked out from them stay on the processor, where torch wants them; everything
else is where the weights are.
"""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Optional, Sequence

import torch

Tensor = torch.Tensor
Attributes = Mapping[str, Any]
Output = Any
"""A tensor, or a tuple of tensors, with None for one that nobody reads."""
Operator = Callable[[List[Any], Attributes], Output]
"""From inputs, with None for one that is left out."""


def together(*values: Tensor) -> List[Tensor]:
    """The same values on one device: those on the processor follow the others."""
    away = _away(values)
    return [value if away is None else value.to(away) for value in values]


def plain(function: Callable[..., Any]) -> Operator:
    """An operator that has no attributes, and works number by number on inputs that meet.

    Single numbers stay where they are: torch takes them from the processor.
    """

    def work(inputs: List[Any], _: Attributes) -> Any:
        away = _away(inputs)
        return function(
            *(value if away is None or not value.dim() else value.to(away) for value in inputs)
        )

    return work


def _away(values: Sequence[Tensor]) -> Optional[torch.device]:
    """The device of the values that are not on the processor; None where all of them are."""
    return next((value.device for value in values if value.device.type != "cpu"), None)


def integers(value: Tensor) -> List[int]:
    """The numbers of a shape, or of a list of axes."""
    return [int(each) for each in value.reshape(-1).tolist()]


def axes_of(inputs: List[Any], attributes: Attributes) -> List[int]:
    """The axes that an operator is given, as an input or an attribute; [] for none."""
    if len(inputs) > 1 and inputs[1] is not None:
        return integers(inputs[1])
    return list(attributes.get("axes") or [])
