"""A domain of the user's own before the API: its certificate stands in ACM, its DNS is the user's.

The API answers under its own name, too: that is how it is proven before the DNS entry is there.
"""

from __future__ import annotations

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.intrinsics import Resources, ref, resource, tag_map, tags

DOMAIN = "Domain"
_MAPPING = "DomainMapping"
_TLS = "TLS_1_2"


def domain_resources(spec: ApiSpec, api: str, stage: str) -> Resources:
    """The domain and its way to the API and stage with these logical ids; none without a domain."""
    domain = spec.domain
    if domain is None:
        return {}
    if spec.type == "rest":
        return {
            DOMAIN: resource(
                "AWS::ApiGateway::DomainName",
                {
                    "DomainName": domain.name,
                    "RegionalCertificateArn": domain.certificate,
                    "EndpointConfiguration": {"Types": ["REGIONAL"]},
                    "SecurityPolicy": _TLS,
                    "Tags": tags(spec.common, spec.version),
                },
            ),
            _MAPPING: resource(
                "AWS::ApiGateway::BasePathMapping",
                {"DomainName": ref(DOMAIN), "RestApiId": ref(api), "Stage": ref(stage)},
            ),
        }
    return {
        DOMAIN: resource(
            "AWS::ApiGatewayV2::DomainName",
            {
                "DomainName": domain.name,
                "DomainNameConfigurations": [
                    {
                        "CertificateArn": domain.certificate,
                        "EndpointType": "REGIONAL",
                        "SecurityPolicy": _TLS,
                    }
                ],
                "Tags": tag_map(spec.common, spec.version),
            },
        ),
        _MAPPING: resource(
            "AWS::ApiGatewayV2::ApiMapping",
            {"ApiId": ref(api), "DomainName": ref(DOMAIN), "Stage": ref(stage)},
        ),
    }
