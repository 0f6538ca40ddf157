"""CloudWatch alarms: what is measured, and from where on somebody should look.

Missing data is no reason to alarm, except where silence is what the alarm is for.
Sources: "Metrics for monitoring SageMaker", "Monitor asynchronous endpoint" and "Auto-Rollback
Configuration and Monitoring"; "REST API dimensions and metrics" and "Work with metrics for HTTP
APIs"; "Alarm warm-up periods".
"""

from __future__ import annotations

from collections.abc import Mapping

from fastai_deploy.aws.specs import VARIANT, ApiSpec, Common, EndpointSpec
from fastai_deploy.aws.template.intrinsics import Json, Resource, Resources, resource, tags
from fastai_deploy.naming import alarm_name

SAGEMAKER = "AWS/SageMaker"
API_GATEWAY = "AWS/ApiGateway"
_MINUTE = 60
_HOUR = 3_600
_MICROSECONDS = 1_000  # per millisecond
_WARM_UP = 60  # minutes; the goldens are the first requests


def endpoint_alarms(spec: EndpointSpec) -> Resources:
    """The alarms of the endpoint: errors, latency, and a bill that nobody uses."""
    at = {"EndpointName": spec.name, "VariantName": VARIANT}
    alarms: Resources = {}
    alarms["ErrorsAlarm"] = _errors(spec, "endpoint-errors", at)
    alarms["LatencyAlarm"] = _latency(spec, "endpoint-latency", at)
    # An async endpoint counts no invocations, and a serverless one costs nothing when idle.
    if spec.kind == "real-time" and spec.alarms.idle:
        alarms["IdleAlarm"] = _alarm(
            spec.common,
            spec.version,
            "endpoint-idle",
            f"Nobody has used {spec.name} for {spec.alarms.idle} h, and it costs by the hour: "
            "fdeploy teardown",
            {
                **_metric(SAGEMAKER, "Invocations", at),
                "Statistic": "Sum",
                "Period": _HOUR,
                "EvaluationPeriods": spec.alarms.idle,
                "ComparisonOperator": "LessThanThreshold",
                "Threshold": 1,
                "TreatMissingData": "breaching",
                "WarmUpConfiguration": {"WarmUpPeriodDurationInMinutes": _WARM_UP},
            },
        )
    return alarms


def rollback_alarms(spec: EndpointSpec, config: str) -> Resources:
    """The alarms that bring the old version back: they look at the new fleet alone.

    ``config`` is the endpoint configuration's name, which is in the alarms' names too: an alarm
    that was on before would end every attempt to mend what it is about.
    """
    at = {"EndpointName": spec.name, "VariantName": VARIANT, "EndpointConfigName": config}
    owner = spec.common.owner
    about = config.removeprefix(f"{owner.project}-{owner.stage}-")
    return {
        "NewErrorsAlarm": _errors(spec, f"{about}-errors", at),
        "NewLatencyAlarm": _latency(spec, f"{about}-latency", at),
    }


def api_alarms(spec: ApiSpec, api: Json) -> Resources:
    """The alarms of the API; ``api`` is its id, by which an HTTP API is measured."""
    owner = spec.common.owner
    if spec.type == "rest":
        name = f"{owner.project}-{owner.stage}"
        at: Mapping[str, Json] = {"ApiName": name, "Stage": owner.stage}
        server, client = "5XXError", "4XXError"
    else:
        at = {"ApiId": api, "Stage": "$default"}
        server, client = "5xx", "4xx"
    thresholds = spec.alarms

    def share(about: str, metric: str, most: float) -> Resource:
        return _alarm(
            spec.common,
            spec.version,
            f"api-{about}",
            f"More than {most:.0%} of the requests to the API fail ({metric})",
            {**_metric(API_GATEWAY, metric, at), "Statistic": "Average", **_above(most)},
        )

    return {
        "ServerErrorsAlarm": share("errors", server, thresholds.errors),
        "ClientErrorsAlarm": share("client-errors", client, thresholds.client_errors),
        "ApiLatencyAlarm": _alarm(
            spec.common,
            spec.version,
            "api-latency",
            f"The p95 of the API is above {thresholds.latency} ms",
            {**_metric(API_GATEWAY, "Latency", at), **_p95(thresholds.latency)},
        ),
    }


def _errors(spec: EndpointSpec, about: str, at: Mapping[str, Json]) -> Resource:
    most = spec.alarms.errors
    return _alarm(
        spec.common,
        spec.version,
        about,
        f"More than {most:.0%} of the requests to {spec.name} fail (5xx)",
        {**_metric(SAGEMAKER, "Invocation5XXErrors", at), "Statistic": "Average", **_above(most)},
    )


def _latency(spec: EndpointSpec, about: str, at: Mapping[str, Json]) -> Resource:
    most = spec.alarms.latency
    return _alarm(
        spec.common,
        spec.version,
        about,
        f"The p95 of the model of {spec.name} is above {most} ms",
        {**_metric(SAGEMAKER, "ModelLatency", at), **_p95(most * _MICROSECONDS)},
    )


def _metric(namespace: str, name: str, at: Mapping[str, Json]) -> dict[str, Json]:
    dimensions = [{"Name": key, "Value": value} for key, value in at.items()]
    return {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}


def _above(threshold: float) -> dict[str, Json]:
    """Two of three minutes above."""
    return {
        "Period": _MINUTE,
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 2,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": threshold,
        "TreatMissingData": "notBreaching",
    }


def _p95(threshold: float) -> dict[str, Json]:
    # A percentile of a handful of requests says nothing.
    return {
        "ExtendedStatistic": "p95",
        "EvaluateLowSampleCountPercentile": "ignore",
        **_above(threshold),
    }


def _alarm(
    common: Common, version: str, about: str, description: str, properties: Mapping[str, Json]
) -> Resource:
    told = [common.alarm_topic] if common.alarm_topic else None
    return resource(
        "AWS::CloudWatch::Alarm",
        {
            "AlarmName": alarm_name(common.owner.project, common.owner.stage, about),
            "AlarmDescription": description,
            **properties,
            "AlarmActions": told,
            "OKActions": told,
            "Tags": tags(common, version),
        },
    )
