"""Settings that conflict with each other, as one table.

The timeout chain client <= Lambda <= API Gateway <= SageMaker needs no rule here: ``api.timeout``
is at most 29 s, the limit of API Gateway; the Lambda gets that rounded up to whole seconds, and
InvokeEndpoint has 60 s (``aws/templates`` derives them, and a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastai_deploy.errors import SettingsError
from fastai_deploy.runtime.contract import HEALTH
from fastai_deploy.settings.project_file import Sections

Key = tuple[str, str]

# InvokeEndpoint accepts 6 MB, for a serverless endpoint 4 MB.
MAX_SERVERLESS_BODY = 4_000_000
SNAPSTART_STORAGE = 512  # MB
# The environment of a Lambda, written as JSON (AWS: Lambda quotas). A test compares the second
# number with the template: the names of the variables, and the longest of the other values.
MAX_ENVIRONMENT = 4_096
OTHER_VARIABLES = 200


@dataclass(frozen=True)
class Constraint:
    """A rule; ``broken`` tests whether settings violate it, ``keys`` are the ones involved."""

    keys: tuple[Key, ...]
    broken: Callable[[Sections], bool]
    reason: str
    hint: str


def _key(dotted: str) -> Key:
    section, _, name = dotted.rpartition(".")
    return section, name


def environment_bytes(sections: Sections) -> int:
    """The bytes of the Lambda's environment, at most."""
    api = sections.api
    return OTHER_VARIABLES + len(api.route) + len(",".join(api.cors_origins))


def _serverless(broken: Callable[[Sections], bool], key: str, why: str, hint: str) -> Constraint:
    """A rule for serverless endpoints. Source: "Feature exclusions" of Serverless Inference."""
    return Constraint(
        (("endpoint", "kind"), _key(f"endpoint.{key}")),
        lambda all_: all_.endpoint.kind == "serverless" and broken(all_),
        why,
        hint,
    )


def _function(broken: Callable[[Sections], bool], keys: str, why: str, hint: str) -> Constraint:
    """A rule for the model in a function; ``keys`` are separated by spaces."""
    return Constraint(
        (("endpoint", "kind"), *map(_key, keys.split())),
        lambda all_: all_.endpoint.kind == "lambda" and broken(all_),
        why,
        hint,
    )


# Those of SnapStart: "Improving startup performance with Lambda SnapStart".
_FUNCTION_RULES = (
    _function(
        lambda all_: all_.model.runtime == "learner",
        "model.runtime",
        "torch and fastai do not fit into the 250 MB of a function",
        "set kind to serverless or real-time, or runtime to onnx",
    ),
    _function(
        lambda all_: all_.endpoint.data_capture > 0,
        "endpoint.data_capture",
        "a function cannot capture data",
        "set data_capture = 0, or kind to real-time",
    ),
    _function(
        lambda all_: all_.endpoint.rolling,
        "endpoint.rolling",
        "a function has no instances to replace batch by batch",
        "set rolling = false, or kind to real-time",
    ),
    _function(
        lambda all_: all_.endpoint.image is not None,
        "endpoint.image",
        "the function runs in Lambda's own Python, and in no image",
        "remove image, or set kind to real-time",
    ),
    _function(
        lambda all_: all_.endpoint.scaling.max_instances is not None,
        "endpoint.scaling.max_instances",
        "a function has no instances, and scales by itself",
        "remove max_instances; concurrency in [endpoint.function] limits it",
    ),
    _function(
        lambda all_: (
            all_.endpoint.function.snapstart
            and all_.endpoint.function.provisioned_concurrency is not None
        ),
        "endpoint.function.snapstart endpoint.function.provisioned_concurrency",
        "SnapStart and provisioned concurrency exclude each other",
        "remove one of the two",
    ),
    _function(
        lambda all_: (
            all_.endpoint.function.snapstart
            and (all_.endpoint.function.storage or SNAPSTART_STORAGE) > SNAPSTART_STORAGE
        ),
        "endpoint.function.snapstart endpoint.function.storage",
        f"SnapStart allows at most {SNAPSTART_STORAGE} MB of /tmp",
        "remove one of the two",
    ),
    _function(
        lambda all_: (
            all_.endpoint.function.concurrency is not None
            and (all_.endpoint.function.provisioned_concurrency or 0)
            > all_.endpoint.function.concurrency
        ),
        "endpoint.function.provisioned_concurrency endpoint.function.concurrency",
        "more would be kept warm than concurrency allows",
        "set provisioned_concurrency to at most concurrency",
    ),
    _function(
        lambda all_: all_.endpoint.function.timeout <= all_.api.timeout,
        "endpoint.function.timeout api.timeout",
        "the function would end before the API's request does, and load the model in vain",
        "set timeout in [endpoint.function] to more than timeout in [api]",
    ),
    _function(
        lambda all_: all_.endpoint.canary and bool(all_.endpoint.function.provisioned_concurrency),
        "endpoint.canary endpoint.function.provisioned_concurrency",
        "an alias with provisioned concurrency has one version",
        "set canary = false, or remove provisioned_concurrency",
    ),
    Constraint(
        (("api", "type"), ("endpoint", "kind")),
        lambda all_: all_.api.type == "function-url" and all_.endpoint.kind != "lambda",
        "only the model in a function can have a URL of its own",
        "set kind to lambda in [endpoint], or type to rest or http",
    ),
    Constraint(
        (("api", "type"), ("api", "auth")),
        lambda all_: all_.api.type == "function-url" and all_.api.auth not in ("iam", "none"),
        "a function URL knows neither API keys nor tokens",
        'set auth to "iam" or "none", or type to rest',
    ),
    Constraint(
        (("api", "type"), ("api", "domain")),
        lambda all_: all_.api.type == "function-url" and bool(all_.api.domain),
        "a function URL has no domain of your own",
        "remove domain and certificate, or set type to rest or http",
    ),
)

RULES = (
    *_FUNCTION_RULES,
    _serverless(
        lambda all_: bool(all_.endpoint.subnets or all_.endpoint.security_groups),
        "subnets",
        "a serverless endpoint cannot join a VPC",
        "set subnets and security_groups to [], or kind to real-time",
    ),
    _serverless(
        lambda all_: all_.endpoint.data_capture > 0,
        "data_capture",
        "a serverless endpoint cannot capture data",
        "set data_capture = 0, or kind to real-time",
    ),
    _serverless(
        lambda all_: all_.endpoint.canary,
        "canary",
        "a serverless endpoint shifts all traffic at once",
        "set canary = false, or kind to real-time",
    ),
    _serverless(
        lambda all_: all_.endpoint.rolling,
        "rolling",
        "a serverless endpoint has no instances to replace batch by batch",
        "set rolling = false, or kind to real-time",
    ),
    _serverless(
        lambda all_: (
            (all_.endpoint.serverless.provisioned_concurrency or 0)
            > all_.endpoint.serverless.concurrency
        ),
        "serverless.provisioned_concurrency",
        "more would be kept warm than concurrency allows",
        "set provisioned_concurrency to at most concurrency in [endpoint.serverless]",
    ),
    _serverless(
        lambda all_: all_.api.max_body > MAX_SERVERLESS_BODY,
        "kind",
        "a serverless endpoint accepts requests of at most 4 MB, and api.max_body is larger",
        f"set max_body in [api] to at most {MAX_SERVERLESS_BODY}",
    ),
    Constraint(
        (("endpoint", "subnets"), ("endpoint", "security_groups")),
        lambda all_: bool(all_.endpoint.subnets) != bool(all_.endpoint.security_groups),
        "a VPC needs both subnets and security groups",
        "set both, or neither",
    ),
    Constraint(
        (("endpoint.scaling", "max_instances"), ("endpoint", "instance_count")),
        lambda all_: (
            all_.endpoint.scaling.max_instances is not None
            and all_.endpoint.scaling.max_instances < all_.endpoint.instance_count
        ),
        "max_instances is less than instance_count",
        "set max_instances to at least instance_count",
    ),
    Constraint(
        (("endpoint.scaling", "to_zero"), ("endpoint", "kind")),
        lambda all_: all_.endpoint.scaling.to_zero and all_.endpoint.kind != "async",
        "only an async endpoint can scale to zero (a serverless one always does)",
        "set to_zero = false in [endpoint.scaling], or kind to async",
    ),
    Constraint(
        (("endpoint", "canary"), ("endpoint", "instance_count")),
        lambda all_: (
            all_.endpoint.canary
            and all_.endpoint.instance_count == 1
            and all_.endpoint.kind != "lambda"
        ),
        "a canary needs at least two instances",
        "set instance_count to at least 2, or canary = false",
    ),
    Constraint(
        (("endpoint", "rolling"), ("endpoint", "instance_count")),
        lambda all_: all_.endpoint.rolling and all_.endpoint.instance_count == 1,
        "a rolling update needs at least two instances",
        "set instance_count to at least 2, or rolling = false",
    ),
    Constraint(
        (("endpoint", "rolling"), ("endpoint", "canary")),
        lambda all_: all_.endpoint.rolling and all_.endpoint.canary,
        "a rolling update has batches instead of a canary",
        "set canary = false, or rolling = false",
    ),
    Constraint(
        (("project", "ttl"), ("project", "protect")),
        lambda all_: bool(all_.project.ttl) and all_.project.protect,
        "a protected stage cannot delete itself",
        "remove ttl, or set protect = false",
    ),
    Constraint(
        (("api", "auth"), ("api", "type")),
        lambda all_: all_.api.auth == "key" and all_.api.type == "http",
        "an HTTP API has no API keys",
        'set type to rest, or auth to "iam", "jwt" or "none"',
    ),
    Constraint(
        (("api", "auth"), ("api", "type")),
        lambda all_: all_.api.auth == "jwt" and all_.api.type == "rest",
        "a REST API has no JWT authorizer",
        "set type to http",
    ),
    Constraint(
        (("api", "auth"), ("api", "jwt_issuer")),
        lambda all_: all_.api.auth == "jwt" and not (all_.api.jwt_issuer and all_.api.jwt_audience),
        "JWT authentication needs an issuer and an audience",
        "set jwt_issuer and jwt_audience",
    ),
    Constraint(
        (("api", "domain"), ("api", "certificate")),
        lambda all_: bool(all_.api.domain) != bool(all_.api.certificate),
        "a domain and its certificate must be set together",
        "set both domain and certificate, or neither",
    ),
    Constraint(
        (("api", "page"), ("api", "auth")),
        lambda all_: all_.api.page and all_.api.auth == "iam",
        "a browser has no AWS credentials to sign the demo page's requests with",
        "set page = false, or auth to key, jwt or none",
    ),
    Constraint(
        (("api", "quota"), ("api", "auth")),
        lambda all_: all_.api.quota is not None and all_.api.auth != "key",
        "a quota is counted per API key",
        "set auth to key, or remove quota",
    ),
    Constraint(
        (("api", "cors_origins"),),
        lambda all_: environment_bytes(all_) > MAX_ENVIRONMENT,
        f"the origins do not fit into the environment of a Lambda, which has {MAX_ENVIRONMENT:,} "
        "bytes",
        "list fewer or shorter origins, or allow every page with *",
    ),
    Constraint(
        (("api", "route"),),
        lambda all_: all_.api.route == HEALTH,
        f"{HEALTH} is the API's health check",
        "choose another route",
    ),
)


def conflicts(sections: Sections, where: Callable[[Key], str]) -> Iterator[SettingsError]:
    """An error for each violated rule; ``where`` returns a key's origin."""
    for rule in RULES:
        if rule.broken(sections):
            keys = dict.fromkeys(rule.keys)
            message = " and ".join(f"{'.'.join(key)} ({where(key)})" for key in keys)
            yield SettingsError(f"{message}: {rule.reason}", hint=rule.hint)
