"""Application Auto Scaling of a production variant.

Sources: "Automatic scaling of Amazon SageMaker AI models" and "Autoscale an asynchronous endpoint".
"""

from __future__ import annotations

from fastai_deploy.aws.template.alarms import SAGEMAKER
from fastai_deploy.aws.template.intrinsics import Json, Resources, ref, resource, tags
from fastai_deploy.aws.template.serving import ENDPOINT
from fastai_deploy.aws.template.spec import VARIANT, EndpointSpec, Scaling
from fastai_deploy.naming import alarm_name

TARGET = "ScalableTarget"
# New instances take minutes to serve, so what one minute takes away is not given back at once.
_IN_COOLDOWN = 300
_OUT_COOLDOWN = 60


def scaling_resources(spec: EndpointSpec) -> Resources:
    """The scalable target and its policies; nothing where the number of instances is fixed."""
    scaling = spec.scaling
    if scaling is None:
        return {}
    resources: Resources = {
        TARGET: resource(
            "AWS::ApplicationAutoScaling::ScalableTarget",
            {
                "ServiceNamespace": "sagemaker",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
                "ResourceId": f"endpoint/{spec.name}/variant/{VARIANT}",
                "MinCapacity": scaling.minimum,
                "MaxCapacity": scaling.maximum,
                "Tags": tags(spec.common, spec.version),
            },
            DependsOn=[ENDPOINT],
        ),
        "ScalingPolicy": resource(
            "AWS::ApplicationAutoScaling::ScalingPolicy",
            {
                "PolicyName": f"{spec.name}-load",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": ref(TARGET),
                "TargetTrackingScalingPolicyConfiguration": {
                    "TargetValue": scaling.target,
                    **_load(spec),
                    "ScaleInCooldown": _IN_COOLDOWN,
                    "ScaleOutCooldown": _OUT_COOLDOWN,
                },
            },
        ),
    }
    return resources | (_wake_up(spec) if _sleeps(scaling) else {})


def _load(spec: EndpointSpec) -> dict[str, Json]:
    """What the target value counts: requests a minute and instance, or waiting ones."""
    if spec.kind != "async":
        kind = "SageMakerVariantInvocationsPerInstance"
        return {"PredefinedMetricSpecification": {"PredefinedMetricType": kind}}
    return {
        "CustomizedMetricSpecification": {
            "Namespace": SAGEMAKER,
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Dimensions": [{"Name": "EndpointName", "Value": spec.name}],
            "Statistic": "Average",
        }
    }


def _sleeps(scaling: Scaling) -> bool:
    return scaling.minimum == 0


def _wake_up(spec: EndpointSpec) -> Resources:
    """From no instance to one: a backlog per instance cannot tell when there is none."""
    owner = spec.common.owner
    return {
        "WakeUpPolicy": resource(
            "AWS::ApplicationAutoScaling::ScalingPolicy",
            {
                "PolicyName": f"{spec.name}-wake-up",
                "PolicyType": "StepScaling",
                "ScalingTargetId": ref(TARGET),
                "StepScalingPolicyConfiguration": {
                    "AdjustmentType": "ChangeInCapacity",
                    "MetricAggregationType": "Average",
                    "Cooldown": _IN_COOLDOWN,
                    "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
                },
            },
        ),
        "WakeUpAlarm": resource(
            "AWS::CloudWatch::Alarm",
            {
                "AlarmName": alarm_name(owner.project, owner.stage, "endpoint-wake-up"),
                "AlarmDescription": f"Requests wait for {spec.name}, which has no instance",
                "Namespace": SAGEMAKER,
                "MetricName": "HasBacklogWithoutCapacity",
                "Dimensions": [{"Name": "EndpointName", "Value": spec.name}],
                "Statistic": "Average",
                "Period": 60,
                "EvaluationPeriods": 2,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "Threshold": 1,
                "TreatMissingData": "missing",
                "AlarmActions": [ref("WakeUpPolicy")],
                "Tags": tags(spec.common, spec.version),
            },
        ),
    }
