"""APIs that CloudFormation imports from an OpenAPI body, as API Gateway does it.

A changed ``Body`` overwrites the API in place: its id, URL, stages and keys stay, and the body's
content replaces the old one. A resource with the same path, or a route with the same key, keeps its
id. So when CloudFormation deletes resources of an older template that declared paths and routes
separately, it deletes what the body has described.

Sources: the API references of PutRestApi (mode ``overwrite``) and ReimportApi, and the pages of
AWS::ApiGateway::RestApi and AWS::ApiGatewayV2::Api. That ids stay is the worst case for a
migration; AWS does not document whether they do. The double does not validate request bodies, so
it lacks API Gateway's request validator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.aws_double import emulator

Json = Any
Created = tuple[str, dict[str, Any]]

_ANY = "x-amazon-apigateway-any-method"
_INTEGRATION = "x-amazon-apigateway-integration"
_AUTHORIZER = "x-amazon-apigateway-authorizer"
_METHODS = ("get", "post", "put", "delete", "patch", "head", "options")


def install(table: dict[str, Any]) -> None:
    """Teach the types of the two kinds of API to import."""
    make = {kind: handlers["create"] for kind, handlers in table.items() if "create" in handlers}
    rest, http = table["AWS::ApiGateway::RestApi"], table["AWS::ApiGatewayV2::Api"]
    _importing(rest, lambda api, body: _put_rest_api(make, api, body))
    _importing(http, lambda api, body: _reimport_api(make, api, body))
    _refuse_second_ones(table)


def _importing(handlers: dict[str, Any], overwrite: Any) -> None:
    """Make the API without its body, and overwrite it then."""
    create, update = handlers["create"], handlers["update"]

    def created(logical_id: str, props: Json, stack: str) -> Created:
        made: Created = create(logical_id, _without_body(props), stack)
        if "Body" in props:
            overwrite(made[0], props["Body"])
        return made

    def updated(
        physical_id: str, old: Json, new: Json, stack: str, logical_id: str | None = None
    ) -> Created:
        bare = _without_body(old), _without_body(new)
        made: Created = update(physical_id, *bare, stack, logical_id)
        if "Body" in new and new["Body"] != old.get("Body"):
            overwrite(made[0], new["Body"])
        return made

    handlers["create"], handlers["update"] = created, updated


def _without_body(props: Json) -> Json:
    return {name: value for name, value in props.items() if name not in {"Body", "Mode"}}


def _operations(body: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and operation of everything that a body describes."""
    for path, item in body["paths"].items():
        for method, operation in item.items():
            if method == _ANY:
                yield path, "ANY", operation
            elif method in _METHODS:
                yield path, method.upper(), operation


def _put_rest_api(make: dict[str, Any], api: str, body: Json) -> None:
    resources = emulator.rest_gateway._resources[api]  # noqa: SLF001 - the emulator's store
    for resource in resources.values():
        resource["resourceMethods"].clear()
    described = {path for path, _, _ in _operations(body)}
    for path in described:
        _resource(make, api, path)
    for identifier, resource in list(resources.items()):
        path = resource["path"]
        if path != "/" and not any(f"{each}/".startswith(f"{path}/") for each in described):
            del resources[identifier]
    schemes = emulator.rest_gateway._import_security_schemes(api, body)  # noqa: SLF001 - its rules
    for path, method, operation in _operations(body):
        access = emulator.rest_gateway._method_security(operation["security"], schemes)  # noqa: SLF001 - its rules
        integration = operation[_INTEGRATION]
        properties = {
            "RestApiId": api,
            "ResourceId": _resource(make, api, path),
            "HttpMethod": method,
            "AuthorizationType": access["authorizationType"],
            "ApiKeyRequired": access.get("apiKeyRequired", False),
            "Integration": {
                "Type": integration["type"].upper(),
                "IntegrationHttpMethod": integration["httpMethod"],
                "Uri": integration["uri"],
                "TimeoutInMillis": integration["timeoutInMillis"],
            },
        }
        make["AWS::ApiGateway::Method"]("", properties, "")
    emulator.rest_gateway._gateway_responses[api] = {}  # noqa: SLF001 - the emulator's store
    for kind, response in body.get("x-amazon-apigateway-gateway-responses", {}).items():
        properties = {
            "RestApiId": api,
            "ResponseType": kind,
            "ResponseParameters": response["responseParameters"],
            "ResponseTemplates": response["responseTemplates"],
        }
        if "statusCode" in response:
            properties["StatusCode"] = response["statusCode"]
        make["AWS::ApiGateway::GatewayResponse"]("", properties, "")


def _resource(make: dict[str, Any], api: str, path: str) -> str:
    """The id of a path's resource, which is created if it is missing."""
    resources = emulator.rest_gateway._resources[api]  # noqa: SLF001 - the emulator's store
    found = {resource["path"]: identifier for identifier, resource in resources.items()}
    if path not in found:
        parent, _, part = path.rpartition("/")
        properties = {
            "RestApiId": api,
            "ParentId": _resource(make, api, parent or "/"),
            "PathPart": part,
        }
        return str(make["AWS::ApiGateway::Resource"]("", properties, "")[0])
    return str(found[path])


def _reimport_api(make: dict[str, Any], api: str, body: Json) -> None:
    gateway = emulator.http_gateway
    routes, integrations = gateway._routes[api], gateway._integrations[api]  # noqa: SLF001 - its stores
    integrations.clear()
    gateway._authorizers[api] = {}  # noqa: SLF001 - the emulator's store
    authorizers = dict(_authorizers(make, api, body))
    targets: dict[str, str] = {}
    described = set()
    for path, method, operation in _operations(body):
        integration = operation[_INTEGRATION]
        if integration["uri"] not in targets:
            properties = {
                "ApiId": api,
                "IntegrationType": integration["type"].upper(),
                "IntegrationUri": integration["uri"],
                "PayloadFormatVersion": integration["payloadFormatVersion"],
                "TimeoutInMillis": integration["timeoutInMillis"],
            }
            made = make["AWS::ApiGatewayV2::Integration"]("", properties, "")
            targets[integration["uri"]] = made[0]
        properties = {
            "ApiId": api,
            "RouteKey": f"{method} {path}",
            "Target": f"integrations/{targets[integration['uri']]}",
            **_access(operation["security"], authorizers),
        }
        described.add(properties["RouteKey"])
        there = next((r for r in routes.values() if r["routeKey"] == properties["RouteKey"]), None)
        made, _ = make["AWS::ApiGatewayV2::Route"]("", properties, "")
        if there is not None:
            fresh = routes.pop(made.partition("/")[2])
            there.update({**fresh, "routeId": there["routeId"]})
    for identifier, route in list(routes.items()):
        if route["routeKey"] not in described:
            del routes[identifier]


def _authorizers(make: dict[str, Any], api: str, body: Json) -> Iterator[tuple[str, Json]]:
    """The authorizer settings of a route, by the name of the security scheme."""
    for name, scheme in body.get("components", {}).get("securitySchemes", {}).items():
        if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4":
            yield name, {"AuthorizationType": "AWS_IAM"}
        elif _AUTHORIZER in scheme:
            tokens = scheme[_AUTHORIZER]["jwtConfiguration"]
            properties = {
                "ApiId": api,
                "Name": name,
                "AuthorizerType": "JWT",
                "IdentitySource": [scheme[_AUTHORIZER]["identitySource"]],
                "JwtConfiguration": {"Issuer": tokens["issuer"], "Audience": tokens["audience"]},
            }
            made = make["AWS::ApiGatewayV2::Authorizer"]("", properties, "")
            yield name, {"AuthorizationType": "JWT", "AuthorizerId": made[0]}


def _access(security: Json, authorizers: dict[str, Json]) -> Json:
    for requirement in security:
        for name in requirement:
            return authorizers[name]
    return {"AuthorizationType": "NONE"}


def _refuse_second_ones(table: dict[str, Any]) -> None:
    """A second resource with the same path, or route with the same key, is a conflict."""
    resource, route = table["AWS::ApiGateway::Resource"], table["AWS::ApiGatewayV2::Route"]
    make_resource, make_route = resource["create"], route["create"]

    def create_resource(logical_id: str, props: Json, stack: str) -> Created:
        for each in emulator.rest_gateway._resources[props["RestApiId"]].values():  # noqa: SLF001 - its store
            if (each["parentId"], each["pathPart"]) == (props["ParentId"], props["PathPart"]):
                raise ValueError(
                    "Another resource with the same parent already has this name: "
                    f"{props['PathPart']} (Service: ApiGateway, Status Code: 409)"
                )
        made: Created = make_resource(logical_id, props, stack)
        return made

    def create_route(logical_id: str, props: Json, stack: str) -> Created:
        for each in emulator.http_gateway._routes[props["ApiId"]].values():  # noqa: SLF001 - its store
            if each["routeKey"] == props["RouteKey"]:
                raise ValueError(
                    f"Route with key {props['RouteKey']} already exists for this API "
                    "(Service: AmazonApiGatewayV2, Status Code: 409)"
                )
        made: Created = make_route(logical_id, props, stack)
        return made

    resource["create"], route["create"] = create_resource, create_route
