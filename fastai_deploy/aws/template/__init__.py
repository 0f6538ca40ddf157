"""CloudFormation templates, as pure functions of frozen records.

    spec            what a stack is to be: decided by ``aws/specs.py``, drawn here
    endpoint_stack  <- model, variant, rollout, scaling, alarms, dashboard
    api_stack       <- function, rest_api (gateway_responses) or http_api, alarms
    ttl_stack       deletes the other two when their time is up

A template is a plain dict. The same record gives the same dict, on any machine and day. Accounts
and regions are CloudFormation's pseudo parameters, so that a template can be taken away.
"""
