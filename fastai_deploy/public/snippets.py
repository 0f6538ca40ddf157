"""Code that calls an API, ready to be copied: curl, and Python with requests.

No snippet holds the key: it says where the key is read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from fastai_deploy.records import Api

_TEXT = '{"text": "some text"}'
_SECONDS = 30  # as long as API Gateway waits


def curl(api: Api) -> Iterator[str]:
    """A command for a POSIX shell, line by line."""
    credential = {
        "key": f'-H "x-api-key: $(cat {shlex.quote(api.key_file)})"',
        "jwt": '-H "authorization: Bearer $TOKEN"',
        "iam": f'--aws-sigv4 "aws:amz:{_region(api)}:execute-api" '
        '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
        '-H "x-amz-security-token: $AWS_SESSION_TOKEN"',
        "none": "",
    }[api.auth]
    yield f"curl {credential} \\" if credential else "curl \\"
    yield f"     -H 'content-type: application/json' -d '{_TEXT}' \\"
    yield f"     {shlex.quote(api.url)}"


def python(api: Api) -> Iterator[str]:
    """A program, line by line; it needs ``requests``."""
    headers = {
        "key": f'{{"x-api-key": Path({api.key_file!r}).read_text()}}',
        "jwt": '{"authorization": f"Bearer {os.environ[\'TOKEN\']}"}',
        "iam": "dict(signed.headers)",
        "none": "{}",
    }[api.auth]
    yield from {
        "key": ["from pathlib import Path", ""],
        "jwt": ["import os", ""],
        "iam": [
            "import boto3",
            "from botocore.auth import SigV4Auth",
            "from botocore.awsrequest import AWSRequest",
        ],
        "none": [],
    }[api.auth]
    yield "import requests"
    yield ""
    if api.auth == "iam":
        yield f"body = {_TEXT!r}"
        yield 'kind = {"content-type": "application/json"}'
        yield f'signed = AWSRequest("POST", {api.url!r}, kind, body)'
        yield (
            f"SigV4Auth(boto3.Session().get_credentials(), "
            f'"execute-api", {_region(api)!r}).add_auth(signed)'
        )
    yield "answer = requests.post("
    yield f'    "{api.url}",'
    yield f"    headers={headers},"
    yield "    data=body," if api.auth == "iam" else f"    json={_TEXT},"
    yield f"    timeout={_SECONDS},"
    yield ")"
    yield "print(answer.json())"


def _region(api: Api) -> str:
    """The region in the host of an API Gateway; else a word to replace."""
    _, _, rest = api.url.partition(".execute-api.")
    return rest.partition(".")[0] or "REGION"
