"""The parts of ministack that the double uses; only this module imports ministack.

It is installed only in the environment of the double's process. Most of these parts are private, so
ministack's version is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

_FORMATION = "ministack.services.cloudformation"


def _part(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def replace_part(module: str, name: str, build: Callable[[Any], Any]) -> None:
    """Replace a part by the result of ``build``, which is given the part."""
    home = import_module(module)
    setattr(home, name, build(getattr(home, name)))


def evaluated_conditions(template: Any, parameters: Any) -> Any:
    """Which conditions of a template hold."""
    return _part(CHANGE_SETS, "_evaluate_conditions")(template, parameters)


def run_functions_with(python: str) -> None:
    """Have Lambda functions run in another Python than ministack's own, as Lambda's have theirs."""
    replace_part(
        "ministack.core.lambda_runtime",
        "_detect_runtime_binary",
        lambda before: lambda runtime: (python, before(runtime)[1]),
    )


app: Any = _part("ministack.app", "app")

# The scope of a request, and stores by account and region.
Store: Any = _part("ministack.core.responses", "AccountRegionScopedDict")
request_scope: Any = _part("ministack.core.responses", "request_scope")
set_account: Any = _part("ministack.core.responses", "set_request_account_id")
get_account: Any = _part("ministack.core.responses", "get_account_id")
get_region: Any = _part("ministack.core.responses", "get_region")

# CloudFormation's tables of resource types, and how it reads a template.
ENGINE = f"{_FORMATION}.engine"
STACKS = f"{_FORMATION}.stacks"
HANDLERS = f"{_FORMATION}.handlers"
CHANGE_SETS = f"{_FORMATION}.changesets"
actions: Any = _part(HANDLERS, "_ACTION_HANDLERS")
find_change_set: Any = _part(CHANGE_SETS, "_find_change_set")
EVALUATING = (CHANGE_SETS, HANDLERS, ENGINE, STACKS)
"""The modules that evaluate a template's conditions."""
resolved_resources: Any = _part(CHANGE_SETS, "_resolve_props_for_diff")
stacks: Any = _part(_FORMATION, "_stacks")
operation_event: Any = _part(STACKS, "_operation_event")
resource_types: Any = _part(f"{_FORMATION}.provisioners", "_RESOURCE_HANDLERS")
replacing_properties: Any = _part(f"{_FORMATION}.provisioners", "_REPLACING_PROPERTIES")
custom_names: Any = _part(f"{_FORMATION}.provisioners", "_CUSTOM_NAME_REPLACEMENT")
tag_properties: Any = _part(f"{_FORMATION}.provisioners", "_STACK_TAG_PROPERTY")
physical_name: Any = _part(f"{_FORMATION}.provisioners", "_physical_name")

# Other services, as far as the double's own ones need them.
buckets: Any = _part("ministack.services.s3", "_buckets")
put_object: Any = _part("ministack.services.s3", "_put_object")
object_data: Any = _part("ministack.services.s3", "_get_object_data")
roles: Any = _part("ministack.services.iam", "_roles")
log_groups: Any = _part("ministack.services.cloudwatch_logs", "_log_groups")
create_log_group: Any = _part("ministack.services.cloudwatch_logs", "_create_log_group")
create_log_stream: Any = _part("ministack.services.cloudwatch_logs", "_create_log_stream")
put_log_events: Any = _part("ministack.services.cloudwatch_logs", "_put_log_events")
rest_gateway: Any = import_module("ministack.services.apigateway_v1")
http_gateway: Any = import_module("ministack.services.apigateway")
lambdas: Any = import_module("ministack.services.lambda_svc")
rest_apis: Any = _part("ministack.services.apigateway_v1", "_rest_apis")
api_keys: Any = _part("ministack.services.apigateway_v1", "_api_keys")
usage_plans: Any = _part("ministack.services.apigateway_v1", "_usage_plans")
http_apis: Any = _part("ministack.services.apigateway", "_apis")

schedules: Any = _part("ministack.services.scheduler", "_schedules")

# IAM's evaluation of policies, and who is asked about.
EVALUATOR = "ministack.core.iam_evaluator"
users: Any = _part("ministack.services.iam", "_users")
Request: Any = _part("ministack.core.iam_evaluator", "EvalContext")
evaluate: Any = _part("ministack.core.iam_evaluator", "evaluate")
boundary: Any = _part("ministack.core.iam_evaluator", "_permissions_boundary")
user_policies: Any = _part("ministack.core.iam_evaluator", "_gather_user_policies")
role_policies: Any = _part("ministack.core.iam_evaluator", "_gather_role_policies")
rest_action: Any = _part("ministack.core.iam_actions", "extract_iam_action")
s3_action: Any = _part("ministack.core.iam_actions", "_s3_action")
s3_deleted: Any = _part("ministack.core.iam_actions", "_s3_batch_delete_targets")
tag_collectors: Any = _part("ministack.services.tagging", "_COLLECTORS")
