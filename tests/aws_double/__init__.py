"""A double of AWS that runs the templates as they are, without an account and without Docker.

    fdeploy ── boto3 ──▶ wire (faults, journal) ──▶ ministack       CloudFormation, S3, IAM, Lambda,
                                │                                   API Gateway, logs, alarms, ...
                                └─▶ sagemaker, scaling              the services that it lacks
                                        └─▶ model server processes  the artifact's own server

It is a process of its own, on 127.0.0.1, in a virtual environment of its own (``venv``), because
ministack pins botocore. An account of the double is an access key of 12 digits: every test takes
a fresh one. Where the double leaves ministack's way, the reason is AWS's documentation, named
where it is done. Plain moto is no alternative: it skips half of the resource types in silence.
"""
