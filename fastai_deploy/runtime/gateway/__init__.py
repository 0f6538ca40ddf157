"""The Lambda function between API Gateway and the endpoint.

    event --events--> call --gateway--> route --body--> checked request --endpoint--> answer

A request is checked with the contract's own parser before it costs anything, and every failure gets
an error response of the contract, with CORS headers. The same code runs in AWS Lambda, where it
ships in the package ``fdeploy_runtime`` with the handler ``fdeploy_runtime.gateway.handler``, and
behind the local gateway. Standard library and boto3 only.
"""

from .function import handler

__all__ = ["handler"]
