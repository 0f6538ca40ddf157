"""The stages whose templates are stored as golden files, one project file each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastai_deploy.aws.capacity import known_types
from fastai_deploy.aws.images import installed_tables
from fastai_deploy.aws.permissions import Needs, role_policies, user_policies
from fastai_deploy.aws.specs import ApiSpec, EndpointSpec, FunctionSpec, Location, Roles
from fastai_deploy.aws.templates.render import (
    Published,
    Serving,
    api_template,
    endpoint_template,
    expiry_template,
    function_template,
    published,
    transform_template,
)
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.wanted import api_spec, endpoint_spec, function_spec, ttl_spec
from fastai_deploy.naming import artifact_key, batch_prefix, batch_stack, code_key
from fastai_deploy.packaging.container_files import BACKEND_URL
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings, load_settings
from fastai_deploy.targets.aws.stacks import chosen_image

BUCKET = "fdeploy-123456789012-eu-central-1"
SHA256 = "3f2a9c01b7de" + "0" * 52
CODE_SHA256 = "8c1d" + "0" * 60
KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-1111-2222-3333-444455556666"
CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/0a1b2c3d-1111-2222-3333-4444"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundaries/applications"
EXECUTION_ROLE = "arn:aws:iam::123456789012:role/sagemaker/endpoints"
LAMBDA_ROLE = "arn:aws:iam::123456789012:role/functions"
CLOUDFORMATION_ROLE = "arn:aws:iam::123456789012:role/cloudformation"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"
ENDS = datetime(2026, 11, 22, 16, 0, tzinfo=timezone.utc)
TABLES, KNOWN = installed_tables(), known_types()

OWN_IMAGE = f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/fdeploy/demo@sha256:{'5' * 64}"
ENDPOINTS = {
    "real-time-cpu": "",
    "real-time-gpu": 'instance = "ml.g5.xlarge"\n',
    "graviton": 'instance = "ml.c7g.large"\n',
    "p2": 'instance = "ml.p2.xlarge"\n',
    "serverless": 'kind = "serverless"\nserverless_memory = 4096\nprovisioned_concurrency = 2\n',
    "async": (
        'kind = "async"\ninstance = "ml.g5.xlarge"\nscale_to_zero = true\nmax_instances = 4\n'
    ),
    "autoscaling": "instance_count = 2\nmax_instances = 6\nscaling_target = 300\nbake = 0\n",
    "rolling": "instance_count = 4\nrolling = true\n",
    "vpc-kms": (
        'instance_count = 2\ncanary = true\nsubnets = ["subnet-0a1b2c3d", "subnet-4e5f6a7b"]\n'
        'security_groups = ["sg-0123abcd"]\ndata_capture = 20\nserver = "torchserve"\n'
        "startup_timeout = 900\n[project]\nregion = 'eu-central-1'\nname = 'demo'\n"
        f"kms_key = '{KMS_KEY}'\nalarm_topic = '{TOPIC}'\n"
        "tags = {team = 'nlp', cost-centre = '42'}\nlog_retention = 365\ndashboard = false\n"
        f"permissions_boundary = '{BOUNDARY}'\n"
    ),
    "given-role": (
        f"[project]\nregion = 'eu-central-1'\nname = 'demo'\nexecution_role = '{EXECUTION_ROLE}'\n"
    ),
}
FUNCTIONS = {
    "packed": "",
    "full": (
        'subnets = ["subnet-0a1b2c3d"]\nsecurity_groups = ["sg-0123abcd"]\n'
        "[endpoint.function]\nmemory = 4096\nprovisioned_concurrency = 2\nconcurrency = 5\n"
        "storage = 2048\n[project]\nregion = 'eu-central-1'\nname = 'demo'\n"
        f"kms_key = '{KMS_KEY}'\nalarm_topic = '{TOPIC}'\ntags = {{team = 'nlp'}}\n"
        f"permissions_boundary = '{BOUNDARY}'\n"
    ),
    "snapstart": "[endpoint.function]\nsnapstart = true\n",
    "given-role": (
        f"[project]\nregion = 'eu-central-1'\nname = 'demo'\nlambda_role = '{LAMBDA_ROLE}'\n"
    ),
}
IN_FUNCTION = '[endpoint]\nkind = "lambda"\n'
APIS = {
    "rest-key": "",
    "rest-lambda": IN_FUNCTION,
    "url-lambda": f'type = "function-url"\nauth = "none"\npage = true\n{IN_FUNCTION}',
    "http-lambda": f'type = "http"\nauth = "iam"\n{IN_FUNCTION}',
    "rest-full": (
        'route = "/v1/classify"\nquota = 5000\nrate = 10\nburst = 20\nconcurrency = 5\n'
        'timeout = 12.5\ncors_origins = ["https://a.example", "https://b.example"]\n[project]\n'
        "region = 'eu-central-1'\nname = 'demo'\ntags = {team = 'nlp'}\n"
        f"kms_key = '{KMS_KEY}'\nalarm_topic = '{TOPIC}'\n"
        f"permissions_boundary = '{BOUNDARY}'\n"
    ),
    "rest-given-role": (
        f"[project]\nregion = 'eu-central-1'\nname = 'demo'\nlambda_role = '{LAMBDA_ROLE}'\n"
    ),
    "rest-iam": 'auth = "iam"\ncors_origins = ["https://a.example"]\naccess_logs = false\n',
    "rest-none": 'auth = "none"\n',
    "rest-page": "page = true\n",
    "rest-domain": f'domain = "api.example.com"\ncertificate = "{CERTIFICATE}"\n',
    "http-domain": (
        f'type = "http"\nauth = "iam"\ndomain = "a.b.co"\ncertificate = "{CERTIFICATE}"\n'
    ),
    "http-iam": 'type = "http"\nauth = "iam"\n',
    "http-jwt": (
        'type = "http"\nauth = "jwt"\njwt_issuer = "https://id.example/pool"\n'
        'jwt_audience = ["demo"]\ncors_origins = ["*"]\npage = true\n'
    ),
}


@dataclass(frozen=True)
class Golden:
    """A document of a stage: its resolved template, or a policy."""

    name: str
    document: Any
    template: Template | None = None

    @classmethod
    def of(cls, name: str, template: Template) -> Golden:
        """The resources of a template, as a template of its own without parameters."""
        header = {"AWSTemplateFormatVersion": "2010-09-09"}
        return cls(name, {**header, **template.evaluated()}, template)


def settings_of(toml: str, *, stage: str | None = None) -> Settings:
    """The settings of a project file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fdeploy.toml").write_text(toml, encoding="utf-8")
        return load_settings(folder=Path(folder), stage=stage, environ={})


def section(name: str, toml: str, *, region: str = "eu-central-1") -> str:
    """A project file with this section, and a project unless the section brings its own."""
    project = "" if "[project]" in toml else f"[project]\nname = 'demo'\nregion = '{region}'\n"
    return f"{project}[{name}]\n{toml}"


def endpoint_of(
    settings: Settings, backend_url: str = BACKEND_URL, own_image: str = ""
) -> EndpointSpec:
    """The endpoint of some settings, with the real image tables, or an image of the own server."""
    region = settings.sections.project.region or "eu-central-1"
    found, image = chosen_image(settings, region, None, own=own_image)
    uri = Location(BUCKET, artifact_key(settings.project_name, SHA256)).uri
    stored = StoredArtifact("aws", uri, SHA256, 1, SHA256, backend_url=backend_url)
    return endpoint_spec(settings, stored, image, found)


def transform_of(settings: Settings) -> EndpointSpec:
    """The specification from which a batch transform's stack is made."""
    endpoint = settings.sections.endpoint.model_copy(update={"kind": "async"})
    sections = settings.sections.model_copy(update={"endpoint": endpoint})
    spec = endpoint_of(replace(settings, sections=sections))
    place = Location(BUCKET, batch_prefix(settings.project_name, settings.stage))
    name = batch_stack(settings.project_name, settings.stage)
    return replace(spec, name=name, output=place, scaling=None)


def api_of(settings: Settings, *, gateway_logs: bool = True) -> ApiSpec:
    """The API of some settings."""
    code = Location(BUCKET, code_key(settings.project_name, CODE_SHA256))
    return api_spec(settings, code=code, code_version=CODE_SHA256, gateway_logs=gateway_logs)


def function_of(settings: Settings, *, reads: bool = False) -> FunctionSpec:
    """The function of some settings; ``reads``: its model does not fit into the package."""
    uri = Location(BUCKET, artifact_key(settings.project_name, SHA256)).uri
    stored = StoredArtifact("aws", uri, SHA256, 1, SHA256)
    code = Location(BUCKET, code_key(settings.project_name, CODE_SHA256))
    size = 500_000_000 if reads else 23_000_000
    return function_spec(settings, stored, code, size=size, reads=reads)


def of_type(template: Any, kind: str) -> list[Any]:
    """The resources of a type in a template."""
    return [value for value in template["Resources"].values() if value["Type"] == kind]


def goldens() -> Iterator[Golden]:
    """Every golden document, as the code makes it now."""
    for name, toml in ENDPOINTS.items():
        settings = settings_of(section("endpoint", toml))
        yield Golden.of(f"endpoint-{name}", endpoint_template(endpoint_of(settings)))
    settings = settings_of(section("endpoint", ""))
    yield Golden.of("endpoint-own-image", endpoint_template(endpoint_of(settings, "", OWN_IMAGE)))
    for name, toml in APIS.items():
        spec = api_of(settings_of(section("api", toml)))
        yield Golden.of(f"api-{name}", api_template(spec))
    for name, toml in FUNCTIONS.items():
        settings = settings_of(section("endpoint", f'kind = "lambda"\n{toml}'))
        function = function_of(settings, reads=name == "full")
        new = published(function)
        before = Published("Version000000000000", new.resource, "0a1b2c3d4e5f")
        template = function_template(function, Serving(new, (before,)))
        yield Golden.of(f"function-{name}", template)
    settings = settings_of("[project]\nname = 'demo'\nregion = 'eu-central-1'\nttl = '4h'\n")
    ends = ttl_spec(settings, version=SHA256, ends=ENDS)
    yield Golden.of("expiry", expiry_template(ends))
    yield Golden.of("batch", transform_template(transform_of(settings)))
    for name, document in user_policies(Needs("demo", BUCKET, own_image=True)).items():
        yield Golden(f"user-policy-{name}", document)
    everything = Needs("demo", BUCKET, kms_key=KMS_KEY, signs_requests=True, own_image=True)
    yield Golden("user-policy-data-kms-iam", user_policies(everything)["data"])
    yield Golden("user-policy-images-kms", user_policies(everything)["images"])
    bound = Needs("demo", BUCKET, roles=Roles(boundary=BOUNDARY))
    yield Golden("user-policy-endpoint-bound", user_policies(bound)["endpoint"])
    given = Needs(
        "demo",
        BUCKET,
        kms_key=KMS_KEY,
        roles=Roles(BOUNDARY, EXECUTION_ROLE, LAMBDA_ROLE, CLOUDFORMATION_ROLE),
        makes_roles=False,
    )
    yield Golden("user-policy-stacks-given", user_policies(given)["stacks"])
    for name, document in role_policies(given).items():
        yield Golden(f"role-policy-{name}", document)
