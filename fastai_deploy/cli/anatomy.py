"""What ``fdeploy inspect`` shows to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastai_deploy.cli.visible import shortened, some

_DEPTH = 3  # levels of the module tree that are shown; --json has them all
_LONGEST = 2_000  # characters of a line
_NAMES = 12  # names of a kind of import that are shown
_EFFECTS = {
    "none": "changes no answer",
    "takes the scores out": "takes the scores out of what the model answers, as is done here",
    "unknown": "its code may change answers; left out here",
    "unseen": "its code is not in the file; left out here",
}
_LOADING = {
    "dangerous": "would do harm; fdeploy only reads the file",
    "unknown": "runs code that fdeploy does not know: that nothing in it is known to be dangerous "
    "does not make it safe. fdeploy only reads the file",
    "harmless": "imports and calls only what is known to be harmless",
}


def anatomy_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A learner's summary, a fact a line, each as long as people read at most."""
    for line in _lines(found):
        yield shortened(line, _LONGEST)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    file, model, verdict = found["file"], found["model"], found["verdict"]
    hints = ", ".join(f"{name} {version}".strip() for name, version in found["libraries"].items())
    yield f"file       {file['name']}, {file['bytes']:,} bytes, format {file['format']}"
    yield f"learner    {found['learner_class']} of fastai {found['fastai']}"
    yield f"libraries  {hints or 'unknown'}"
    yield f"python     {found['python'] or 'any'}"
    raw = ", on raw scores: learn.predict answers those" if found["raw_scores"] else ""
    yield f"task       {found['task']}, loss {found['loss']}{raw}"
    yield f"labels     {len(found['labels'])}: {some(found['labels'], _NAMES)}"
    size = f"{model['parameters']:,} parameters, {model['bytes']:,} bytes"
    yield f"model      {model['architecture'] or model['family']}, {size}"
    if model["head"]:
        yield f"head       {', '.join(model['head'])}"
    if model["mask"]:
        yield f"mask       {model['mask']}"
    yield from _tree(model["modules"])
    yield from _tokenizer(found["tokenizer"], found["text"])
    yield from _ulmfit(found["ulmfit"])
    for each in found["callbacks"]:
        events = f" ({', '.join(each['events'])})" if each["events"] else ""
        yield f"callback   {each['class']}: {_EFFECTS[each['effect']]}{events}"
    for each in found["unproven"]:
        yield f"unproven   {each['subject']}: {each['reason']}"
        if each["code"]:
            yield f"           | {each['code']}"
    yield from _loading(found)
    for source in found["sources"]:
        yield f"source     of {source['class']}, {len(source['text'].splitlines())} lines"
        yield from (f"           | {line}" for line in source["text"].splitlines())
    yield f"verdict    {verdict['kind']}"
    if verdict["reason"]:
        yield f"           {verdict['reason']}"
        yield f"     try:  {verdict['hint']}"


def _loading(found: Mapping[str, Any]) -> Iterator[str]:
    imports, calls = found["imports"], found["calls"]
    for what, kinds in (("imports", imports), ("calls", calls)):
        own = f" ({len(kinds['own'])} your own)" if kinds["own"] else ""
        unknown = f"{len(kinds['unknown'])} unknown{own}"
        harmless = f"{len(kinds['harmless'])} harmless"
        yield f"{what:<10} {len(kinds['dangerous'])} dangerous, {unknown}, {harmless}"
    for kind in ("dangerous", "unknown"):
        named = [name for name in imports[kind] if name not in imports["own"]]
        called = [what for what in calls[kind] if what not in calls["own"]]
        if named or called:
            yield f"{kind:<10} {some([*named, *called], _NAMES)}"
    if imports["own"] or calls["own"]:
        yield f"your own   {some([*imports['own'], *calls['own']], _NAMES)}"
    yield f"loading    {_LOADING[found['loading']]}"


def _tree(modules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for module in modules:
        depth = module["path"].count(".") + 1 if module["path"] else 0
        if depth <= _DEPTH:
            name = module["path"].rpartition(".")[2]
            label = f"{name}: {module['class']}" if name else str(module["class"])
            yield f"           {'  ' * depth}{label}  {module['parameters']:,}"


def _tokenizer(
    tokenizer: Mapping[str, Any] | None, text: Mapping[str, Any] | None
) -> Iterator[str]:
    if tokenizer:
        kind = f"{tokenizer['kind']}, era {tokenizer['era']}"
        yield f"tokenizer  {tokenizer['class']}: {kind}, {tokenizer['vocabulary']:,} tokens"
        special = tokenizer["special_tokens"].items()
        yield f"special    {', '.join(f'{role} {token}' for role, token in special)}"
    if text:
        yield f"length     {text['max_length'] or 'unknown'} tokens"
        yield from (f"rule       {rule}" for rule in text["rules"])
        yield from (f"assumed    {assumption}" for assumption in text["assumptions"])


def _ulmfit(ulmfit: Mapping[str, Any] | None) -> Iterator[str]:
    if ulmfit is None:
        return
    sizes = ", ".join(f"{name} {ulmfit[name]}" for name in ("emb_sz", "n_hid", "n_layers"))
    yield f"sizes      {sizes}{', bidirectional' if ulmfit['bidirectional'] else ''}"
    yield f"vocabulary {ulmfit['vocabulary']:,} words; {ulmfit['embedding']:,} in the embedding"
    where = "its rules are in the file" if ulmfit["splitter_in_file"] else "its rules are not here"
    language = f" ({ulmfit['language']}), {where}" if ulmfit["splitter"] == "spaCy" else ""
    yield f"splitter   {ulmfit['splitter']}{language}"
    pooled = f"the last {ulmfit['max_len']:,}" if ulmfit["max_len"] else "all"
    yield f"length     pools {pooled} tokens, {ulmfit['bptt']} a step"
    yield from (f"rule       {rule}" for rule in ulmfit["rules"])
    if ulmfit["backwards"]:
        yield "direction  backwards"
    yield from (f"assumed    {assumption}" for assumption in ulmfit["assumptions"])
