"""One CloudWatch dashboard a stage: what is asked, how long it takes, what fails, what is used.

The API's rows come from the metrics that the Lambda writes into its log, so that they are the same
for every kind of API. Source: "Dashboard body structure and syntax" of CloudWatch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastai_deploy.aws.template.alarms import SAGEMAKER
from fastai_deploy.aws.template.intrinsics import Json, Resource, resource, sub, tags
from fastai_deploy.aws.template.spec import VARIANT, EndpointSpec
from fastai_deploy.runtime.gateway.request_log import NAMESPACE

_INSTANCES = "/aws/sagemaker/Endpoints"
_WIDTH, _HEIGHT = 12, 6  # of the 24 columns


def dashboard(spec: EndpointSpec) -> Resource:
    """The dashboard of the stage."""
    owner = spec.common.owner
    body = json.dumps({"widgets": _placed(_widgets(spec))}, separators=(",", ":"))
    return resource(
        "AWS::CloudWatch::Dashboard",
        {
            "DashboardName": f"{owner.project}-{owner.stage}",
            "DashboardBody": sub(body),
            "Tags": tags(spec.common, spec.version),
        },
    )


def _widgets(spec: EndpointSpec) -> list[Json]:
    at = ["EndpointName", spec.name, "VariantName", VARIANT]
    asked = "Invocations" if spec.kind != "async" else "InvocationFailures"
    used = ["CPUUtilization", "MemoryUtilization"]
    if spec.kind == "serverless":
        used = ["MemoryUtilization", "ModelSetupTime"]
    return [
        _widget("API: requests and errors", _api(spec, "Requests", "ClientErrors", "ServerErrors")),
        _widget("API: p50 and p95 in ms", _api(spec, "Latency"), stats=("p50", "p95")),
        _widget(
            "Endpoint: requests and errors",
            [
                [SAGEMAKER, name, *at]
                for name in (asked, "Invocation4XXErrors", "Invocation5XXErrors")
            ],
        ),
        _widget(
            "Model: p50 and p95 in microseconds",
            [[SAGEMAKER, "ModelLatency", *at]],
            stats=("p50", "p95"),
        ),
        _widget(
            "Used",
            [[SAGEMAKER if name == "ModelSetupTime" else _INSTANCES, name, *at] for name in used],
            stats=("Average",),
        ),
    ]


def _api(spec: EndpointSpec, *names: str) -> list[Json]:
    return [[NAMESPACE, name, "Endpoint", spec.name] for name in names]


def _widget(title: str, metrics: list[Json], *, stats: Sequence[str] = ("Sum",)) -> Json:
    return {
        "type": "metric",
        "properties": {
            "title": title,
            "region": "${AWS::Region}",
            "period": 60,
            "metrics": [[*metric, {"stat": stat}] for metric in metrics for stat in stats],
        },
    }


def _placed(widgets: list[Json]) -> list[Json]:
    """Two in a row."""
    return [
        {
            **widget,
            "x": index % 2 * _WIDTH,
            "y": index // 2 * _HEIGHT,
            "width": _WIDTH,
            "height": _HEIGHT,
        }
        for index, widget in enumerate(widgets)
    ]
