"""CloudFormation templates: one YAML file a stack, and what gives them their parameters.

endpoint.yaml, api.yaml, expiry.yaml    the stacks, with parameters and conditions
render       a spec becomes a template with its parameters
template     what a template gives: parameters, conditions and functions evaluated here
update       how a template must differ when its stack is there already
"""
