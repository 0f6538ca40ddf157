"""Names that loading a learner would import: harmless, dangerous, the user's own, or unknown."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastai_deploy.learner.reading.graph import Global


def name_set(text: str) -> frozenset[str]:
    """The words of a text separated by white space."""
    return frozenset(text.split())


# Modules that give the file control over the machine, whatever it takes from them.
NEVER_MODULES = name_set(
    """
    os posix nt subprocess _posixsubprocess sys socket _socket ssl shutil runpy importlib
    _frozen_importlib _frozen_importlib_external _imp imp pkgutil zipimport ctypes _ctypes code
    codeop pty tty webbrowser antigravity pickle _pickle pickletools shelve marshal dbm timeit
    trace bdb pdb cProfile profile pstats doctest asyncio http ftplib smtplib smtpd poplib imaplib
    nntplib telnetlib xmlrpc socketserver selectors select multiprocessing _multiprocessing
    concurrent signal _thread tempfile zipfile zipapp tarfile fileinput mmap sqlite3 ensurepip
    venv pip setuptools pkg_resources distutils idlelib turtledemo turtle tkinter lib2to3 test
    unittest faulthandler gc atexit site sitecustomize usercustomize sysconfig resource fcntl
    termios pwd grp spwd crypt getpass cmd platform commands symtable compileall py_compile
    modulefinder winreg _winapi msvcrt rlcompleter readline cgi cgitb wsgiref sched syslog curses
    """
)

# Those of them that libraries import at top level, so that a name may lead through them.
REEXPORTED = name_set(
    """
    os posix nt sys subprocess socket shutil importlib runpy ctypes pickle marshal shelve builtins
    multiprocessing tempfile zipfile tarfile webbrowser signal mmap
    """
)

# Dangerous names in modules that are otherwise harmless.
NEVER_NAMES: dict[str, frozenset[str]] = {
    "builtins": name_set(
        """
    eval exec compile open input __import__ globals locals vars breakpoint help exit quit setattr
    delattr copyright credits license __build_class__ memoryview execfile file raw_input reload
    apply
    """
    ),
    "io": frozenset({"open", "open_code", "FileIO"}),
    "_io": frozenset({"open", "open_code", "FileIO"}),
    "codecs": frozenset({"open"}),
    "gzip": frozenset({"open", "GzipFile"}),
    "bz2": frozenset({"open", "BZ2File"}),
    "lzma": frozenset({"open", "LZMAFile"}),
    "urllib": frozenset({"request", "urlopen", "urlretrieve"}),
    "threading": frozenset({"Thread", "Timer", "_start_new_thread"}),
    "types": frozenset({"FunctionType", "LambdaType", "CodeType", "ModuleType"}),
    "operator": frozenset({"call"}),
    "_operator": frozenset({"call"}),
    "typing": frozenset({"get_type_hints", "_eval_type", "ForwardRef"}),
    "logging": frozenset({"FileHandler", "config", "handlers"}),
    "linecache": frozenset({"getline", "getlines", "updatecache"}),
}

# The few harmless names in dangerous modules.
EXCEPTIONS = frozenset(
    {
        "os.PathLike",
        "os.fspath",
        "os.sep",
        "os.linesep",
        "sys.maxsize",
        "sys.intern",
        "sys.getsizeof",
        "platform.system",
        "unittest.mock.sentinel",
        "tempfile.gettempdir",
        "concurrent.futures.ThreadPoolExecutor",
        "concurrent.futures.ProcessPoolExecutor",
        "multiprocessing.cpu_count",
    }
)
SAFE_SUBMODULES = ("os.path", "importlib.metadata", "http.HTTPStatus", "urllib.parse")

# Private functions of the standard library that run what they receive.
NEVER_PRIVATE = frozenset(
    {
        "dataclasses._create_fn",
        "uuid._get_command_stdout",
        "uuid._popen",
        "random._test_generator",
        "inspect._signature_fromstr",
        "ast._getargs",
        "posixpath._joinrealpath",
    }
)

# The libraries that learners use.
KNOWN_LIBRARIES = name_set(
    """
    torch torchtext torchvision fastai fastcore fasttransform fastprogress fastdownload fastbook
    transformers tokenizers sentencepiece huggingface_hub datasets accelerate safetensors peft
    spacy thinc srsly catalogue confection cymem preshed murmurhash blis wasabi numpy pandas scipy
    sklearn pyarrow regex plum cloudpickle dill blurr ohmeow adaptnlp hugdatafast PIL matplotlib
    tqdm packaging yaml sacremoses ftfy emoji nltk bs4 pydantic typing_extensions attr attrs pytz
    dateutil dateparser six wandb tensorboard joblib beautifulsoup4 multiprocess
    pytorch_transformers pytorch_pretrained_bert _regex
    """
)

# Names in those libraries that run code, read another pickle or fetch something.
GADGETS = name_set(
    """
    load loads _load legacy_load _legacy_load load_learner load_pickle read_pickle load_url
    load_state_dict_from_url load_inline load_module load_library run run_command run_proc
    _run_command system popen Popen spawn exec eval exec_local exec_new exec_eval exec_import
    execWrapper runstring urlopen urlread urlretrieve urlsave urldest download_url download
    untar_data download_data parse_code evaluate_guards_expression _eval_length getlincoef
    call_shell check_output check_call launch remote_ip start_server save_pickle subimport_module
    from_file load_library load_state_dict_from_file memmap open_memmap fromfile tofile DataSource
    from_pretrained push_to_hub reduce_graph_module reduce_package_graph_module
    reduce_deploy_graph_module _forward_from_src _exec_with_source exec_with_source
    pickle_loads read_pickle to_pickle pickle_load dill_load exec_ import_file load_model
    snapshot_download hf_hub_download cached_file get_class_from_dynamic_module get_class_in_module
    save savez savez_compressed to_csv
    """
)
# Modules whose functions count as such names; of their classes, only those that run or fetch.
GADGET_CLASSES = name_set(
    """
    Process Pool ThreadPool Popen ProcessPoolExecutor ThreadPoolExecutor PackageImporter
    PackageExporter Unpickler NumpyUnpickler Pickler NumpyPickler CloudPickler Loader UnsafeLoader
    FullLoader Parallel Memory MemorizedFunc Manager BaseManager SyncManager TCPStore FileStore
    Listener Client Server PyCodeCache CppCodeCache AsyncCompile DllWrapper BuildExtension
    RemoteModule BuckTargetWriter
    """
)
GADGET_MODULES = (
    "torch.hub",
    "torch.utils.cpp_extension",
    "torch.distributed",
    "torch.utils.collect_env",
    "torch.utils.bottleneck",
    "torch._inductor",
    "torch.multiprocessing",
    "torch.package",
    "torch.fx.experimental",
    "torch._dynamo.bytecode_transformation",
    "torch._dynamo.debug_utils",
    "torch._dynamo.guards",
    "torch._dynamo.repro",
    "torch._dynamo.testing",
    "torch.fx.graph_module",
    "torch.utils._config_module",
    "numpy.testing",
    "numpy.f2py",
    "numpy.distutils",
    "pandas.core.computation",
    "fastcore.script",
    "fastcore.net",
    "fastcore.shutil",
    "fastcore.parallel",
    "joblib",
    "dill",
    "multiprocess",
    "yaml",
    "cloudpickle",
    "sklearn.externals",
    "nltk.data",
    "datasets.load",
)
# cloudpickle's helpers, part of a fastai 2.8 export; ``pickle_calls.py`` checks their arguments.
CLOUDPICKLE_HELPERS = name_set(
    """
    _builtin_type _make_function _make_skeleton_class _make_skeleton_enum _make_cell
    _make_empty_cell _function_setstate _class_setstate _code_setstate subimport dynamic_subimport
    _make_typevar _make_dict_keys _make_dict_values _make_dict_items _fill_function
    _rehydrate_skeleton_class _empty_cell_value instance _lookup_class_or_track _is_dynamic
    CloudPickler _make_skel_func _get_cell_contents
    """
)


Table = dict[str, frozenset[str]]


def read_tables(text: str) -> dict[str, Table]:
    """The tables of a file such as ``harmless.txt``, by title."""
    tables: dict[str, Table] = {}
    table: Table = {}
    modules: list[str] = []
    named = False  # whether names have been read since the last modules
    for line in text.splitlines():
        if line.startswith("["):
            table = tables.setdefault(line.strip("[]"), {})
        elif line.startswith("    "):
            named = True
            for module in modules:
                table[module] = table.get(module, frozenset()).union(line.split())
        elif line and not line.startswith("#"):
            modules = [*([] if named else modules), *line.split()]
            named = False
    return tables


_TABLES = read_tables(Path(__file__).with_name("harmless.txt").read_text(encoding="utf-8"))
_LANGUAGES = """
    af am ar az bg bn bo ca cs da de dsb el en es et eu fa fi fo fr ga gd grc gu he hi hr hsb ht hu
    hy id is it ja kmr kn ko ky la lb lg lij lt lv mk ml mr ms nb ne nl nn pl pt ro ru sa si sk sl
    sq sr sv ta te th ti tl tn tr tt uk ur vi xx yo zh
"""
_LEX_ATTRS = {
    f"spacy.lang.{code}.lex_attrs": frozenset({"like_num"}) for code in _LANGUAGES.split()
}
_CHUNKS = {
    f"spacy.lang.{code}.syntax_iterators": frozenset({"noun_chunks"}) for code in _LANGUAGES.split()
}
CALLED: Table = {**_TABLES["called"], **_LEX_ATTRS}
MADE: Table = _TABLES["made"]
HELD: Table = {**_TABLES["held"], **_CHUNKS}

_CAMEL = r"_?[A-Z][A-Za-z0-9]*"
_MODULES = (
    # Without transformers.models.auto, whose classes are factories, and those that start programs.
    r"transformers\.models\.(?!auto\.|bert_japanese\.|rag\.)(deprecated\.)?[a-z0-9_]+\."
    r"(modeling|configuration|tokenization)_[a-z0-9_]+|"
    r"transformers\.(modeling|configuration|tokenization)_(?!auto\b)[a-z0-9_]+|"
    r"pytorch_transformers\.(modeling|configuration|tokenization)_(?!auto\b)[a-z0-9_]+|"
    r"pytorch_pretrained_bert\.(modeling|tokenization)(_[a-z0-9_]+)?|"
    r"transformers\.(activations|pytorch_utils)|"
    r"torch\.nn\.modules\.[a-z][a-z0-9]*|"
    r"spacy\.lang\.[a-z]{2,3}"
)
FAMILIES = re.compile(rf"({_MODULES})\.{_CAMEL}", re.ASCII)

Rule = Literal[
    "attribute", "partial", "reduce", "type", "attrgetter", "methodcaller", "item", "factory",
    "new class", "rebuilt class", "rebuilt tensor", "compiled", "spaCy tokenizer",
    "spaCy vocabulary", "first argument",
]  # fmt: skip
_ROWS: tuple[tuple[Rule, str], ...] = (
    ("attribute", "builtins.getattr"),
    ("partial", "functools.partial functools.partialmethod"),
    ("reduce", "functools.reduce"),
    ("type", "builtins.type"),
    ("attrgetter", "operator.attrgetter _operator.attrgetter"),
    ("methodcaller", "operator.methodcaller _operator.methodcaller"),
    ("item", "operator.getitem _operator.getitem"),
    ("factory", "collections.defaultdict"),
    ("new class", "copyreg._reconstructor copyreg.__newobj__ copyreg.__newobj_ex__"),
    (
        "rebuilt class",
        """
        fastai.torch_core._fa_rebuild_qtensor fastai.torch_core._fa_rebuild_tensor
        numpy._core.multiarray._reconstruct numpy.core.multiarray._reconstruct
        numpy.ma.core._mareconstruct pandas.core.indexes.base._new_Index
        pandas.core.indexes.datetimes._new_DatetimeIndex
        pandas.core.indexes.interval._new_IntervalIndex
        pandas.core.indexes.period._new_PeriodIndex
        pandas.core.indexes.timedeltas._new_TimedeltaIndex
        torch._utils._rebuild_wrapper_subclass
        """,
    ),
    (
        "rebuilt tensor",
        """
        fastai.torch_core._rebuild_from_type torch.tensor._rebuild_from_type
        torch._tensor._rebuild_from_type torch._tensor._rebuild_from_type_v2
        """,
    ),
    ("compiled", "torch._dynamo.eval_frame.OptimizedModule"),
    ("spaCy tokenizer", "spacy.tokenizer.Tokenizer"),
    ("spaCy vocabulary", "spacy.vocab.unpickle_vocab"),
    ("first argument", "spacy.util._get_attr_unless_lookup"),
)
FOLLOWED: dict[str, Rule] = {name: rule for rule, names in _ROWS for name in names.split()}


def is_method(owner: str, name: str) -> bool:
    """Whether real learners are known to hold a method of a class (``module.name``)."""
    language = re.fullmatch(r"spacy\.lang\.[a-z]{2,3}\.[A-Z][A-Za-z]*", owner, re.ASCII)
    return name in _TABLES["methods"].get("spacy.language.Language" if language else owner, ())


Kind = Literal["dangerous", "unknown", "user", "harmless"]
# The most serious first.
KINDS: tuple[Kind, ...] = ("dangerous", "unknown", "user", "harmless")

MAIN = ("__main__", "__mp_main__")
STANDARD = frozenset(sys.stdlib_module_names) | {"__builtin__", "imp", "distutils"}
_DUNDERS = frozenset({"__newobj__", "__newobj_ex__", "__main__", "__init__", "__call__"})
_CLASS = re.compile(r"_?[A-Z]\w*[a-z]\w*", re.ASCII)
_MOST_SPLITS = 20  # dots in a name that somebody wrote


@dataclass(frozen=True)
class Imported:
    """A name that loading would import, how often, and its kind."""

    name: str
    kind: Kind
    count: int

    @property
    def own(self) -> bool:
        """Whether it belongs to the user's own notebook or script."""
        return self.name.split(".")[0] in MAIN


def sort_names(counts: Mapping[Global, int]) -> tuple[Imported, ...]:
    """Every import, the most serious kind first, then by name."""
    found = [Imported(str(name), kind_of(name), count) for name, count in counts.items()]
    return tuple(sorted(found, key=lambda item: (KINDS.index(item.kind), item.name)))


def kind_of(name: Global) -> Kind:
    """The kind of an import."""
    top = name.module.split(".")[0]
    if is_listed(name):
        return "harmless"
    if would_be_dangerous(name):
        return "dangerous"
    return "unknown" if top in STANDARD or top in KNOWN_LIBRARIES else "user"


def is_users_own(cls: Global | None) -> bool:
    """Whether a class is user-defined; False for an object without a class."""
    return cls is not None and kind_of(cls) == "user"


def would_be_dangerous(name: Global) -> bool:
    """Whether a name would be dangerous if it were not listed as harmless."""
    top = name.module.split(".")[0]
    if any(is_dunder(part) or part in REEXPORTED for part in name.name.split(".")):
        return True  # it leads through an interpreter internal or another module
    if top in MAIN:
        return False
    if top in STANDARD or top in NEVER_MODULES:
        return _never(name, top)
    return top in KNOWN_LIBRARIES and _gadget(name)


def is_listed(name: Global) -> bool:
    """Whether a name is known to be harmless."""
    if is_called(name) or is_made(name) or name.name in HELD.get(name.module, ()):
        return True
    helper = name.module.split(".")[0] == "cloudpickle" and name.name in CLOUDPICKLE_HELPERS
    return str(name) in FOLLOWED or helper


def is_called(name: Global) -> bool:
    """Whether calling it during loading is known to be harmless."""
    error = name.module == "builtins" and name.name.endswith(("Error", "Exception", "Warning"))
    return name.name in CALLED.get(name.module, ()) or error


def is_made(name: Global) -> bool:
    """Whether creating an instance, as pickle does, is known to be harmless."""
    if name.name in MADE.get(name.module, ()) or is_called(name):
        return True
    return FAMILIES.fullmatch(str(name)) is not None


def is_class(name: Global) -> bool:
    """Whether it is spelled like a class."""
    return _CLASS.fullmatch(name.name.split(".")[-1]) is not None


def ever_dangerous(dotted: str) -> bool:
    """Whether ``a.b.c`` is dangerous, whichever part of it is the module."""
    parts = dotted.split(".")[:_MOST_SPLITS]
    names = (Global(".".join(parts[:end]), ".".join(parts[end:])) for end in range(1, len(parts)))
    return any(kind_of(name) == "dangerous" for name in names)


def is_dunder(part: str) -> bool:
    """Whether a name is an interpreter internal that leads to everything else."""
    return part.startswith("__") and part.endswith("__") and part not in _DUNDERS


def leads_out(attribute: str) -> bool:
    """Whether an attribute runs code or fetches something, on whatever object."""
    return is_dunder(attribute) or attribute in GADGETS or attribute in REEXPORTED


def _within(dotted: str, *packages: str) -> bool:
    return any(dotted == package or dotted.startswith(package + ".") for package in packages)


def _never(name: Global, top: str) -> bool:
    if str(name) in EXCEPTIONS or _within(str(name), *SAFE_SUBMODULES):
        return False
    if top in NEVER_MODULES or str(name) in NEVER_PRIVATE:
        return True
    forbidden = NEVER_NAMES.get(top, frozenset())
    parts = (*name.module.split(".")[1:], *name.name.split("."))
    return any(part in forbidden for part in parts)


def _gadget(name: Global) -> bool:
    last = name.name.split(".")[-1]
    if last in GADGETS:
        return True
    if not _within(name.module, *GADGET_MODULES):
        return False
    return last in GADGET_CLASSES or not is_class(name)
