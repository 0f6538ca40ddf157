"""Pickles that do harm, or could, if they are loaded. The tests never load them.

``docs/security.md`` counts them. Each is a whole pickle, as a file would hold it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from itertools import product

from fastai_deploy.learner.reading.graph import Call, Global, Mapping
from tests.learner.assemble import assemble, listing, mapping, new, torch_zip

# Names that are dangerous to import, however they are used.
NAMES = [
    "os system", "os popen", "os execvp", "os remove", "posix system", "nt system", "os environ",
    "subprocess Popen", "subprocess run", "subprocess check_output", "builtins eval",
    "builtins exec", "builtins compile", "builtins open", "builtins __import__", "builtins setattr",
    "builtins globals", "builtins breakpoint", "builtins input", "sys modules", "sys exit",
    "sys settrace", "socket socket", "socket create_connection", "shutil rmtree", "shutil move",
    "runpy run_path", "importlib import_module", "importlib.util spec_from_file_location",
    "ctypes CDLL", "code InteractiveInterpreter", "code interact", "pty spawn", "webbrowser open",
    "pickle loads", "_pickle loads", "marshal loads", "timeit timeit", "bdb Bdb", "pdb run",
    "cProfile run", "profile runctx", "trace Trace", "doctest testfile", "asyncio run",
    "asyncio.subprocess create_subprocess_exec", "http.client HTTPSConnection",
    "urllib.request urlopen", "ftplib FTP", "smtplib SMTP", "tempfile mkstemp", "zipfile ZipFile",
    "tarfile open", "sqlite3 connect", "multiprocessing Process", "threading Thread",
    "_thread start_new_thread", "signal raise_signal", "io open", "io FileIO", "codecs open",
    "gzip open", "types FunctionType", "types CodeType", "operator call", "typing get_type_hints",
    "logging FileHandler", "logging.config fileConfig", "platform popen", "getpass getpass",
    "pip main", "pip._internal main", "setuptools setup", "distutils.core setup",
    "idlelib.run main",
    "lib2to3.main main", "test.support run_code", "unittest main", "ensurepip bootstrap",
    "venv create", "site main", "sysconfig get_paths", "gc get_objects", "faulthandler _sigsegv",
    "torch load", "torch.serialization load", "torch.hub load",
    "torch.hub load_state_dict_from_url",
    "torch.utils.cpp_extension load", "torch.jit load", "torch.package PackageImporter",
    "torch.distributed.rpc remote", "torch.utils.collect_env run", "numpy load",
    "numpy.lib.npyio load",
    "numpy.testing._private.utils runstring", "numpy.f2py.crackfortran getlincoef",
    "pandas read_pickle",
    "pandas.io.pickle read_pickle", "pandas eval", "joblib load", "sklearn.externals.joblib load",
    "yaml unsafe_load", "dill loads", "cloudpickle loads", "cloudpickle.cloudpickle loads",
    "fastai.learner load_learner", "fastai.basic_train load_learner", "fastcore.xtras run",
    "fastcore.basics exec_local", "fastai.basics run", "fastcore.xtras load_pickle",
    "transformers.utils.generic os", "fastai.imports subprocess", "dataclasses _create_fn",
    "uuid _get_command_stdout", "random _test_generator", "torch from_file",
    "torch.ops load_library",
    "numpy memmap", "numpy fromfile", "numpy DataSource", "srsly pickle_loads",
    "torch.fx.graph_module reduce_graph_module", "torch._dynamo.repro.after_aot run_repro",
    "multiprocess Process", "multiprocess.pool Pool", "joblib Parallel", "joblib Memory",
    "joblib.numpy_pickle NumpyUnpickler", "fastcore.parallel ProcessPoolExecutor",
    "fastcore.net urlread", "nltk.data load", "datasets.load load_dataset", "spacy load",
    "transformers.models.auto.auto_factory _BaseAutoModelClass.from_pretrained",
]  # fmt: skip
PYTHON_2 = [
    "__builtin__ eval", "__builtin__ execfile", "__builtin__ apply", "commands getoutput",
    "cPickle loads", "urllib urlopen", "thread start_new_thread",
]  # fmt: skip
# Names that lead through a harmless module into another, or into the interpreter.
PATHS = [
    ("torch.serialization", "os.system"),
    ("torch", "serialization.os.system"),
    ("fastai.imports", "subprocess.Popen"),
    ("collections", "abc.sys.modules"),
    ("builtins", "str.__class__.__subclasses__"),
    ("functools", "partial.__init__.__globals__"),
    ("fastai.learner", "Learner.__reduce__"),
    ("__main__", "Thing.__globals__"),
]
# Calls of the standard library and of known libraries that used to count as harmless, because
# everything in their modules did.
ONCE_HARMLESS: dict[str, object] = {
    "dataclasses._create_fn": ("f", listing("x=__import__('os').system('id')"), listing("pass")),
    "dataclasses.make_dataclass": ("C", listing("x")),
    "collections.namedtuple": ("T", "a b"),
    "enum.Enum": ("E", "A B"),
    "enum.EnumMeta": ("E", (), Mapping([])),
    "abc.ABCMeta": ("C", (), Mapping([])),
    "abc.update_abstractmethods": (Global("fastai.learner", "Learner"),),
    "typing.NamedTuple": ("T", listing(("a", Global("builtins", "int")))),
    "typing._eval_type": ("x", Mapping([]), Mapping([])),
    "typing.no_type_check": (Global("fastai.learner", "Learner"),),
    "typing.ForwardRef": ("__import__('os').system('id')",),
    "itertools.accumulate": (listing("a", "b"), Global("builtins", "getattr")),
    "itertools.starmap": (Global("builtins", "getattr"), listing(("a", "b"))),
    "itertools.filterfalse": (Global("builtins", "getattr"), listing("a")),
    "itertools.groupby": (listing("a"), Global("builtins", "print")),
    "itertools.takewhile": (Global("builtins", "print"), listing("a")),
    "uuid._get_command_stdout": ("id",),
    "uuid._ifconfig_getter": (),
    "uuid.getnode": (),
    "string.Formatter": (),
    "string.capwords": ("x",),
    "re.sub": ("x", Global("builtins", "print"), "x"),
    "re.Scanner": (listing(("a", Global("builtins", "print"))),),
    "re.template": ("x",),
    "weakref.finalize": (Global("__main__", "T"), Global("builtins", "print"), "x"),
    "weakref.WeakMethod": (Global("__main__", "T"),),
    "queue.SimpleQueue": (),
    "queue.Queue": (),
    "sre_compile.compile": ("x",),
    "fractions.Fraction.from_float": (1.5,),
    "decimal.getcontext": (),
    "random._test": (),
    "torch.from_file": ("/nowhere/x",),
    "torch.compile": (Global("__main__", "f"),),
    "torch.save": (1, "/nowhere/x"),
    "torch.set_default_device": ("cpu",),
    "torch.vmap": (Global("builtins", "print"),),
    "torch.utils._pytree.tree_map": (Global("builtins", "print"), listing("x")),
    "torch.nn.modules.module.register_module_forward_hook": (Global("builtins", "print"),),
    "torch.fx._symbolic_trace.symbolic_trace": (Global("__main__", "m"),),
    "numpy.vectorize": (Global("builtins", "print"),),
    "numpy.apply_along_axis": (Global("builtins", "print"), 0, listing(1)),
    "numpy.fromfunction": (Global("builtins", "print"), (1,)),
    "numpy.save": ("/nowhere/x", 1),
    "numpy.lib.utils.safe_eval": ("1",),
    "pandas.read_csv": ("http://x",),
    "pandas.core.apply.frame_apply": (1,),
    "pandas.core.common.pipe": ("x", Global("builtins", "print")),
    "fastcore.basics.maps": (Global("builtins", "print"), listing("x")),
    "fastcore.basics.compose": (Global("builtins", "print"),),
    "fastcore.basics.partialler": (Global("builtins", "print"),),
    "fastcore.foundation.L.map": (listing("x"), Global("builtins", "print")),
    "fastai.torch_core.apply": (Global("builtins", "print"), "x"),
    "fastai.data.external.untar_data": ("http://x",),
    "fastai.text.core.tokenize_files": (listing("/"),),
    "transformers.pipelines.pipeline": ("x",),
    "transformers.utils.hub.cached_file": ("x", "y"),
    "transformers.dynamic_module_utils.get_class_from_dynamic_module": ("x", "y"),
    "transformers.models.bert.tokenization_bert.load_vocab": ("/etc/passwd",),
    "huggingface_hub.snapshot_download": ("x",),
    "huggingface_hub.file_download.hf_hub_download": ("x", "y"),
    "spacy.util.load_model": ("x",),
    "spacy.util.import_file": ("x", "/nowhere/x.py"),
    "thinc.util.registry.resolve": (Mapping([]),),
    "catalogue.Registry": ("x", "y"),
    "plum.Dispatcher": (),
    "PIL.Image.open": ("/nowhere/x",),
    "sklearn.utils.Bunch": (),
    "scipy.LowLevelCallable": (1,),
    "tqdm.tqdm": (listing("x"),),
    "attr.make_class": ("C", listing("a")),
    "pydantic.create_model": ("M",),
    "six.exec_": ("print(1)",),
    "six.moves.builtins": (),
    "wandb.init": (),
    "bs4.BeautifulSoup": ("x",),
    "regex.sub": ("x", Global("builtins", "print"), "x"),
    "packaging.version.parse": ("1",),
    "logging.basicConfig": (Mapping([("filename", "/nowhere/x")]),),
    "glob.glob": ("/*",),
    "linecache.getlines": ("/etc/passwd",),
    "mailbox.Maildir": ("/nowhere/x",),
    "configparser.ConfigParser.read": ("/etc/passwd",),
    "netrc.netrc": ("/etc/passwd",),
    "xml.etree.ElementTree.parse": ("/etc/passwd",),
    "mimetypes.init": (listing("/etc/passwd"),),
    "wave.open": ("/nowhere/x",),
    "plistlib.load": ("x",),
    "contextlib.ExitStack": (),
    "copy.deepcopy": (Global("__main__", "x"),),
    "html.unescape": ("x",),
    "json.loads": ("{}",),
    "functools.reduce": (Global("builtins", "getattr"), listing("a", "b")),
    "functools.singledispatch": (Global("builtins", "print"),),
    "functools.cmp_to_key": (Global("builtins", "print"),),
    "builtins.map": (Global("builtins", "print"), listing("x")),
    "builtins.filter": (Global("builtins", "print"), listing("x")),
    "builtins.sorted": (listing("x"), Global("builtins", "print")),
    "builtins.max": (listing("x"), Global("builtins", "print")),
    "builtins.iter": (Global("builtins", "print"), 1),
    "builtins.print": ("x",),
    "types.new_class": ("C", (), Mapping([]), Global("builtins", "print")),
    "types.prepare_class": ("C",),
    "types.coroutine": (Global("__main__", "f"),),
    "inspect.getsource": (Global("__main__", "f"),),
    "inspect.getmembers": (Global("__main__", "f"),),
    "operator.methodcaller": ("unlink",),
    "a_package_that_nobody_knows.f": ("x",),
}  # fmt: skip
_PARTIAL, _GETATTR = Global("functools", "partial"), Global("builtins", "getattr")
_CREATE = Global("dataclasses", "_create_fn")


def attribute(owner: object, name: object) -> Call:
    """``getattr(owner, name)``."""
    return Call(_GETATTR, (owner, name))


def function_by_value() -> Call:
    """A function whose code is in the file, as cloudpickle stores it."""
    code = Call(Call(Global("cloudpickle.cloudpickle", "_builtin_type"), ("CodeType",)), (0,))
    return Call(Global("cloudpickle.cloudpickle", "_make_function"), (code, Mapping([])))


def module_by_value(name: str = "os") -> Call:
    """A whole module, as cloudpickle stores it."""
    return Call(Global("cloudpickle.cloudpickle", "subimport"), (name,))


# Functions that are called with "x".
FUNCTIONS: dict[str, object] = {
    "partial": Call(_PARTIAL, (Global("builtins", "print"),)),
    "partial of a partial": Call(_PARTIAL, (Call(_PARTIAL, (_CREATE, "f")),)),
    "partial of getattr": Call(_PARTIAL, (_GETATTR, module_by_value())),
    "attrgetter": Call(Global("operator", "attrgetter"), ("system",)),
    "methodcaller": Call(Global("operator", "methodcaller"), ("unlink",)),
    "getattr on a module": attribute(module_by_value(), "system"),
    "getattr of a dunder": attribute(Global("fastai.learner", "Learner"), "__globals__"),
    "getattr of a computed name": attribute(
        Global("fastai.learner", "Learner"), Call(Global("builtins", "str"), ("x",))
    ),
    "a method of a path": attribute(Call(Global("pathlib", "PosixPath"), ("/x",)), "unlink"),
    "a method of the standard library": attribute(Global("pathlib", "Path"), "unlink"),
    "a method of text": attribute("{0.__class__}", "format"),
    "a function by value": function_by_value(),
    "a tuple": (1, 2),
    "text": "system",
    "what another call gave": Call(Call(Global("fastai.learner", "f"), ()), ()),
    "map": Global("builtins", "map"),
    "reduce": Global("functools", "reduce"),
    "print": Global("builtins", "print"),
    "a function that may only be named": Global("html", "unescape"),
}


def _with(made: Call, state: object) -> Call:
    made.states.append(state)
    return made


def _swapped() -> Call:
    """A partial of a harmless function, which its state replaces by another."""
    partial = Call(_PARTIAL, (Global("pandas.core.internals.blocks", "new_block"),))
    return Call(_with(partial, (_CREATE, ("f",), Mapping([]), None)), ("x",))


def _appended() -> Call:
    made = _with(new("fastai.data.core", "Datasets"), mapping({"extend": Global("re", "sub")}))
    made.items.append("x")
    return made


def _spacy(inner: object) -> Call:
    held = Call(Global("_codecs", "encode"), (assemble(inner).decode("latin-1"), "latin1"))
    args = (None, None, None, None, held, None, None)
    return Call(Global("spacy.vocab", "unpickle_vocab"), args)


def _rebuilt(func: object, *args: object) -> Call:
    rebuild = Global("torch._tensor", "_rebuild_from_type_v2")
    return Call(rebuild, (func, Global("torch", "Tensor"), args, None))


# Calls hidden behind other calls: the pickle first names another function than the one called.
HIDDEN: dict[str, Callable[[], object]] = {
    "a partial with another function in its state": _swapped,
    "a partial with a state that is made": lambda: _with(
        Call(_PARTIAL, (Global("builtins", "int"),)),
        Call(Global("builtins", "tuple"), (listing(Global("re", "sub"), (), Mapping([]), None),)),
    ),
    "a partial of a rebuilding function": lambda: Call(
        _PARTIAL, (Global("torch._tensor", "_rebuild_from_type_v2"),)
    ),
    "rebuild_from_type": lambda: _rebuilt(_CREATE, "f", listing("x"), listing("pass")),
    "rebuild_from_type of getattr": lambda: _rebuilt(_GETATTR, module_by_value(), "system"),
    "rebuild_from_type with made arguments": lambda: Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (_PARTIAL, Global("torch", "Tensor"), Call(Global("builtins", "tuple"), (listing("x"),)),
         None),
    ),
    "fastai's rebuild_from_type": lambda: Call(
        Global("fastai.torch_core", "_rebuild_from_type"),
        (Global("six", "exec_"), Global("fastai.torch_core", "TensorBase"), ("x",), Mapping([])),
    ),
    "a default factory": lambda: Call(
        Global("collections", "defaultdict"), (Call(_PARTIAL, (Global("six", "exec_"), "x")),)
    ),
    "a reconstructor": lambda: Call(
        Global("copyreg", "_reconstructor"),
        (Global("joblib.memory", "Memory"), Global("builtins", "object"), None),
    ),
    "a reconstructor with a base": lambda: Call(
        Global("copyreg", "_reconstructor"),
        (Global("fastai.learner", "Learner"), Global("mailbox", "Maildir"), "/nowhere/x"),
    ),
    "a new object through copyreg": lambda: Call(
        Global("copyreg", "__newobj__"), (Global("builtins", "map"), Global("re", "sub"), "x")
    ),
    "an index of another class": lambda: Call(
        Global("pandas.core.indexes.base", "_new_Index"),
        (Global("mailbox", "Maildir"), mapping({"dirname": "/nowhere/x"})),
    ),
    "an array of another class": lambda: Call(
        Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "memmap"), (0,), b"b")
    ),
    "a type from an operator": lambda: Call(
        Global("operator", "getitem"), (module_by_value("sys"), "x")
    ),
    "a class from type": lambda: Call(
        Global("builtins", "type"), ("C", (Global("fastai.learner", "Learner"),), Mapping([]))
    ),
    "a class of an odd metaclass": lambda: Call(
        Global("cloudpickle.cloudpickle", "_make_skeleton_class"),
        (Global("dataclasses", "make_dataclass"), "C", (), Mapping([]), None, None),
    ),
    "a type by name": lambda: Call(
        Call(Global("cloudpickle.cloudpickle", "_builtin_type"), ("FunctionType",)), (0,)
    ),
    "a changed class": lambda: Call(
        Global("cloudpickle.cloudpickle", "_class_setstate"),
        (Global("fastai.learner", "Learner"), (mapping({"predict": 1}), Mapping([]))),
    ),
    "a changed function": lambda: Call(
        Global("cloudpickle.cloudpickle", "_function_setstate"),
        (Global("json", "loads"), (Mapping([]), mapping({"__code__": 1}))),
    ),
    "a changed module": lambda: _with(module_by_value("torch"), mapping({"load": 1})),
    "a changed method": lambda: _with(
        attribute(Global("fastai.data.core", "FilteredBase"), "dataloaders"), mapping({"a": 1})
    ),
    "a changed logger": lambda: _with(
        Call(Global("logging", "getLogger"), ()), mapping({"handlers": 1})
    ),
    "an object with a __setstate__ of its own": lambda: _with(
        new("fastai.data.core", "Datasets", {"__setstate__": Global("re", "sub")}), "x"
    ),
    "an object of another class": lambda: new(
        "fastai.data.core", "Datasets", {"__class__": Global("mailbox", "Maildir")}
    ),
    "an object with an extend() of its own": _appended,
    "getattr that is kept": lambda: new("fastai.learner", "Learner", {"loss_func": _GETATTR}),
    "a bound method of a known library": lambda: attribute(
        Global("transformers.models.auto.modeling_auto", "AutoModel"), "from_pretrained"
    ),
    "a call of a bound method": lambda: Call(
        attribute(new("pandas.core.frame", "DataFrame"), "eval"), ("@x",)
    ),
    "a property of a known class": lambda: attribute(
        new("fastai.learner", "Learner"), "no_logging"
    ),
    "a class that is called": lambda: Call(
        Global("transformers.models.bert.tokenization_bert", "BertTokenizer"), ("/etc/passwd",)
    ),
    "an Auto class that is made": lambda: new(
        "transformers.models.auto.auto_factory", "_LazyAutoMapping"
    ),
    "a class in a module of models": lambda: new("transformers.models.rag.retrieval_rag", "Index"),
    "a spaCy vocabulary": lambda: _spacy(Call(Global("os", "system"), ("id",))),
    "a spaCy vocabulary of odd functions": lambda: _spacy(
        Mapping([(1, Call(_PARTIAL, (Global("builtins", "print"),)))])
    ),
    "a spaCy vocabulary that is made": lambda: Call(
        Global("spacy.vocab", "unpickle_vocab"),
        (None, None, None, None, Call(Global("builtins", "str"), ("x",)), None, None),
    ),
    "a spaCy tokenizer with a search of its own": lambda: Call(
        Global("spacy.tokenizer", "Tokenizer"), (None, None, Global("builtins", "print"))
    ),
    "a compiled module with a context of its own": lambda: Call(
        Global("torch._dynamo.eval_frame", "OptimizedModule"),
        (new("torch.nn.modules.linear", "Linear"), Global("builtins", "print")),
    ),
    "a module with a side effect": lambda: module_by_value("antigravity"),
    "a module that is not there": lambda: module_by_value("a_package_that_nobody_knows"),
    "a class of torch that only sounds like a layer": lambda: Call(
        Global("torch.nn.modules.module", "_addindent"), ("x", 1)
    ),
}  # fmt: skip


def text(value: str) -> bytes:
    """A text, as protocol 1 and later encode it."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


# Ways to push a function onto the stack.
NAMED: dict[str, bytes] = {
    "GLOBAL": b"cos\nmkdir\n",
    "STACK_GLOBAL": text("os") + text("mkdir") + b"\x93",
    "GLOBAL through a module": b"cshutil\nos.mkdir\n",
    "STACK_GLOBAL from the memo": text("os") + b"\x94" + text("mkdir") + b"\x9400h\x00h\x01\x93",
    "getattr": b"cbuiltins\ngetattr\ncposix\n__spec__\n" + text("mkdir") + b"\x86R",
    "GLOBAL of Python 2": b"cposix\nmkdir\n",
}
# Ways to call it with the argument.
CALLED: dict[str, Callable[[bytes, bytes], bytes]] = {
    "REDUCE": lambda name, argument: name + argument + b"\x85R",
    "NEWOBJ": lambda name, argument: name + argument + b"\x85\x81",
    "NEWOBJ_EX": lambda name, argument: name + argument + b"\x85}\x92",
    "OBJ": lambda name, argument: b"(" + name + argument + b"o",
    "BUILD": lambda name, argument: name + argument + b"\x85R}b",
    "APPEND": lambda name, argument: name + b")R" + argument + b"a",
    "SETITEM": lambda name, argument: name + b")R" + argument + b"Ns",
}
# Places to hide it.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "the root": lambda call: call + b".",
    "thrown away by POP": lambda call: b"N" + call + b"0.",
    "thrown away by POP_MARK": lambda call: b"N(" + call + b"1.",
    "in the memo alone": lambda call: b"N" + call + b"q\x050.",
    "a key of a dict": lambda call: b"}" + call + b"Ns.",
    "a state": lambda call: b"c__main__\nThing\n)\x81}" + text("x") + call + b"sb.",
    "an argument": lambda call: b"c__main__\nThing\n" + call + b"\x85R.",
    "a persistent id": lambda call: call + b"Q.",
    "in a tuple in a list in a dict": lambda call: b"}" + text("a") + b"](" + call + b"tas.",
}
_MAGIC = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


def _legacy(place: int) -> bytes:
    """A file of torch before 1.6, with a payload in one of the small pickles around its own."""
    call = CALLED["REDUCE"](NAMED["GLOBAL"], text("x")) + b"0"
    small: tuple[object, ...] = (*_MAGIC, None, [])
    parts = [pickle.dumps(each, 2) for each in small]
    parts[place] = parts[place][:2] + call + parts[place][2:]
    return b"".join(parts)


def _called(name: str) -> Global:
    module, _, attribute_ = name.rpartition(".")
    return Global(module, attribute_)


def _payloads() -> Iterator[tuple[str, bytes]]:
    for name in NAMES:
        module, _, called = name.partition(" ")
        yield f"call {name}", assemble(Call(Global(module, called), ("x",)))
    for name in PYTHON_2:
        module, _, called = name.partition(" ")
        yield f"Python 2: {name}", f"c{module}\n{called}\n(Vx\ntR.".encode()
    for module, path in PATHS:
        yield f"path {module} {path}", b"\x80\x04" + text(module) + text(path) + b"\x93."
    for name, args in ONCE_HARMLESS.items():
        yield f"once harmless: {name}", assemble(Call(_called(name), args))  # type: ignore[arg-type]
    for name, func in FUNCTIONS.items():
        yield f"call {name}", assemble(Call(func, ("x",)))
    for name, make in HIDDEN.items():
        yield f"hidden: {name}", assemble(make())
    for (named, data), (called, call) in product(NAMED.items(), CALLED.items()):
        yield f"{named}, {called}", PLACES["the root"](call(data, text("x")))
    for place, hide in PLACES.items():
        yield place, hide(CALLED["REDUCE"](NAMED["GLOBAL"], text("x")))
    for index, where in enumerate(("magic", "protocol", "system", "learner", "keys")):
        yield f"legacy: {where}", _legacy(index)
    inner = assemble(Call(Global("os", "system"), ("id",)))
    nested = Call(Global("torch.storage", "_load_from_bytes"), (inner,))
    yield "a tensor of its own", assemble(nested)
    yield "a tensor of its own in a zip", torch_zip(assemble(nested), {})
    yield "an extension", b"\x80\x02\x82\x01)R."
    yield "attributes of a class", b"\x80\x02cfastai.learner\nLearner\n}X\x01\x00\x00\x00xNsb."


PAYLOADS = dict(_payloads())
