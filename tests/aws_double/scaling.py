"""Application Auto Scaling: targets and policies are kept and listed; nothing is ever scaled.

Source: the API reference of RegisterScalableTarget, PutScalingPolicy and their counterparts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tests.aws_double import emulator

Json = Any
_KEY = ("ServiceNamespace", "ResourceId", "ScalableDimension")


class Scaling:
    """The service; state is by account and region."""

    def __init__(self) -> None:
        self.targets: Any = emulator.Store()
        self.policies: Any = emulator.Store()
        self._operations: Mapping[str, Callable[[Json], Json]] = {
            "RegisterScalableTarget": self.register,
            "DeregisterScalableTarget": self.deregister,
            "DescribeScalableTargets": lambda request: {
                "ScalableTargets": _matching(self.targets, request)
            },
            "PutScalingPolicy": self.put_policy,
            "DeleteScalingPolicy": self.delete_policy,
            "DescribeScalingPolicies": lambda request: {
                "ScalingPolicies": _matching(self.policies, request)
            },
        }

    def handle(self, operation: str, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request."""
        run = self._operations.get(operation)
        if run is None:
            return 400, {"__type": "UnknownOperationException", "message": operation}
        try:
            return 200, run(json.loads(body or b"{}"))
        except LookupError as error:
            return 400, {"__type": "ObjectNotFoundException", "message": str(error)}

    def register(self, request: Json) -> Json:
        """RegisterScalableTarget, also for one that is registered already."""
        self.targets[_key(request)] = {**self.targets.get(_key(request), {}), **request}
        return {"ScalableTargetARN": self._arn("scalable-target", "1")}

    def deregister(self, request: Json) -> Json:
        """DeregisterScalableTarget; its policies go with it."""
        if _key(request) not in self.targets:
            raise LookupError(f"No scalable target found for {'|'.join(_key(request))}")
        del self.targets[_key(request)]
        for name, policy in list(self.policies.items()):
            if _key(policy) == _key(request):
                del self.policies[name]
        return {}

    def put_policy(self, request: Json) -> Json:
        """PutScalingPolicy; the target must be registered."""
        if _key(request) not in self.targets:
            raise LookupError(f"No scalable target registered for {'|'.join(_key(request))}")
        arn = self._arn("scalingPolicy", f"{uuid.uuid4()}:policyName/{request['PolicyName']}")
        self.policies[request["PolicyName"]] = {**request, "PolicyARN": arn}
        return {"PolicyARN": arn, "Alarms": []}

    def delete_policy(self, request: Json) -> Json:
        """DeleteScalingPolicy."""
        if request["PolicyName"] not in self.policies:
            raise LookupError(f"No scaling policy found: {request['PolicyName']}")
        del self.policies[request["PolicyName"]]
        return {}

    def _arn(self, kind: str, name: str) -> str:
        place = f"{emulator.get_region()}:{emulator.get_account()}"
        return f"arn:aws:application-autoscaling:{place}:{kind}/{name}"


def _key(request: Json) -> tuple[str, ...]:
    return tuple(str(request[name]) for name in _KEY)


def _matching(store: Any, request: Json) -> list[Json]:
    namespace = request["ServiceNamespace"]
    resources = request.get("ResourceIds") or [request.get("ResourceId")]
    return [
        item
        for item in store.values()
        if item["ServiceNamespace"] == namespace
        and (resources == [None] or item["ResourceId"] in resources)
    ]
