"""The model in a Lambda function: its package, its versions, and the alias that serves one of them.

    artifact --> package --> bucket --> a new version, asked the goldens --> the alias moves to it

A deploy is two updates of the stack. The first publishes the new version beside the one that
serves; a version that fails is taken back, and nobody has asked it. The second moves the alias and
drops what neither serves nor served before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fastai_deploy import files, naming
from fastai_deploy.api_docs.lambda_documents import lambda_documents
from fastai_deploy.aws import functions
from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Applied, Plan
from fastai_deploy.aws.download import download
from fastai_deploy.aws.specs import FunctionSpec
from fastai_deploy.aws.stacks import Stack
from fastai_deploy.aws.templates.render import (
    Published,
    Serving,
    function_template,
    published,
    serving_of,
)
from fastai_deploy.errors import AwsMissing, DeployError, InvocationError
from fastai_deploy.interpreters import find_python
from fastai_deploy.packaging.function_zip import FunctionPackage, build_function_package
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.parity import Invoke, Json, Verify
from fastai_deploy.parity.gate import patient
from fastai_deploy.progress import Step, Warned
from fastai_deploy.records import Deployed, FunctionCode, StoredArtifact
from fastai_deploy.targets.aws import checks
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.stacks import StackDefinition

_POLL_SECONDS = 10.0
_ALARMS = ("function-errors", "function-throttles", "function-duration")


@dataclass(frozen=True)
class Wanted:
    """The stack to deploy: its specification, and the version that it would publish."""

    spec: FunctionSpec
    new: Published

    def definition(self, serving: Serving) -> StackDefinition:
        """The stack whose alias serves ``serving``."""
        spec = self.spec
        note = f"a function of {spec.function.memory:,} MB"
        return StackDefinition(
            function_template(spec, serving), spec.name, spec.version, (note,), spec.warnings
        )

    def beside(self, live: Serving | None) -> Serving:
        """The new version beside what serves, which stays as it is."""
        if live is None:
            return Serving(self.new)
        if live.live.logical_id == self.new.logical_id:
            return replace(live, live=self.new, canary=None)
        return Serving(live.live)

    def in_place_of(self, live: Serving | None) -> Serving:
        """The new version alone, with the one before it for a rollback."""
        if live is None or live.live.logical_id == self.new.logical_id:
            return self.beside(live)
        return Serving(self.new, (live.live,))


class FunctionStage:
    """Deploys and asks the function of one stage."""

    def __init__(self, context: Context) -> None:
        self._context = context
        owner = context.owner
        self.name = naming.endpoint_name(owner.project, owner.stage, "lambda")
        self.stack = naming.function_stack(owner.project, owner.stage)

    def deploy(
        self, stored: StoredArtifact, verify: Verify, *, again: bool = False
    ) -> tuple[StoredArtifact, bool]:
        """Publish the artifact and move the alias to it once it has answered the goldens.

        ``again``: the artifact is deployed and proven, and asked only if that changes the function.
        Returns the artifact with its package, and whether anything changed. Raises StackBusy if
        another command changed the stack before the alias has moved, and the errors of
        ``Rollout.apply``.
        """
        context = self._context
        stored = replace(stored, function=self._code(stored, context.bucket_of(stored)))
        wanted = self._wanted(stored)
        deployment = context.deployment()
        before = deployment.live(self.stack)
        live = serving_of(before.template if before else None)
        serves = live is None or live.live.logical_id == wanted.new.logical_id

        def prove(applied: Applied) -> None:
            number = applied.stack.outputs["Candidate"]
            if serves and not applied.changed:
                functions.check_in_use(context.aws, self.name, number)
            if again and not applied.changed:
                return
            if not serves:
                context.report(Step(f"asking version {number} of {self.name}, which serves nobody"))
            verify(patient(self._asking(number), context.aws.sleep))

        rollout = context.rollout(naming.function_log_group(self.name))
        request = context.request(self.stack, wanted.definition(wanted.beside(live)))
        applied = rollout.apply(request, prove, lambda: checks.check_function(context, wanted.spec))
        if live is None or serves:
            return stored, applied.changed
        proven = applied.stack
        if wanted.spec.canary:
            proven = self._try_on_some(wanted, live, before, proven)
        context.report(Step(f"moving {naming.ALIAS} from {live.live.version} to {stored.version}"))
        moved = self._request(wanted, wanted.in_place_of(live))
        context.deployment().apply(moved, since=proven)
        return stored, True

    def plan(self, stored: StoredArtifact) -> tuple[Plan, FunctionSpec]:
        """What a deploy would change. Raises the errors of ``Deployment.plan``."""
        wanted = self.wanted(stored)
        deployment = self._context.deployment()
        before = deployment.live(self.stack)
        live = serving_of(before.template if before else None)
        definition = wanted.definition(wanted.in_place_of(live))
        return deployment.plan(self._context.request(self.stack, definition)), wanted.spec

    def wanted(self, stored: StoredArtifact) -> Wanted:
        """The stack of an artifact that may not be stored yet; nothing is uploaded."""
        if stored.function is None:
            with TemporaryDirectory(prefix="fdeploy-") as folder:
                built = self._built(stored, Path(folder))
            stored = replace(stored, function=FunctionCode(built.sha256, built.reads))
        return self._wanted(stored)

    def invoke(self, request: Json) -> Json:
        """Ask the version that serves. Raises InvocationError or NoAnswer."""
        return functions.invoke(self._context.aws, self.name, request)

    def _wanted(self, stored: StoredArtifact) -> Wanted:
        spec = self._context.definitions.function_spec(stored)
        return Wanted(spec, published(spec))

    def _request(self, wanted: Wanted, serving: Serving) -> StackRequest:
        """The request for a stack, without its notes, which have been reported."""
        definition = replace(wanted.definition(serving), notes=(), warnings=())
        return self._context.request(self.stack, definition)

    def _asking(self, number: str) -> Invoke:
        """Asks a version. A model that does not load is a failed deploy, and no busy one."""

        def ask(request: Json) -> Json:
            try:
                return functions.invoke(self._context.aws, self.name, request, number)
            except InvocationError as error:
                if error.answer_code != "not_ready":
                    raise
                raise DeployError(
                    f"version {number} of {self.name} cannot load its model",
                    hint="run fdeploy logs to see why",
                ) from None

        return ask

    def _try_on_some(
        self, wanted: Wanted, live: Serving, before: StackRequest | None, proven: Stack
    ) -> Stack:
        """Send a share of the requests to the new version and watch the alarms.

        ``proven`` is the stack in which that was proven; the stack after it is returned. Raises
        DeployError after an alarm, when nothing is sent there any more.
        """
        context, spec = self._context, wanted.spec
        share = f"{spec.canary:.0%} of the requests to {wanted.new.version} for {spec.bake} s"
        context.report(Step(f"sending {share}"))
        sharing = self._request(wanted, Serving(live.live, live.kept, canary=wanted.new))
        shared = context.deployment().apply(sharing, since=proven).stack
        end = context.aws.clock() + spec.bake
        while not (alarms := self._alarms()) and context.aws.clock() < end:
            context.aws.sleep(_POLL_SECONDS)
        if alarms and before is not None:
            context.report(Step(f"restoring the previous state of {self.stack}"))
            context.deployment().apply(before, since=shared)
            raise DeployError(
                f"{', '.join(alarms)} while {share.partition(' for')[0]} went there",
                hint="run fdeploy logs to see why; the version before serves all requests again",
            )
        return shared

    def _alarms(self) -> list[str]:
        owner = self._context.owner
        names = [naming.alarm_name(owner.project, owner.stage, about) for about in _ALARMS]
        found = self._context.aws.call(
            "cloudwatch", "describe_alarms", AlarmNames=names, StateValue="ALARM"
        )
        return [alarm["AlarmName"] for alarm in found["MetricAlarms"]]

    # The package

    def _code(self, stored: StoredArtifact, bucket: Bucket) -> FunctionCode:
        """The package of an artifact, in the bucket: the one it was proven in, or a new one."""
        context, project = self._context, self._context.owner.project
        known = stored.function
        if known is not None:
            with contextlib.suppress(AwsMissing):
                key = naming.code_key(project, known.sha256)
                context.aws.call("s3", "head_object", **bucket.owned, Key=key)
                return known
        with TemporaryDirectory(prefix="fdeploy-") as folder:
            built = self._built(stored, Path(folder))
            key = naming.code_key(project, built.sha256)
            context.uploads(bucket).file(built.path, key, sha256=built.sha256)
        return FunctionCode(built.sha256, built.reads)

    def _built(self, stored: StoredArtifact, folder: Path) -> FunctionPackage:
        context = self._context
        context.report(Step("building the function's package"))
        python = find_python(FUNCTION.python)
        if python is None:
            missing = f"there is no Python {FUNCTION.python} here to compile the libraries with"
            context.report(
                Warned(
                    f"{missing}, so each cold start takes about half a second longer",
                    hint=f"install Python {FUNCTION.python}, then run fdeploy deploy again",
                )
            )
        built = build_function_package(
            self._artifact(stored, folder),
            folder / "function.zip",
            lambda_documents(context.settings, context.bundle, target="aws"),
            python=python,
        )
        where = "the model is read from the bucket at each cold start"
        about = where if built.reads else "with the model"
        context.report(
            Step(f"the package has {built.bytes:,} bytes, {built.unpacked:,} unpacked; {about}")
        )
        return built

    def _artifact(self, stored: StoredArtifact, folder: Path) -> Path:
        """The artifact on this machine; downloaded into ``folder`` if it is not."""
        context = self._context
        packed = context.bundle.parent / Path(naming.artifact_key("", "")).name
        if files.size_of(packed) == stored.bytes and files.sha256(packed) == stored.sha256:
            return packed
        path = folder / packed.name
        version = Deployed.of(stored, context.aws.now(), "")
        download(context.aws, version, path, context.report)
        return path


def other_serves(outputs: Mapping[str, str], name: str) -> bool:
    """Whether an API's stack asks another endpoint than ``name``."""
    return outputs.get("EndpointName", name) != name
