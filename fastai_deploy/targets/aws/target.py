"""The AWS target, one method per stage.

    upload       create the bucket once; upload the artifact once
    deploy       apply the endpoint stack; check the live configuration and the goldens, else
                 roll back (the model in a function: see function.py)
    create_api   upload the Lambda; apply the API stack; check the goldens through the public URL,
                 else roll back
    teardown     delete everything, and verify that nothing is left

The home folder, ``.fdeploy/<stage>/aws/``, holds only the API key: all other state is in AWS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fastai_deploy import files, naming
from fastai_deploy.aws import endpoint as endpoints
from fastai_deploy.aws import functions
from fastai_deploy.aws.bucket import Bucket, ensure_bucket, expire
from fastai_deploy.aws.capacity import DEFAULT_INSTANCE
from fastai_deploy.aws.deployment import Applied
from fastai_deploy.aws.endpoint import Queue, invoke_async
from fastai_deploy.aws.images import domain
from fastai_deploy.aws.inventory import Inventory
from fastai_deploy.aws.public_api import ApiAccess
from fastai_deploy.aws.specs import VARIANT, Instances, Location
from fastai_deploy.aws.stacks import Stack, first_of, our_stack, resources
from fastai_deploy.aws.teardown import EVEN_IF_PROTECTED, StageTeardown, TeardownScope
from fastai_deploy.aws.templates.update import with_key_serial
from fastai_deploy.errors import AwsDenied, FileMissing, StackBusy, UsageError
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.parity import Json, Verify
from fastai_deploy.parity.gate import patient
from fastai_deploy.progress import Step, Warned
from fastai_deploy.records import Api, Artifact, Endpoint, StoredArtifact, Teardown, counted
from fastai_deploy.targets.aws import checks, claim, expiry
from fastai_deploy.targets.aws.batch import BatchTransform
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.function import FunctionStage, other_serves
from fastai_deploy.targets.aws.stacks import OwnImage, serving_container
from fastai_deploy.targets.base import Claim, Route

_CONFIG = "AWS::SageMaker::EndpointConfig"
# AWS takes a signature for five minutes: "Troubleshoot Signature Version 4 signed requests".
_SIGNED_SECONDS = 120.0


class AwsTarget:
    """Serves one stage of a project from an AWS account."""

    name = "aws"

    def __init__(self, context: Context) -> None:
        self.context = context
        self._function = FunctionStage(context)
        self._function_is_current = False

    def claim(self, *, creates: bool) -> Claim:
        """Check whose the stage is, and ask before it is made or taken over."""
        return claim.claim(self.context, creates=creates)

    def check_access(self) -> None:
        """Check the credentials, and that the stage is not another project's.

        Raises AwsError, AwsWrongAccount or NotOurs.
        """
        self.context.aws.check_account()
        claim.refuse_another_projects(self.context)

    def container(
        self, packaged: Artifact | None = None, *, decides: bool = False, pull: bool = False
    ) -> Container:
        """The container, from the image that the settings select, that an artifact must fit."""
        context, own = self.context, self.context.own_server
        image = own.decide(packaged, pull=pull) if decides else own.decided(packaged)
        return serving_container(context.settings, context.aws.region, context.bundle, image)

    def upload(self, artifact: Artifact) -> StoredArtifact:
        """Upload the artifact to the bucket and its image to ECR, unless they are there."""
        context = self.context
        bucket = ensure_bucket(context.aws, self._chosen_bucket, context.report)
        key = naming.artifact_key(context.owner.project, artifact.sha256)
        uri = context.uploads(bucket).file(Path(artifact.path), key, sha256=artifact.sha256)
        aws = context.aws
        stored = StoredArtifact.of(artifact, self.name, uri, aws.region, aws.account)
        if not artifact.image_tag:
            return stored
        image = context.own_server.store(OwnImage(artifact.image_tag, artifact.image_base))
        return replace(stored, image=context.images.uri(image.digest))

    def deploy(self, stored: StoredArtifact, verify: Verify, *, sets_end: bool = True) -> Endpoint:
        """Update the endpoint stack to this artifact; the previous version serves until then.

        ``sets_end``: restart the ``ttl`` of the settings, or remove it; else leave it unchanged.
        """
        context = self.context
        bucket = context.bucket_of(stored)
        # Waits for a deploy of this stage as the other kind, or raises if that is someone else's:
        # each would delete what the other has made.
        context.deployment().settle(self._other_kind)
        if not self._is_function:
            stored = context.own_server.ready(stored)
        self._expire_data(bucket)
        # Before the update: otherwise a stage whose time is up meanwhile would be deleted.
        postponed = sets_end and expiry.is_set(context)
        if postponed:
            self._set_end(stored.sha256)
        if self._is_function:
            proven, changed = self._function.deploy(stored, verify)
            self._function_is_current = True
        else:
            proven, changed = self._deploy_endpoint(stored, verify)
        context.deployments(bucket).add(proven, context.operator, again=changed)
        if sets_end and not postponed:
            self._set_end(stored.sha256)
        self._remove_other_kind()
        name, region = self._serving_name, context.aws.region
        service = f"lambda.{region}" if self._is_function else f"runtime.sagemaker.{region}"
        path = f"2015-03-31/functions/{name}" if self._is_function else f"endpoints/{name}"
        return Endpoint(
            target=self.name,
            name=name,
            url=f"https://{service}.{domain(region)}/{path}",
            version=stored.version,
            made_from=stored.sha256,
            region=region,
            account=context.aws.account,
        )

    def _deploy_endpoint(
        self, stored: StoredArtifact, verify: Verify
    ) -> tuple[StoredArtifact, bool]:
        """Update the endpoint; what it was proven in, and whether anything changed."""
        context, aws = self.context, self.context.aws
        definition = context.definitions.endpoint(stored)
        spec = context.definitions.endpoint_spec(stored)
        name = definition.service

        def prove(applied: Applied) -> None:
            config = first_of(resources(aws, applied.stack), _CONFIG)
            endpoints.check_in_use(aws, name, config.name if config else "")
            count = spec.fixed_instances
            if count and endpoints.set_instances(aws, name, VARIANT, count):
                context.report(Step(f"setting the endpoint to {counted(count, 'instance')}"))
                endpoints.check_in_use(aws, name, config.name if config else "")
            verify(patient(lambda request: self._invoke(name, request), aws.sleep))

        stack = naming.endpoint_stack(context.owner.project, context.owner.stage)
        rollout = context.rollout(naming.endpoint_log_group(name))
        applied = rollout.apply(
            context.request(stack, definition),
            prove,
            lambda: checks.check(context, spec, definition.template),
        )
        on = spec.capacity.type if isinstance(spec.capacity, Instances) else DEFAULT_INSTANCE
        return replace(stored, image=spec.model.image, instance=on), applied.changed

    def invoke(self, endpoint: Endpoint, request: Json) -> Json:
        """Send a request to the endpoint itself."""
        return self._invoke(endpoint.name, request)

    def create_api(self, endpoint: Endpoint, verify: Verify) -> Api:
        """Create the Lambda and API Gateway in front of the endpoint."""
        context = self.context
        bucket = ensure_bucket(context.aws, self._chosen_bucket, context.report)
        package = context.lambda_package()
        digest = hashlib.sha256(package).hexdigest()
        code = Location(bucket.name, naming.code_key(context.owner.project, digest))
        if self._is_function:
            self._renew_function(bucket, endpoint, verify)
        else:
            context.uploads(bucket).data(package, code.key)
        stack = naming.api_stack(context.owner.project, context.owner.stage)
        is_new = our_stack(context.aws, stack, context.owner) is None
        definition = context.definitions.api(code, digest)
        settings = context.settings.sections.api
        api_publisher, auth = context.api_publisher, settings.auth

        def prove(applied: Applied) -> None:
            if not applied.changed:
                Inventory(context.aws, context.owner).require_whole(applied.stack)
            access = api_publisher.access(applied.stack, auth)
            api_publisher.prove(access, verify)
            api_publisher.prove_limits(applied.stack, access, settings, untouched=is_new)

        rollout = context.rollout(naming.function_log_group(definition.service))
        applied = rollout.apply(context.request(stack, definition), prove)
        self._remove_other_kind()
        outputs = applied.stack.outputs
        if "DomainUrl" in outputs:
            record = f"a CNAME (or alias) from {settings.domain} to {outputs['DomainTarget']}"
            context.report(Step(f"to use {outputs['DomainUrl']}, add {record} to your DNS"))
        access = api_publisher.access(applied.stack, auth)
        if access.key:
            files.write(self._key_file, access.key.encode(), mode=0o600)
        return Api(
            target=self.name,
            url=access.url,
            endpoint=endpoint.name,
            key_file=str(self._key_file) if access.key else "",
            made_from=endpoint.name,
            auth=auth,
            document=applied.stack.outputs.get("DocumentUrl", ""),
            page=applied.stack.outputs.get("PageUrl", ""),
            region=context.aws.region,
            account=context.aws.account,
        )

    def call_api(self, api: Api, request: Json) -> Json:
        """Send a request through the API, authenticated as a caller."""
        auth = self.context.settings.sections.api.auth
        return self.context.api_publisher.call(ApiAccess(api.url, auth, self._key(api)), request)

    def endpoint_route(self, endpoint: Endpoint) -> Route:
        """The route of InvokeEndpoint. Raises UsageError for an asynchronous endpoint."""
        aws = self.context.aws
        if self.context.settings.sections.endpoint.kind == "async":
            raise UsageError(
                "an asynchronous endpoint answers through S3, so its latency cannot be measured",
                hint="set kind to real-time or serverless in [endpoint]",
            )
        aws.check_account()
        if self._is_function:
            url = functions.invocations_url(aws, endpoint.name)
            return Route(url, self._kept(lambda body: aws.signature("lambda", url, body)))
        url = endpoints.invocations_url(aws, endpoint.name)
        return Route(url, self._kept(lambda body: aws.signature("sagemaker", url, body)))

    def api_route(self, api: Api) -> Route:
        """The route to the API. Raises UsageError if callers need a token of an issuer."""
        auth = self.context.settings.sections.api.auth
        if auth == "jwt":
            raise UsageError(
                "the API takes only tokens of its issuer, which fdeploy cannot make",
                hint="use --on endpoint",
            )
        access, publisher = ApiAccess(api.url, auth, self._key(api)), self.context.api_publisher
        public = self.context.public
        own = public.own_headers(api.url)
        headers = self._kept(lambda body: {**own, **publisher.headers(access, body)})
        return Route(public.through_door(api.url), headers)

    def _kept(
        self, headers: Callable[[bytes], Mapping[str, str]]
    ) -> Callable[[bytes], Mapping[str, str]]:
        """The same headers for the same body for a while: signing takes longer than sending."""
        kept: dict[bytes, tuple[float, Mapping[str, str]]] = {}
        clock = self.context.aws.clock

        def of(body: bytes) -> Mapping[str, str]:
            at, found = kept.get(body, (0.0, None))
            if found is None or clock() - at > _SIGNED_SECONDS:
                at, found = kept[body] = clock(), headers(body)
            return found

        return of

    def key(self, api: Api) -> str:  # noqa: ARG002 the stack tells
        """The API key, fetched from API Gateway; its file is rewritten."""
        return self._fetch_key(self._api_stack())

    def address(self, api: Api) -> str:
        """The URL at API Gateway, which nobody else can have."""
        return api.url

    def rotate_key(self, api: Api) -> str:  # noqa: ARG002 likewise
        """Replace the key with a new one from API Gateway; nothing else changes."""
        context = self.context
        stack = self._api_stack()
        self._need_keys()
        live = context.deployment().live(stack.name)
        if live is None:
            raise UsageError("this stage has no API", hint="run fdeploy create-api")
        serial = f"{context.aws.now():%Y%m%d%H%M%S}"
        request = replace(live, template=with_key_serial(live.template, serial))
        return self._fetch_key(context.deployment().apply(request).stack)

    def check_shards(self) -> None:
        """Batch transform is there."""

    def shard_service(self, stored: StoredArtifact, instances: int) -> BatchTransform:
        """Batch transform."""
        return BatchTransform(self.context, stored, instances)

    def teardown(
        self, *, artifacts: bool = False, confirmed: bool = False, wait: bool = True
    ) -> Teardown:
        """Delete the stacks and everything else of the stage.

        ``artifacts`` also deletes stored artifacts; a protected stage must be ``confirmed``.
        Without ``wait`` only the deletion of the stacks is started, and the rest is left to the
        next teardown. Raises UsageError, NotOurs, StackBusy or AwsError.
        """
        context = self.context
        project = context.settings.sections.project
        if project.protect and not confirmed:
            raise UsageError(
                f"stage {context.owner.stage} is protected (protect = true in [project])",
                hint=EVEN_IF_PROTECTED,
            )
        if artifacts and not wait:
            raise UsageError(
                "artifacts can be deleted only after the stacks, which --no-wait does not wait for",
                hint="leave out --no-wait or --artifacts",
            )
        removal = StageTeardown(
            context.aws,
            context.owner,
            context.deployment(),
            context.report,
            images=context.images,
            confirmed=confirmed,
            agreed=lambda found: claim.agree_to_teardown(context, found),
        )
        if not wait:
            return removal.begin()
        proof = removal.run(TeardownScope(artifacts=artifacts, bucket=project.bucket))
        if context.settings.last_region in (None, context.aws.region):
            files.remove_tree(context.home)
        return proof

    def _invoke(self, name: str, request: Json) -> Json:
        context = self.context
        context.aws.check_account()
        if self._is_function:
            return self._function.invoke(request)
        if context.settings.sections.endpoint.kind != "async":
            return endpoints.invoke(context.aws, name, request)
        bucket = ensure_bucket(context.aws, self._chosen_bucket, context.report)
        prefix = naming.async_prefix(context.owner.project, context.owner.stage)
        return invoke_async(
            context.aws,
            name,
            Queue(bucket, prefix, context.settings.sections.project.kms_key),
            request,
            notify=lambda message: context.report(Step(message)),
        )

    @property
    def _is_function(self) -> bool:
        """Whether the model is in a Lambda function."""
        return self.context.settings.sections.endpoint.kind == "lambda"

    @property
    def _serving_name(self) -> str:
        """The name of the endpoint or the function."""
        owner, kind = self.context.owner, self.context.settings.sections.endpoint.kind
        return naming.endpoint_name(owner.project, owner.stage, kind)

    def _renew_function(self, bucket: Bucket, endpoint: Endpoint, verify: Verify) -> None:
        """Deploy the version again if the API's documents or settings have changed since.

        They are in the function. Does nothing after a deploy by the same command.
        """
        if self._function_is_current:
            return
        context = self.context
        for version in context.deployments(bucket).listed():
            if version.version == endpoint.version:
                again = replace(version.stored(self.name), function=None)
                proven, changed = self._function.deploy(again, verify, again=True)
                if changed:
                    context.deployments(bucket).add(proven, context.operator, again=True)
                self._function_is_current = True
                return
        raise UsageError(
            f"version {endpoint.version} of this stage was never deployed to a function",
            hint="run fdeploy deploy",
        )

    def _remove_other_kind(self) -> None:
        """Delete what another kind of endpoint left, once the API asks it no more."""
        context, owner, other = self.context, self.context.owner, self._other_kind
        waits = context.settings.sections.endpoint.kind == "async"
        is_there = our_stack(context.aws, other, owner) is not None
        if not (is_there or waits):
            return
        api = our_stack(context.aws, naming.api_stack(owner.project, owner.stage), owner)
        if api and waits:
            kept = f"{api.name} and {other} stay as they were" if is_there else f"{api.name} stays"
            context.report(
                Warned(
                    f"{kept}, because no API can ask an asynchronous endpoint",
                    hint="set another kind in [endpoint] and run fdeploy up, or remove the stage "
                    "with fdeploy teardown",
                )
            )
            return
        if not is_there:
            return
        if api and other_serves(api.outputs, self._serving_name):
            context.report(
                Warned(
                    f"the API still asks what {other} has, which stays and costs until then",
                    hint="run fdeploy create-api to move the API",
                )
            )
            return
        context.report(Step(f"deleting {other}, which nothing asks any more"))
        try:
            context.deployment().remove(other)
        except StackBusy as error:
            kept = f"{other} stays and costs until then: {error.message}"
            context.report(Warned(kept, hint="run fdeploy deploy again, which deletes it"))

    @property
    def _other_kind(self) -> str:
        """The stack that the stage would have with the other kind of endpoint."""
        owner = self.context.owner
        stack = naming.endpoint_stack if self._is_function else naming.function_stack
        return stack(owner.project, owner.stage)

    def _expire_data(self, bucket: Bucket) -> None:
        """Have S3 delete captured and asynchronous data after the days of the settings."""
        context = self.context
        if not bucket.ours:
            return
        endpoint = context.settings.sections.endpoint
        wanted = (
            (naming.captured_prefix, bool(endpoint.data_capture)),
            (naming.async_prefix, endpoint.kind == "async"),
        )
        for prefix, is_written in wanted:
            if is_written:
                place = prefix(context.owner.project, context.owner.stage)
                try:
                    expire(context.aws, bucket, place, endpoint.data_retention)
                except AwsDenied as error:
                    kept = f"{bucket.uri(place)} does not expire: {error.message}"
                    context.report(Warned(kept, hint=error.hint))

    def _set_end(self, version: str) -> None:
        """Schedule the deletion of the stage, or cancel it if ``ttl`` is not set."""
        context = self.context
        stack, ends = expiry.stack_name(context), expiry.wanted_end(context)
        if ends is None:
            if context.deployment().remove(stack):
                context.report(Step("the stage no longer deletes itself, because ttl is not set"))
            return
        definition = context.definitions.ttl(version, ends)
        context.deployment().apply(context.request(stack, definition))
        context.report(Step(f"the stage will delete itself at {ends:%Y-%m-%d %H:%M} UTC"))

    def _api_stack(self) -> Stack:
        owner = self.context.owner
        stack = our_stack(self.context.aws, naming.api_stack(owner.project, owner.stage), owner)
        if stack is None:
            raise UsageError("this stage has no API", hint="run fdeploy create-api")
        return stack

    def _need_keys(self) -> None:
        auth = self.context.settings.sections.api.auth
        if auth != "key":
            raise UsageError(
                f'the API has no keys: auth is "{auth}" in [api]',
                hint='set auth = "key", then run fdeploy create-api',
            )

    def _fetch_key(self, stack: Stack) -> str:
        self._need_keys()
        access = self.context.api_publisher.access(stack, "key")
        files.write(self._key_file, access.key.encode(), mode=0o600)
        return access.key

    @property
    def _chosen_bucket(self) -> str | None:
        return self.context.settings.sections.project.bucket

    @property
    def _key_file(self) -> Path:
        return self.context.home / "key"

    def _key(self, api: Api) -> str:
        if not api.key_file:
            return ""
        try:
            return files.read(self._key_file).decode("utf-8", "replace")
        except FileMissing:
            raise FileMissing(
                f"the API key file {self._key_file} is gone", hint="run fdeploy create-api"
            ) from None
