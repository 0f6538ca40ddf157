"""A double of AWS that runs the unchanged templates, without an account and without Docker.

    fdeploy ── boto3 ──▶ wire (faults, journal) ──▶ ministack       CloudFormation, S3, IAM, Lambda,
                                │                                   API Gateway, logs, alarms, ...
                                └─▶ sagemaker, scaling              the services that it lacks
                                        └─▶ model server processes  the artifact's own server

It is a separate process on 127.0.0.1 in its own virtual environment (``venv``), because ministack
pins botocore. An account of the double is an access key of 12 digits; every test uses a new one.
Where the double differs from ministack, it follows AWS's documentation, which the docstring there
cites. Plain moto is no alternative, because it silently skips half of the resource types.
"""
