"""A custom domain for the API, by the real commands: created, inspected and removed."""

from __future__ import annotations

from typing import Any

import pytest

from fastai_deploy import naming
from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.packaged import Model

DOMAIN = "films.example.com"


def configure(stage: Stage, kind: str) -> str:
    certificate = f"arn:aws:acm:{REGION}:{stage.account}:certificate/{'0' * 8}"
    auth = 'auth = "iam"\n' if kind == "http" else ""
    stage.folder.joinpath("fdeploy.toml").write_text(
        f'[api]\ntype = "{kind}"\n{auth}domain = "{DOMAIN}"\ncertificate = "{certificate}"\n'
    )
    return certificate


def tags_of(found: Any) -> dict[str, str]:
    return {key: value for key, value in found.items() if key.startswith("fdeploy:")}


@pytest.fixture
def stage(opened: Open, model: Model) -> Stage:
    stored = opened(model, "")
    stored.run.ok("upload", "--region", REGION)
    stored.run.ok("deploy")
    return stored


def test_a_rest_api_has_the_domain(stage: Stage) -> None:
    certificate = configure(stage, "rest")
    made = stage.run.ok("create-api", "--json")
    gateway = stage.client("apigateway")
    (domain,) = gateway.get_domain_names()["items"]
    assert domain["domainName"] == DOMAIN
    assert domain["regionalCertificateArn"] == certificate
    assert domain["securityPolicy"] == "TLS_1_2"
    assert domain["endpointConfiguration"]["types"] == ["REGIONAL"]
    assert set(tags_of(domain["tags"])) == {
        naming.PROJECT_TAG,
        naming.STAGE_TAG,
        naming.VERSION_TAG,
    }
    (mapping,) = gateway.get_base_path_mappings(domainName=DOMAIN)["items"]
    (api,) = gateway.get_rest_apis()["items"]
    assert (mapping["basePath"], mapping["restApiId"], mapping["stage"]) == (
        "(none)",
        api["id"],
        "dev",
    )
    # The user must create the DNS entry; the command prints it.
    assert f"https://{DOMAIN}" in made.stderr
    record = f"a CNAME (or alias) from {DOMAIN} to {domain['regionalDomainName']}"
    assert record in made.stderr
    assert api["id"] in made.json["url"], "it is proven under its own name"

    proof = stage.run.ok("teardown", "--artifacts", "--json").json
    assert f"domain name {DOMAIN}" in proof["deleted"]
    assert proof["left"] == []
    assert stage.everything() == []


def test_an_http_api_has_the_domain(stage: Stage) -> None:
    certificate = configure(stage, "http")
    made = stage.run.ok("create-api", "--json")
    gateway = stage.client("apigatewayv2")
    (domain,) = gateway.get_domain_names()["Items"]
    assert domain["DomainName"] == DOMAIN
    (configuration,) = domain["DomainNameConfigurations"]
    assert configuration["CertificateArn"] == certificate
    assert configuration["SecurityPolicy"] == "TLS_1_2"
    (mapping,) = gateway.get_api_mappings(DomainName=DOMAIN)["Items"]
    (api,) = gateway.get_apis()["Items"]
    assert (mapping["ApiId"], mapping.get("ApiMappingKey", "")) == (api["ApiId"], "")
    assert configuration["ApiGatewayDomainName"] in made.stderr

    # Without the setting, the next deploy removes the domain and keeps the API.
    stage.folder.joinpath("fdeploy.toml").write_text('[api]\ntype = "http"\nauth = "iam"\n')
    assert stage.run.ok("create-api", "--json").json["url"] == made.json["url"]
    assert gateway.get_domain_names()["Items"] == []
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []
