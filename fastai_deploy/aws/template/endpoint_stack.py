"""The stack ``<project>-<stage>-endpoint``.

    ExecutionRole <- Model <- EndpointConfig <- Endpoint <- ScalableTarget <- policies
                     LogGroup, alarms ─────────────┘

Whatever changes in a model or a configuration makes new ones under new names; the endpoint moves
over without interruption (blue/green), and only then do the old ones go.
"""

from __future__ import annotations

from fastai_deploy.aws.template import alarms, serving
from fastai_deploy.aws.template.dashboard import dashboard
from fastai_deploy.aws.template.execution_role import execution_role
from fastai_deploy.aws.template.intrinsics import Json, Resources, ref, template
from fastai_deploy.aws.template.logs import log_group
from fastai_deploy.aws.template.scaling import scaling_resources
from fastai_deploy.aws.template.spec import VARIANT, EndpointSpec, Serverless
from fastai_deploy.naming import endpoint_log_group

UNPROVEN = "Unproven"  # the output that a stack has when not all of its answers are proven


def endpoint_template(spec: EndpointSpec) -> Json:
    """The template of an endpoint's stack."""
    role = execution_role(spec)
    model = serving.model(spec, role)
    config = serving.configuration(spec, model.name)
    watching: Resources = {}
    if spec.rollout.bake and not isinstance(spec.capacity, Serverless):
        watching = alarms.rollback_alarms(spec, config.name)
    resources: Resources = {
        serving.ROLE: role,
        serving.MODEL: model.resource,
        serving.CONFIG: config.resource,
        "LogGroup": log_group(spec.common, spec.version, endpoint_log_group(spec.name)),
        serving.ENDPOINT: serving.endpoint(
            spec, config.name, alarms=sorted(watching), after=["LogGroup"]
        ),
        **scaling_resources(spec),
        **alarms.endpoint_alarms(spec),
        **watching,
    }
    if spec.dashboard:
        resources["Dashboard"] = dashboard(spec)
    owner = spec.common.owner
    return template(
        f"fdeploy: the endpoint of {owner.project}, stage {owner.stage}",
        resources,
        {
            "EndpointName": spec.name,
            "EndpointArn": ref(serving.ENDPOINT),
            "EndpointConfigName": config.name,
            "ModelName": model.name,
            "VariantName": VARIANT,
            "Kind": spec.kind,
            "Version": spec.version,
            "Image": spec.model.image,
            "ArtifactUri": spec.model.artifact.uri,
            "LogGroupName": endpoint_log_group(spec.name),
            **({UNPROVEN: "yes"} if spec.unproven else {}),
        },
    )
