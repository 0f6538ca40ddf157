"""Whose a stage is, and what is asked before it is made or deleted.

| stacks            | what a claim does                                                           |
|-------------------|-----------------------------------------------------------------------------|
| none yet          | The stage will carry the project's id. In a terminal, a project without one |
|                   | gets one, and the user is asked.                                            |
| with the same id  | They are the project's.                                                     |
| without an id     | An earlier version made them, or a run without a terminal. They belong to a |
|                   | project without an id; one with an id takes them over after asking, and     |
|                   | without a terminal only with ``--adopt``.                                   |
| with another id   | They are refused, except with ``--adopt``.                                  |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastai_deploy.aws.inventory import Names, ResourceRef
from fastai_deploy.aws.stacks import of_another_id, stage_stacks
from fastai_deploy.errors import NotOurs
from fastai_deploy.naming import ID_TAG
from fastai_deploy.progress import Step
from fastai_deploy.records import StoredArtifact, counted
from fastai_deploy.settings.identity import new_id
from fastai_deploy.stage_reports import some_names
from fastai_deploy.targets.aws import checks
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.base import Claim

# The price of an endpoint does not depend on its artifact.
_ANY_ARTIFACT = StoredArtifact("aws", "s3://bucket/key", "0" * 64, 0, "")


def claim(context: Context, *, creates: bool) -> Claim:
    """Check whose the stage is, and ask; ``creates``: the command may make it.

    Raises NotOurs for another project's stage, UsageError for a refused question, or AwsError.
    """
    owner, consent = context.owner, context.consent
    ids = refuse_another_projects(context, creates=creates)
    theirs = sorted(ids - {"", owner.id})
    if owner.id and ids == {""}:
        _take_over(context)
    id_ = owner.id or next(iter(theirs), "")
    if ids or not creates:
        return Claim(id_)
    suggested = "" if id_ else new_id()
    if consent.ask is not None:
        id_ = id_ or suggested
    _agree_to_first_deploy(context, id_)
    return Claim(id_, suggested="" if id_ else suggested)


def refuse_another_projects(context: Context, *, creates: bool = True) -> frozenset[str]:
    """The ids of the stage's stacks.

    Raises NotOurs if one is another project's, or if the command ``creates`` the stage and
    something else has the name of one of its stacks, or AwsError.
    """
    owner = context.owner
    ids = frozenset(_ids(context, creates=creates))
    theirs = sorted(ids - {"", owner.id})
    if theirs and not context.consent.adopt:
        raise of_another_id(owner, theirs[0])
    return ids


def _ids(context: Context, *, creates: bool) -> Iterator[str]:
    """The id of each of the stage's stacks, empty for one without. Raises NotOurs or AwsError."""
    anyones = replace(context.owner, adopts=True)
    names = Names(anyones.project, anyones.stage).stacks
    stacks = stage_stacks(context.aws, names, anyones)
    if creates:
        stacks.refuse_strangers_alone(anyones)
    for stack in stacks.ours:
        if stack.tags:  # it has none while it is only a change set
            yield stack.tags.get(ID_TAG, "")


def _take_over(context: Context) -> None:
    owner, consent = context.owner, context.consent
    if consent.adopt:
        return
    _say_where(context, owner.id)
    stage = f"stage {owner.stage} of project {owner.project}"
    if consent.ask is None or not consent.ask(
        f"The {stage} exists and has no id. Is it this project's?"
    ):
        raise NotOurs(
            f"the {stage} has no id, because an earlier version of fdeploy or a run without a "
            f"terminal made it; this folder has the id {owner.id}",
            hint="if it is this project's, run fdeploy deploy --adopt, or to delete it fdeploy "
            "teardown --adopt; else set another name in [project]",
        )


def _agree_to_first_deploy(context: Context, id_: str) -> None:
    owner, aws, consent = context.owner, context.aws, context.consent
    _say_where(context, id_)
    if consent.ask is None or consent.yes:
        return
    spec = context.definitions.endpoint_spec(_ANY_ARTIFACT)
    template = context.definitions.endpoint(_ANY_ARTIFACT).template
    ttl = context.settings.sections.project.ttl
    until = f"until it deletes itself after {ttl}" if ttl else "until fdeploy teardown"
    context.report(Step(f"costs {checks.cost(context, spec, [template])}, {until}"))
    consent.agree(
        f"Make the stage {owner.stage} in account {aws.account}, {aws.region}?",
        refused=f"the stage {owner.stage} was not made",
    )


def agree_to_teardown(context: Context, found: Sequence[ResourceRef]) -> None:
    """Show what a teardown deletes, and ask. Raises UsageError for a no."""
    owner, consent = context.owner, context.consent
    if not found:
        return
    _say_where(context, owner.id)
    if consent.ask is None or consent.yes:
        return
    kinds: dict[str, list[str]] = {}
    for ref in found:
        kinds.setdefault(ref.kind, []).append(ref.name)
    for kind, names in kinds.items():
        context.report(Step(f"deletes {kind} {some_names(names)}"))
    consent.agree(
        f"Delete {counted(len(found), 'resource')} of stage {owner.stage} in account "
        f"{context.aws.account}, {context.aws.region}?",
        refused="nothing was deleted",
    )


def _say_where(context: Context, id_: str) -> None:
    owner, aws = context.owner, context.aws
    context.report(Step(f"account {aws.account} ({aws.caller}), region {aws.region}"))
    owned = f", id {id_}" if id_ else ", without an id"
    context.report(Step(f"project {owner.project}, stage {owner.stage}{owned}"))
