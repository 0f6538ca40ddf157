"""Tables: the names that make a learner dangerous.

They run code, read other pickles, or reach for files and the network. What is neither here nor in
``harmless.py`` is unknown. Of the standard library a call of any function that is not listed as
harmless counts as dangerous, too: pickle itself never writes one.
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

# The few names that are no danger although their module is one.
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

# Private functions of the standard library that run what they are given.
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

# The libraries that learners are made of.
KNOWN_LIBRARIES = words(
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

# Names in them that run code, read another pickle or fetch something.
GADGETS = words(
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
# Modules whose functions count as such names; of their classes, those that run or fetch something.
GADGET_CLASSES = words(
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
# cloudpickle's helpers are part of a fastai 2.8 export; ``loading.py`` follows what they are given.
CLOUDPICKLE_HELPERS = words(
    """
    _builtin_type _make_function _make_skeleton_class _make_skeleton_enum _make_cell
    _make_empty_cell _function_setstate _class_setstate _code_setstate subimport dynamic_subimport
    _make_typevar _make_dict_keys _make_dict_values _make_dict_items _fill_function
    _rehydrate_skeleton_class _empty_cell_value instance _lookup_class_or_track _is_dynamic
    CloudPickler _make_skel_func _get_cell_contents
    """
)
