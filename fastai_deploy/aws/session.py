"""The only access to AWS: every request of fdeploy goes through :class:`Aws`.

It is created once, from the settings, and passed to everything that needs it, with clock, sleep and
date. boto3's exceptions stop here: callers see only fdeploy's errors (``client_errors``).
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError

from fastai_deploy import __version__
from fastai_deploy.aws.client_errors import translated, unusable
from fastai_deploy.errors import AwsCredentials, AwsUnreachable, AwsWrongAccount

ATTEMPTS = 6
_CONNECT_SECONDS = 10.0
# An invocation may take 60 s (AWS: InvokeEndpoint); everything else answers much sooner.
READ_SECONDS = 70.0
_STS = "sts"
_HEADER = re.compile(r"[!-~]*")
EXAMPLE_REGION = "eu-central-1"
_FOREIGN = (BotoCoreError, ClientError, Boto3Error, ResponseParserError)


def console_url(region: str, path: str) -> str:
    """A page of the AWS console, in the region's partition."""
    host = "console.aws.amazon.com"
    if region.startswith("cn-"):
        host = "console.amazonaws.cn"
    elif region.startswith("us-gov-"):
        host = "console.amazonaws-us-gov.com"
    return f"https://{region}.{host}/{path}"


class Aws:
    """One account and region; ``clock`` returns seconds, ``now`` the date in UTC.

    botocore retries requests that are throttled, interrupted or not answered within
    ``read_seconds``, up to ``attempts`` attempts in total. With ``only`` set to an account, no
    request is sent with another account's credentials (except to STS, which tells whose they are).
    """

    def __init__(
        self,
        session: boto3.Session,
        *,
        region: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        attempts: int = ATTEMPTS,
        read_seconds: float = READ_SECONDS,
        only: str | None = None,
    ) -> None:
        self.region = region
        self.clock = clock
        self.sleep = sleep
        self.now = now
        self._only = only
        self._limits: dict[str, Any] = {"attempts": attempts, "read_seconds": read_seconds}
        self._session = session
        self._clients: dict[str, Any] = {}
        self._config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            user_agent_extra=f"fdeploy/{__version__}",
            tcp_keepalive=True,
        )

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        """Send one request, ``("cloudformation", "describe_stacks", ...)``, and return its answer.

        Raises AwsError; AwsMissing if the resource does not exist.
        """
        client = self.client(service)
        with boundary(service, _camel(operation)):
            return getattr(client, operation)(**parameters)

    def pages(self, service: str, operation: str, **parameters: Any) -> Iterator[Any]:
        """Yield the pages of a paginated request. Raises AwsError."""
        client = self.client(service)
        with boundary(service, _camel(operation)):
            pages = iter(client.get_paginator(operation).paginate(**parameters))
        while True:
            with boundary(service, _camel(operation)):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def elsewhere(self, region: str) -> Aws:
        """The same account in another region."""
        return Aws(
            self._session,
            region=region,
            clock=self.clock,
            sleep=self.sleep,
            now=self.now,
            only=self._only,
            **self._limits,
        )

    def client(self, service: str) -> Any:
        """The boto3 client of a service, for operations such as transfers.

        Raises AwsError; AwsWrongAccount if the credentials are not of the only account allowed.
        """
        if service != _STS:
            self.check_account()
        if service not in self._clients:
            make: Any = self._session.client
            self._find_credentials()
            with boundary(service, "CreateClient"):
                try:
                    client = make(service, region_name=self.region, config=self._config)
                except BotoCoreError:
                    raise
                except ValueError as error:  # such as "Invalid endpoint: ..."
                    raise AwsUnreachable(
                        f"no request can be sent to {service}: {error}",
                        hint="correct or remove AWS_ENDPOINT_URL, or endpoint_url in the AWS "
                        "configuration",
                    ) from None
            self._clients[service] = client
        return self._clients[service]

    def _find_credentials(self) -> Any:
        """The credentials, None without any. Raises AwsCredentials."""
        with boundary(_STS, "FindCredentials"):
            try:
                found: Any = self._session.get_credentials()
                now = found.get_frozen_credentials() if found else None
            except EOFError:  # botocore asks, whether or not there is a terminal
                raise unusable(
                    "the profile asks for an MFA code, and there is no terminal to type it in"
                ) from None
            except BotoCoreError:
                raise
            except (OSError, ValueError) as error:  # of a file or program that a profile names
                raise unusable(error) from None
        # http.client would quote the header, and with it the token, in its error.
        if now and not all(_HEADER.fullmatch(each or "") for each in (now.access_key, now.token)):
            raise unusable(
                "the access key id or the session token contains a line break or another "
                "character that cannot be sent"
            )
        return found

    def signature(self, service: str, url: str, body: bytes) -> dict[str, str]:
        """The headers that sign a POST of JSON to a URL. Raises AwsError."""
        self.check_account()
        with boundary(service, "Sign"):
            credentials = self._find_credentials()
            if credentials is None:
                raise NoCredentialsError
            request = AWSRequest("POST", url, {"content-type": "application/json"}, body)
            SigV4Auth(credentials, service, self.region).add_auth(request)
        return {name: value for name, value in request.headers.items() if name != "content-type"}

    @cached_property
    def account(self) -> str:
        """The account's 12 digits. Raises AwsError."""
        return str(self._identity["Account"])

    def account_or(self, unknown: str) -> str:
        """The account, or ``unknown`` if there are no credentials to ask for it."""
        try:
            return self.account
        except AwsCredentials:
            return unknown

    @cached_property
    def caller(self) -> str:
        """The ARN of the caller. Raises AwsError."""
        return str(self._identity["Arn"])

    @cached_property
    def partition(self) -> str:
        """``aws``, or the name of another family of regions such as ``aws-cn``."""
        with boundary("sts", "GetPartition"):
            return str(self._session.get_partition_for_region(self.region))

    @cached_property
    def _identity(self) -> Any:
        return self.call(_STS, "get_caller_identity")

    def check_account(self) -> None:
        """Raise AwsWrongAccount if the credentials are not of the only account allowed."""
        if self._only is None or self._only == self.account:
            return
        profile = _profile_of(self._only)
        choose = f"AWS_PROFILE={profile}" if profile else "AWS_PROFILE to one of that account"
        raise AwsWrongAccount(
            f"the credentials are of account {self.account} ({self.caller}), but the last deploy "
            f"of this stage went to account {self._only}",
            hint=f"set {choose} and try again; or, if that account is out of reach, "
            "forget the deploy, which keeps running and costing: fdeploy teardown --forget",
        )


def _profile_of(account: str) -> str | None:
    """The first profile of the user's configuration that names the account, if there is one."""
    with boundary(_STS, "ReadConfiguration"):
        profiles = botocore.session.Session().full_config.get("profiles", {})
    for name, values in profiles.items():
        if account in (values.get("sso_account_id"), *values.get("role_arn", "").split(":")[4:5]):
            return str(name)
    return None


def open_aws(region: str | None, profile: str | None = None, *, only: str | None = None) -> Aws:
    """Open the region of the settings, else of the user's AWS configuration.

    Credentials are found in the usual places of AWS tools. ``only`` is the account that they must
    be of, if that is known; :class:`Aws` checks it. Raises AwsError.
    """
    with boundary("sts", "CreateSession"):
        session = boto3.Session(region_name=region, profile_name=profile)
        found = session.region_name
    if not found:
        raise AwsUnreachable(
            "no AWS region is set",
            hint=f"run the same command with --region {EXAMPLE_REGION} (or another region), or set "
            "region in [project] of fdeploy.toml",
        )
    _check_region(session, found)
    return Aws(session, region=found, only=only)


def configured_region(profile: str | None) -> str | None:
    """The region of the user's AWS configuration. Raises AwsError for an unknown profile."""
    with boundary("sts", "CreateSession"):
        found: str | None = boto3.Session(profile_name=profile).region_name
    return found


def _check_region(session: boto3.Session, region: str) -> None:
    """Raise AwsUnreachable for a region that boto3 does not know.

    Without this, requests to it would be retried until they time out.
    """
    known = {
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("sagemaker", partition)
    }
    if region in known:
        return
    near = difflib.get_close_matches(region, sorted(known), n=1)
    raise AwsUnreachable(
        f"the AWS region {region} does not exist, has no SageMaker, or is newer than this boto3",
        hint=f"set region in [project] of fdeploy.toml, or --region, to {near[0]}"
        if near
        else f"run pip install --upgrade boto3, or choose another region, such as {EXAMPLE_REGION}",
    )


@contextmanager
def boundary(service: str, operation: str) -> Iterator[None]:
    """Translate boto3's exceptions in the block to AwsErrors."""
    try:
        yield
    except _FOREIGN as error:
        raise translated(error, service, operation) from error


def _camel(operation: str) -> str:
    return "".join(part.capitalize() for part in operation.split("_"))
