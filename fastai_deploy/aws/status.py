"""The status of a stage: its stacks, its endpoint, its last hour, and what it costs.

Source: "Metrics for monitoring SageMaker": ``AWS/SageMaker`` by endpoint and variant; ModelLatency
is in microseconds. A value that cannot be queried is unknown, and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from fastai_deploy.aws.endpoint import find_endpoint
from fastai_deploy.aws.functions import FunctionState, find_function
from fastai_deploy.aws.inventory import Names
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.pricing import GetProducts, instance_price, pricing_region
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import Stack, our_stack
from fastai_deploy.errors import AwsError, AwsMissing
from fastai_deploy.naming import ALIAS, VERSION_TAG
from fastai_deploy.stage_reports import BY_USAGE, Bill, LastHour, Part, Status

ENDS_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # of the output of the ttl stack
_PATIENCE = timedelta(minutes=10)
_HOUR = 3_600
_MICROSECONDS_A_MS = 1_000


def status(aws: Aws, owner: Owner) -> Status:
    """The status of a stage. Raises NotOurs or AwsError."""
    ttl, api, batch, endpoint, function = (
        our_stack(aws, name, owner) for name in Names(owner.project, owner.stage).stacks
    )
    if function and (endpoint is None or _asks(api) == function.outputs.get("FunctionName")):
        return _of_function(aws, function, (endpoint, batch, function, api, ttl), api, ttl)
    outputs = endpoint.outputs if endpoint else {}
    name = outputs.get("EndpointName", "")
    state = find_endpoint(aws, name) if name else None
    return Status(
        target="aws",
        parts=tuple(_line(stack) for stack in (endpoint, batch, function, api, ttl) if stack),
        endpoint=name,
        endpoint_status=state.status if state else "",
        reason=state.reason if state else "",
        version=endpoint.tags.get(VERSION_TAG, "") if endpoint else "",
        instances=state.instances if state else 0,
        url=api.outputs.get("Url", "") if api else "",
        ends=ttl.outputs.get("Ends", "") if ttl else "",
        last_hour=_last_hour(aws, name, outputs.get("VariantName", "")),
        unproven="Unproven" in outputs,
        region=aws.region,
        account=aws.account,
        image=outputs.get("Image", ""),
        overdue=_is_overdue(aws, ttl, [stack for stack in (endpoint, api) if stack]),
        bill=_bill(
            aws, outputs.get("EndpointConfigName", ""), endpoint, state.instances if state else 0
        ),
    )


def _asks(api: Stack | None) -> str:
    """The endpoint or the function that the API asks; empty without an API."""
    return api.outputs.get("EndpointName", "") if api else ""


def _of_function(
    aws: Aws, stack: Stack, stacks: Sequence[Stack | None], api: Stack | None, ttl: Stack | None
) -> Status:
    """The status of a stage whose model is in a function."""
    name = stack.outputs.get("FunctionName", "")
    state = find_function(aws, name) if name else None
    shares = [f"{weight:.0%} go to version {one}" for one, weight in _weights(state)]
    note = f"a function of {state.memory:,} MB, {BY_USAGE}" if state else "the function is gone"
    return Status(
        target="aws",
        parts=tuple(_line(each) for each in stacks if each),
        endpoint=name,
        endpoint_status=state.status if state else "",
        reason="; ".join(([state.reason] if state and state.reason else []) + shares),
        version=stack.outputs.get("LiveVersion", ""),
        instances=0,
        url=api.outputs.get("Url", "") if api else "",
        ends=ttl.outputs.get("Ends", "") if ttl else "",
        last_hour=_hour_of_function(aws, name),
        unproven="Unproven" in stack.outputs,
        region=aws.region,
        account=aws.account,
        overdue=_is_overdue(aws, ttl, [each for each in (stack, api) if each]),
        bill=Bill(None, None, "USD", note),
    )


def _weights(state: FunctionState | None) -> list[tuple[str, float]]:
    return sorted(state.weights.items()) if state else []


def _hour_of_function(aws: Aws, name: str) -> LastHour:
    """Source: "Types of metrics for Lambda functions"; Duration is in milliseconds."""
    dimensions = [
        {"Name": "FunctionName", "Value": name},
        {"Name": "Resource", "Value": f"{name}:{ALIAS}"},
    ]
    wanted = {
        "invocations": ("Invocations", "Sum"),
        "errors": ("Errors", "Sum"),
        "p50": ("Duration", "p50"),
        "p95": ("Duration", "p95"),
    }
    found = _metrics(
        aws,
        [_query(each, "AWS/Lambda", *of, dimensions) for each, of in wanted.items()],
    )
    if found is None:
        return LastHour(None, None, None, None)
    first = {each: values[0] for each, values in found.items() if values}
    return LastHour(
        invocations=_sum(found, "invocations"),
        errors=_sum(found, "errors"),
        p50_ms=first.get("p50"),
        p95_ms=first.get("p95"),
    )


def _metrics(aws: Aws, queries: list[dict[str, Any]]) -> dict[str, list[float]] | None:
    """The values of the last hour by query; None if they may not be read."""
    now = aws.now()
    try:
        answer = aws.call(
            "cloudwatch",
            "get_metric_data",
            MetricDataQueries=queries,
            StartTime=now - timedelta(seconds=_HOUR),
            EndTime=now,
        )
    except AwsError:
        return None
    return {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}


def _is_overdue(aws: Aws, ttl: Stack | None, live: list[Stack]) -> bool:
    """Whether a stage should have been deleted minutes ago, and nobody is at it."""
    ends = ttl.outputs.get("Ends", "") if ttl else ""
    if not ends or any(stack.status == "DELETE_IN_PROGRESS" for stack in live):
        return False
    latest = datetime.strptime(ends, ENDS_FORMAT).replace(tzinfo=timezone.utc) + _PATIENCE
    return bool(live) and aws.now() > latest


def _line(stack: Stack) -> Part:
    return Part(stack.name, stack.status, f"{stack.updated:%Y-%m-%dT%H:%M:%SZ}")


def _last_hour(aws: Aws, endpoint: str, variant: str) -> LastHour:
    if not endpoint:
        return LastHour(None, None, None, None)
    wanted = {
        "invocations": ("Invocations", "Sum"),
        "errors4": ("Invocation4XXErrors", "Sum"),
        "errors5": ("Invocation5XXErrors", "Sum"),
        "p50": ("ModelLatency", "p50"),
        "p95": ("ModelLatency", "p95"),
    }
    dimensions = [
        {"Name": "EndpointName", "Value": endpoint},
        {"Name": "VariantName", "Value": variant},
    ]
    found = _metrics(
        aws, [_query(each, "AWS/SageMaker", *of, dimensions) for each, of in wanted.items()]
    )
    if found is None:
        return LastHour(None, None, None, None)
    latency = {
        name: found[name][0] / _MICROSECONDS_A_MS for name in ("p50", "p95") if found.get(name)
    }
    # SageMaker does not record zeros: an hour without requests has no value.
    return LastHour(
        invocations=_sum(found, "invocations"),
        errors=_sum(found, "errors4") + _sum(found, "errors5"),
        p50_ms=latency.get("p50"),
        p95_ms=latency.get("p95"),
    )


def _query(
    identity: str, space: str, metric: str, how: str, dimensions: list[dict[str, str]]
) -> dict[str, Any]:
    of = {"Namespace": space, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": identity, "MetricStat": {"Metric": of, "Period": _HOUR, "Stat": how}}


def _sum(found: Mapping[str, list[float]], name: str) -> int:
    return round(sum(found.get(name, [])))


def _bill(aws: Aws, config: str, stack: Stack | None, instances: int) -> Bill:
    """The current price, and the cost since the stack was created at the current instance count."""
    if stack is None or not config:
        return Bill(None, None, "USD", "no endpoint")
    try:
        found = aws.call("sagemaker", "describe_endpoint_config", EndpointConfigName=config)
    except AwsMissing:
        return Bill(None, None, "USD", "the endpoint configuration is gone")
    instance = found["ProductionVariants"][0].get("InstanceType")
    if instance is None:
        return Bill(None, None, "USD", f"serverless: {BY_USAGE}")

    price = instance_price(price_list(aws), instance, aws.region)
    if price.per_hour is None:
        return Bill(None, None, price.currency, price.reason)
    per_hour, now = price.per_hour * instances, aws.now()
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    def since(began: datetime) -> Decimal:
        hours = Decimal((now - began).total_seconds()) / _HOUR
        return (per_hour * hours).quantize(Decimal("0.01"))

    note = f"{instances} {instance}; assumes that this number never changed"
    return Bill(
        per_hour,
        since(stack.created),
        price.currency,
        note,
        this_month=since(max(month, stack.created)),
    )


def price_list(aws: Aws) -> GetProducts:
    """Access to AWS's price list, in the nearest region that has the API."""
    near = aws.elsewhere(pricing_region(aws.region))

    def get_products(**parameters: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = near.call("pricing", "get_products", **parameters)
        return answer

    return get_products
