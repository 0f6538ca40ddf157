"""The Lambda between API Gateway and the endpoint: its code, its log, and what it may do."""

from __future__ import annotations

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.intrinsics import Json, Resources, arn, attribute, resource, tags
from fastai_deploy.aws.template.logs import log_group
from fastai_deploy.aws.template.roles import service_role, statement
from fastai_deploy.naming import function_log_group

FUNCTION = "Function"
ROLE = "FunctionRole"
# The newest that all of AWS's regions have; its botocore knows InvokeEndpoint as ever.
RUNTIME = "python3.13"


def function_resources(spec: ApiSpec) -> Resources:
    """The function, its role and its log group."""
    function, common = spec.function, spec.common
    group = function_log_group(function.name)
    log_arn = arn("logs", f"log-group:{group}:*")
    allowed = [
        statement(
            "Invoke", ["sagemaker:InvokeEndpoint"], arn("sagemaker", f"endpoint/{spec.endpoint}")
        ),
        statement("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], log_arn),
    ]
    if common.kms_key:
        allowed.append(statement("Key", ["kms:Decrypt"], common.kms_key))
    return {
        ROLE: service_role(
            common,
            spec.version,
            service="lambda.amazonaws.com",
            statements=allowed,
            description=f"What the Lambda {function.name} may do",
        ),
        "FunctionLogGroup": log_group(common, spec.version, group),
        FUNCTION: resource(
            "AWS::Lambda::Function",
            {
                "FunctionName": function.name,
                "Description": f"Asks the endpoint {spec.endpoint} (fdeploy)",
                "Runtime": RUNTIME,
                "Architectures": ["arm64"],
                "Handler": function.handler,
                "Code": {"S3Bucket": function.code.bucket, "S3Key": function.code.key},
                "Role": attribute(ROLE, "Arn"),
                "MemorySize": function.memory,
                "Timeout": function.timeout,
                "Environment": {"Variables": dict(function.environment)},
                "KmsKeyArn": common.kms_key,
                "ReservedConcurrentExecutions": function.concurrency,
                "Tags": tags(common, spec.version),
            },
            DependsOn=["FunctionLogGroup"],
        ),
    }


def permission(source: Json) -> Json:
    """That an API (an ``execute-api`` ARN pattern) may call the function."""
    return resource(
        "AWS::Lambda::Permission",
        {
            "Action": "lambda:InvokeFunction",
            "FunctionName": attribute(FUNCTION, "Arn"),
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": source,
        },
    )
