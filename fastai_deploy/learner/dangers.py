"""Tables: which names a learner may import, which it may call while it is loaded, and which never.

A learner is full of imports, and a few of the standard library's are needed by real ones. The rule
for the standard library is: what is listed as callable may be called, what is listed as never makes
the file dangerous even when it is only named, and the rest may be named (a labelling function may
use it later) but not called while loading. For the libraries around fastai, a list of the names
in them that run code, read pickles or fetch things.
"""

from __future__ import annotations

from fastai_deploy.learner.words import words

# Modules that give the file control over the machine, whatever is taken from them.
NEVER_MODULES = words(
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

# Those of them that libraries import at their top, so that a name may lead through them.
REEXPORTED = words(
    """
    os posix nt sys subprocess socket shutil importlib runpy ctypes pickle marshal shelve builtins
    multiprocessing tempfile zipfile tarfile webbrowser signal mmap
    """
)

# Names in modules that are otherwise harmless.
NEVER_NAMES: dict[str, frozenset[str]] = {
    "builtins": words(
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

# The few names that are harmless although their module is not.
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

# What loading may call, by module; None stands for everything in it.
CALLABLE: dict[str, frozenset[str] | None] = {
    "builtins": words(
        """
    object type set frozenset list dict tuple str bytes bytearray int float bool complex slice
    range getattr property staticmethod classmethod NotImplemented Ellipsis
    """
    ),
    "_codecs": frozenset({"encode"}),
    "abc": None,
    "argparse": frozenset({"Namespace"}),
    "array": None,
    "collections": None,
    "copyreg": frozenset({"_reconstructor", "__newobj__", "__newobj_ex__"}),
    "dataclasses": None,
    "datetime": None,
    "decimal": None,
    "enum": None,
    "fractions": None,
    "functools": frozenset({"partial", "partialmethod"}),
    "inspect": frozenset({"Signature", "Parameter", "_ParameterKind", "BoundArguments"}),
    "io": frozenset({"BytesIO", "StringIO"}),
    "_io": frozenset({"BytesIO", "StringIO"}),
    "itertools": None,
    "json": frozenset({"JSONDecoder", "JSONEncoder"}),
    "logging": frozenset(
        {"Logger", "RootLogger", "getLogger", "Formatter", "StreamHandler", "NullHandler"}
    ),
    "operator": frozenset({"itemgetter", "attrgetter", "methodcaller", "getitem", "or_"}),
    "_operator": frozenset({"itemgetter", "attrgetter", "methodcaller", "getitem", "or_"}),
    "pathlib": frozenset(
        {"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"}
    ),
    "queue": None,
    "random": frozenset({"Random"}),
    "re": None,
    "sre_compile": None,
    "string": None,
    "struct": frozenset({"Struct"}),
    "threading": frozenset({"RLock", "Lock"}),
    "time": frozenset({"struct_time"}),
    "types": frozenset(
        {"SimpleNamespace", "MappingProxyType", "MethodType", "GenericAlias", "UnionType"}
    ),
    "typing": None,
    "uuid": None,
    "weakref": None,
    "zoneinfo": None,
}

# The libraries that learners are made of.
KNOWN_LIBRARIES = words(
    """
    torch torchtext torchvision fastai fastcore fasttransform fastprogress fastdownload fastbook
    transformers tokenizers sentencepiece huggingface_hub datasets accelerate safetensors peft
    spacy thinc srsly catalogue confection cymem preshed murmurhash blis wasabi numpy pandas scipy
    sklearn pyarrow regex plum cloudpickle dill blurr ohmeow adaptnlp hugdatafast PIL matplotlib
    tqdm packaging yaml sacremoses ftfy emoji nltk bs4 pydantic typing_extensions attr attrs pytz
    dateutil dateparser six wandb tensorboard joblib beautifulsoup4 multiprocess
    pytorch_transformers pytorch_pretrained_bert
    """
)

# Names in them that run code, read another pickle or fetch something.
GADGETS = words(
    """
    load loads _load legacy_load _legacy_load load_learner load_pickle read_pickle load_url
    load_state_dict_from_url load_inline load_module load_library run run_command run_proc
    _run_command system popen Popen spawn exec eval exec_local exec_new exec_eval exec_import
    execWrapper runstring urlopen urlread urlretrieve urlsave urldest download_url download
    untar_data download_data parse_code evaluate_guards_expression _eval_length getlincoef
    call_shell check_output check_call launch remote_ip start_server save_pickle subimport_module
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
    "torch._dynamo",
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
# cloudpickle's helpers are part of a fastai 2.8 export; what they are given is looked at.
CLOUDPICKLE_HELPERS = words(
    """
    _builtin_type _make_function _make_skeleton_class _make_skeleton_enum _make_cell
    _make_empty_cell _function_setstate _class_setstate _code_setstate subimport dynamic_subimport
    _make_typevar _make_dict_keys _make_dict_values _make_dict_items _fill_function
    _rehydrate_skeleton_class _empty_cell_value instance _lookup_class_or_track _is_dynamic
    CloudPickler _make_skel_func _get_cell_contents
    """
)
