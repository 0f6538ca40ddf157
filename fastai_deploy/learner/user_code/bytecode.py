"""Code objects in a pickle and their bytecode, for CPython 3.8 to 3.14 on any Python."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fastai_deploy.learner.reading.graph import Call, Global, data

VERSIONS: Final = ((3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13), (3, 14))

_TABLE = """
ASYNC_GEN_WRAP                      -    -    -   87    -    -    -
BEFORE_ASYNC_WITH                  52   52   52   52   52    1    -
BEFORE_WITH                         -    -    -   53   53    2    -
BEGIN_FINALLY                      53    -    -    -    -    -    -
BINARY_ADD                         23   23   23    -    -    -    -
BINARY_AND                         64   64   64    -    -    -    -
BINARY_FLOOR_DIVIDE                26   26   26    -    -    -    -
BINARY_LSHIFT                      62   62   62    -    -    -    -
BINARY_MATRIX_MULTIPLY             16   16   16    -    -    -    -
BINARY_MODULO                      22   22   22    -    -    -    -
BINARY_MULTIPLY                    20   20   20    -    -    -    -
BINARY_OP                           -    -    -  122  122   45   44
BINARY_OR                          66   66   66    -    -    -    -
BINARY_POWER                       19   19   19    -    -    -    -
BINARY_RSHIFT                      63   63   63    -    -    -    -
BINARY_SLICE                        -    -    -    -   26    4    1
BINARY_SUBSCR                      25   25   25   25   25    5    -
BINARY_SUBTRACT                    24   24   24    -    -    -    -
BINARY_TRUE_DIVIDE                 27   27   27    -    -    -    -
BINARY_XOR                         65   65   65    -    -    -    -
BUILD_CONST_KEY_MAP               156  156  156  156  156   46    -
BUILD_INTERPOLATION                 -    -    -    -    -    -   45
BUILD_LIST                        103  103  103  103  103   47   46
BUILD_LIST_UNPACK                 149    -    -    -    -    -    -
BUILD_MAP                         105  105  105  105  105   48   47
BUILD_MAP_UNPACK                  150    -    -    -    -    -    -
BUILD_MAP_UNPACK_WITH_CALL        151    -    -    -    -    -    -
BUILD_SET                         104  104  104  104  104   49   48
BUILD_SET_UNPACK                  153    -    -    -    -    -    -
BUILD_SLICE                       133  133  133  133  133   50   49
BUILD_STRING                      157  157  157  157  157   51   50
BUILD_TEMPLATE                      -    -    -    -    -    -    2
BUILD_TUPLE                       102  102  102  102  102   52   51
BUILD_TUPLE_UNPACK                152    -    -    -    -    -    -
BUILD_TUPLE_UNPACK_WITH_CALL      158    -    -    -    -    -    -
CACHE                               -    -    -    0    0    0    0
CALL                                -    -    -  171  171   53   52
CALL_FINALLY                      162    -    -    -    -    -    -
CALL_FUNCTION                     131  131  131    -    -    -    -
CALL_FUNCTION_EX                  142  142  142  142  142   54    4
CALL_FUNCTION_KW                  141  141  141    -    -    -    -
CALL_INTRINSIC_1                    -    -    -    -  173   55   53
CALL_INTRINSIC_2                    -    -    -    -  174   56   54
CALL_KW                             -    -    -    -    -   57   55
CALL_METHOD                       161  161  161    -    -    -    -
CHECK_EG_MATCH                      -    -    -   37   37    6    5
CHECK_EXC_MATCH                     -    -    -   36   36    7    6
CLEANUP_THROW                       -    -    -    -   55    8    7
COMPARE_OP                        107  107  107  107  107   58   56
CONTAINS_OP                         -  118  118  118  118   59   57
CONVERT_VALUE                       -    -    -    -    -   60   58
COPY                                -    -    -  120  120   61   59
COPY_DICT_WITHOUT_KEYS              -    -   34    -    -    -    -
COPY_FREE_VARS                      -    -    -  149  149   62   60
DELETE_ATTR                        96   96   96   96   96   63   61
DELETE_DEREF                      138  138  138  139  139   64   62
DELETE_FAST                       126  126  126  126  126   65   63
DELETE_GLOBAL                      98   98   98   98   98   66   64
DELETE_NAME                        91   91   91   91   91   67   65
DELETE_SUBSCR                      61   61   61   61   61    9    8
DICT_MERGE                          -  164  164  164  164   68   66
DICT_UPDATE                         -  165  165  165  165   69   67
DUP_TOP                             4    4    4    -    -    -    -
DUP_TOP_TWO                         5    5    5    -    -    -    -
END_ASYNC_FOR                      54   54   54   54   54   10   68
END_FINALLY                        88    -    -    -    -    -    -
END_FOR                             -    -    -    -    4   11    9
END_SEND                            -    -    -    -    5   12   10
ENTER_EXECUTOR                      -    -    -    -    -   70    -
EXIT_INIT_CHECK                     -    -    -    -    -   13   11
EXTENDED_ARG                      144  144  144  144  144   71   69
FORMAT_SIMPLE                       -    -    -    -    -   14   12
FORMAT_VALUE                      155  155  155  155  155    -    -
FORMAT_WITH_SPEC                    -    -    -    -    -   15   13
FOR_ITER                           93   93   93   93   93   72   70
GEN_START                           -    -  129    -    -    -    -
GET_AITER                          50   50   50   50   50   16   14
GET_ANEXT                          51   51   51   51   51   18   15
GET_AWAITABLE                      73   73   73  131  131   73   71
GET_ITER                           68   68   68   68   68   19   16
GET_LEN                             -    -   30   30   30   20   18
GET_YIELD_FROM_ITER                69   69   69   69   69   21   19
IMPORT_FROM                       109  109  109  109  109   74   72
IMPORT_NAME                       108  108  108  108  108   75   73
IMPORT_STAR                        84   84   84   84    -    -    -
INPLACE_ADD                        55   55   55    -    -    -    -
INPLACE_AND                        77   77   77    -    -    -    -
INPLACE_FLOOR_DIVIDE               28   28   28    -    -    -    -
INPLACE_LSHIFT                     75   75   75    -    -    -    -
INPLACE_MATRIX_MULTIPLY            17   17   17    -    -    -    -
INPLACE_MODULO                     59   59   59    -    -    -    -
INPLACE_MULTIPLY                   57   57   57    -    -    -    -
INPLACE_OR                         79   79   79    -    -    -    -
INPLACE_POWER                      67   67   67    -    -    -    -
INPLACE_RSHIFT                     76   76   76    -    -    -    -
INPLACE_SUBTRACT                   56   56   56    -    -    -    -
INPLACE_TRUE_DIVIDE                29   29   29    -    -    -    -
INPLACE_XOR                        78   78   78    -    -    -    -
INTERPRETER_EXIT                    -    -    -    -    3   22   20
IS_OP                               -  117  117  117  117   76   74
JUMP_ABSOLUTE                     113  113  113    -    -    -    -
JUMP_BACKWARD                       -    -    -  140  140   77   75
JUMP_BACKWARD_NO_INTERRUPT          -    -    -  134  134   78   76
JUMP_FORWARD                      110  110  110  110  110   79   77
JUMP_IF_FALSE_OR_POP              111  111  111  111    -    -    -
JUMP_IF_NOT_EXC_MATCH               -  121  121    -    -    -    -
JUMP_IF_TRUE_OR_POP               112  112  112  112    -    -    -
KW_NAMES                            -    -    -  172  172    -    -
LIST_APPEND                       145  145  145  145  145   80   78
LIST_EXTEND                         -  162  162  162  162   81   79
LIST_TO_TUPLE                       -   82   82   82    -    -    -
LOAD_ASSERTION_ERROR                -   74   74   74   74   23    -
LOAD_ATTR                         106  106  106  106  106   82   80
LOAD_BUILD_CLASS                   71   71   71   71   71   24   21
LOAD_CLASSDEREF                   148  148  148  148    -    -    -
LOAD_CLOSURE                      135  135  135  136  136    -    -
LOAD_COMMON_CONSTANT                -    -    -    -    -    -   81
LOAD_CONST                        100  100  100  100  100   83   82
LOAD_DEREF                        136  136  136  137  137   84   83
LOAD_FAST                         124  124  124  124  124   85   84
LOAD_FAST_AND_CLEAR                 -    -    -    -  143   86   85
LOAD_FAST_BORROW                    -    -    -    -    -    -   86
LOAD_FAST_BORROW_LOAD_FAST_BORROW   -    -    -    -    -    -   87
LOAD_FAST_CHECK                     -    -    -    -  127   87   88
LOAD_FAST_LOAD_FAST                 -    -    -    -    -   88   89
LOAD_FROM_DICT_OR_DEREF             -    -    -    -  176   89   90
LOAD_FROM_DICT_OR_GLOBALS           -    -    -    -  175   90   91
LOAD_GLOBAL                       116  116  116  116  116   91   92
LOAD_LOCALS                         -    -    -    -   87   25   22
LOAD_METHOD                       160  160  160  160    -    -    -
LOAD_NAME                         101  101  101  101  101   92   93
LOAD_SMALL_INT                      -    -    -    -    -    -   94
LOAD_SPECIAL                        -    -    -    -    -    -   95
LOAD_SUPER_ATTR                     -    -    -    -  141   93   96
MAKE_CELL                           -    -    -  135  135   94   97
MAKE_FUNCTION                     132  132  132  132  132   26   23
MAP_ADD                           147  147  147  147  147   95   98
MATCH_CLASS                         -    -  152  152  152   96   99
MATCH_KEYS                          -    -   33   33   33   27   24
MATCH_MAPPING                       -    -   31   31   31   28   25
MATCH_SEQUENCE                      -    -   32   32   32   29   26
NOP                                 9    9    9    9    9   30   27
NOT_TAKEN                           -    -    -    -    -    -   28
POP_BLOCK                          87   87   87    -    -    -    -
POP_EXCEPT                         89   89   89   89   89   31   29
POP_FINALLY                       163    -    -    -    -    -    -
POP_ITER                            -    -    -    -    -    -   30
POP_JUMP_BACKWARD_IF_FALSE          -    -    -  175    -    -    -
POP_JUMP_BACKWARD_IF_NONE           -    -    -  174    -    -    -
POP_JUMP_BACKWARD_IF_NOT_NONE       -    -    -  173    -    -    -
POP_JUMP_BACKWARD_IF_TRUE           -    -    -  176    -    -    -
POP_JUMP_FORWARD_IF_FALSE           -    -    -  114    -    -    -
POP_JUMP_FORWARD_IF_NONE            -    -    -  129    -    -    -
POP_JUMP_FORWARD_IF_NOT_NONE        -    -    -  128    -    -    -
POP_JUMP_FORWARD_IF_TRUE            -    -    -  115    -    -    -
POP_JUMP_IF_FALSE                 114  114  114    -  114   97  100
POP_JUMP_IF_NONE                    -    -    -    -  129   98  101
POP_JUMP_IF_NOT_NONE                -    -    -    -  128   99  102
POP_JUMP_IF_TRUE                  115  115  115    -  115  100  103
POP_TOP                             1    1    1    1    1   32   31
PRECALL                             -    -    -  166    -    -    -
PREP_RERAISE_STAR                   -    -    -   88    -    -    -
PRINT_EXPR                         70   70   70   70    -    -    -
PUSH_EXC_INFO                       -    -    -   35   35   33   32
PUSH_NULL                           -    -    -    2    2   34   33
RAISE_VARARGS                     130  130  130  130  130  101  104
RERAISE                             -   48  119  119  119  102  105
RESUME                              -    -    -  151  151  149  128
RETURN_CONST                        -    -    -    -  121  103    -
RETURN_GENERATOR                    -    -    -   75   75   35   34
RETURN_VALUE                       83   83   83   83   83   36   35
ROT_FOUR                            6    6    6    -    -    -    -
ROT_N                               -    -   99    -    -    -    -
ROT_THREE                           3    3    3    -    -    -    -
ROT_TWO                             2    2    2    -    -    -    -
SEND                                -    -    -  123  123  104  106
SETUP_ANNOTATIONS                  85   85   85   85   85   37   36
SETUP_ASYNC_WITH                  154  154  154    -    -    -    -
SETUP_FINALLY                     122  122  122    -    -    -    -
SETUP_WITH                        143  143  143    -    -    -    -
SET_ADD                           146  146  146  146  146  105  107
SET_FUNCTION_ATTRIBUTE              -    -    -    -    -  106  108
SET_UPDATE                          -  163  163  163  163  107  109
STORE_ATTR                         95   95   95   95   95  108  110
STORE_DEREF                       137  137  137  138  138  109  111
STORE_FAST                        125  125  125  125  125  110  112
STORE_FAST_LOAD_FAST                -    -    -    -    -  111  113
STORE_FAST_STORE_FAST               -    -    -    -    -  112  114
STORE_GLOBAL                       97   97   97   97   97  113  115
STORE_NAME                         90   90   90   90   90  114  116
STORE_SLICE                         -    -    -    -   27   38   37
STORE_SUBSCR                       60   60   60   60   60   39   38
SWAP                                -    -    -   99   99  115  117
TO_BOOL                             -    -    -    -    -   40   39
UNARY_INVERT                       15   15   15   15   15   41   40
UNARY_NEGATIVE                     11   11   11   11   11   42   41
UNARY_NOT                          12   12   12   12   12   43   42
UNARY_POSITIVE                     10   10   10   10    -    -    -
UNPACK_EX                          94   94   94   94   94  116  118
UNPACK_SEQUENCE                    92   92   92   92   92  117  119
WITH_CLEANUP_FINISH                82    -    -    -    -    -    -
WITH_CLEANUP_START                 81    -    -    -    -    -    -
WITH_EXCEPT_START                   -   49   49   49   49   44   43
YIELD_FROM                         72   72   72    -    -    -    -
YIELD_VALUE                        86   86   86   86  150  118  120
"""


def _by_version() -> dict[tuple[int, int], dict[int, str]]:
    numbers: dict[tuple[int, int], dict[int, str]] = {version: {} for version in VERSIONS}
    for row in _TABLE.strip().splitlines():
        name, *columns = row.split()
        for version, number in zip(VERSIONS, columns, strict=True):
            if number != "-":
                numbers[version][int(number)] = name
    return numbers


OPCODES: Final = _by_version()


Version = tuple[int, int]

MAX_CODE: Final = 1 << 16  # bytes of bytecode; the longest forward() of a learner has a few hundred
MAX_NAMES: Final = 1_000  # constants, names and variables of a function, each
MAX_NAME: Final = 255  # characters of a name
_ARGUMENTS_38: Final = 16  # arguments of CodeType in Python 3.8 to 3.10
_ARGUMENTS_311: Final = 18  # and since Python 3.11
_RESUME: Final = {0x97: ((3, 11), (3, 12)), 0x95: ((3, 13),), 0x80: ((3, 14),)}
_FIRST_WITH_CACHES: Final = (3, 11)
_CACHES_OF_LOAD_ATTR: Final = 9
_BEFORE_RESUME: Final = frozenset({"COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP"})
_PATH: Final = re.compile(r"python(3)\.(\d{1,2})\b")


class InvalidBytecode(Exception):
    """The bytes are not something that this version of Python would run."""


@dataclass(frozen=True, eq=False, repr=False)
class CodeObject:
    """The parts of a code object; ``code``, ``lines`` and ``exceptions`` are CPython's own tables.

    ``constants`` are the values of the pickle's graph, or Python's own for compiled source.
    """

    name: str
    file: str
    positional: int
    positional_only: int
    keyword_only: int
    flags: int
    code: bytes
    constants: tuple[object, ...]
    names: tuple[str, ...]
    variables: tuple[str, ...]
    cells: tuple[str, ...]
    free: tuple[str, ...]
    first_line: int
    exceptions: bytes
    new_form: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, without ``*args`` and ``**kwargs``."""
        return self.variables[: self.positional + self.keyword_only]

    @property
    def fast(self) -> tuple[str, ...]:
        """Variables, cells and free variables, in the order of Python 3.11's frame."""
        more = tuple(name for name in self.cells if name not in self.variables)
        return (*self.variables, *more, *self.free)


@dataclass(frozen=True)
class Instruction:
    """An instruction at ``offset``; the next one begins at ``following`` (both in bytes)."""

    offset: int
    name: str
    argument: int
    following: int


def code_object(value: object) -> CodeObject | None:
    """The code object in a pickle's graph, or one that Python compiled; None for anything else."""
    if isinstance(value, types.CodeType):
        return _compiled(value)
    counts = (_ARGUMENTS_38, _ARGUMENTS_311)
    return _pickled(value.args) if isinstance(value, Call) and len(value.args) in counts else None


def _pickled(args: tuple[object, ...]) -> CodeObject | None:
    new_form = len(args) == _ARGUMENTS_311
    match args[:12]:
        case (
            int(positional), int(only), int(keywords), int(), int(), int(flags), raw,
            tuple(constants), tuple(names), tuple(variables), str(file), str(name),
        ):  # fmt: skip
            rest = args[12:]
        case _:
            return None
    if new_form:
        _, first_line, _, exceptions, free, cells = rest
    else:
        first_line, _, free, cells = rest
        exceptions = b""
    code, table = _bytes(raw), _bytes(exceptions)
    named, local, outer, inner = (_texts(part) for part in (names, variables, free, cells))
    if code is None or table is None or len(constants) > MAX_NAMES:
        return None
    if named is None or local is None or outer is None or inner is None:
        return None
    counts = (positional, only, keywords)
    if not isinstance(first_line, int) or min(counts) < 0 or positional + keywords > len(local):
        return None
    return CodeObject(
        name, file, positional, only, keywords, flags, code, constants, named, local, inner, outer,
        first_line, table, new_form,
    )  # fmt: skip


def _compiled(code: types.CodeType) -> CodeObject:
    return CodeObject(
        code.co_name, code.co_filename, code.co_argcount, code.co_posonlyargcount,
        code.co_kwonlyargcount, code.co_flags, code.co_code, code.co_consts, code.co_names,
        code.co_varnames, code.co_cellvars, code.co_freevars, code.co_firstlineno,
        getattr(code, "co_exceptiontable", b""), hasattr(code, "co_exceptiontable"),
    )  # fmt: skip


def _bytes(value: object) -> bytes | None:
    if isinstance(value, Call) and value.func != Global("_codecs", "encode"):
        return b"" if value.func == Global("builtins", "bytes") and not value.args else None
    if isinstance(value, Call) and len(str(value.args[:1])) > 8 * MAX_CODE:
        return None
    found = data(value) if isinstance(value, (bytes, Call)) else None
    return found if found is not None and len(found) <= MAX_CODE else None


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, tuple) or len(value) > MAX_NAMES:
        return None
    return value if all(isinstance(e, str) and len(e) <= MAX_NAME for e in value) else None


def versions_of(codes: Iterable[CodeObject]) -> tuple[Version, ...]:
    """The Python versions that may have compiled these functions, which come from one file.

    A path such as ``lib/python3.11/`` in one of them decides it. Otherwise their instructions leave
    one version, several that do not differ in them, or none.
    """
    candidates = set(VERSIONS)
    for code in codes:
        named = _PATH.search(code.file[:MAX_NAMES])
        if named is not None:
            return ((int(named[1]), int(named[2])),)
        candidates &= set(_possible(code))
    return tuple(sorted(candidates))


def _possible(code: CodeObject) -> Iterator[Version]:
    for version in VERSIONS:
        if (version >= _FIRST_WITH_CACHES) != code.new_form:
            continue
        try:
            instructions = decode(code, version)
        except InvalidBytecode:
            continue
        names = {each.name for each in instructions}
        if version == (3, 11) and "CALL" in names and "PRECALL" not in names:
            continue
        if version >= _FIRST_WITH_CACHES and not (
            _resumes(code.code, version) and _has_caches(instructions, version)
        ):
            continue
        yield version


def _has_caches(instructions: Sequence[Instruction], version: Version) -> bool:
    """Whether LOAD_ATTR has room for its caches: 9 since Python 3.12, 4 in Python 3.11.

    Source: ``opcode._inline_cache_entries``.
    """
    attributes = [each for each in instructions if each.name == "LOAD_ATTR"]
    long = [each.following - each.offset > 2 * _CACHES_OF_LOAD_ATTR for each in attributes]
    return all(long) if version > _FIRST_WITH_CACHES else not any(long)


def _resumes(code: bytes, version: Version) -> bool:
    table = OPCODES[version]
    for number in code[::2]:
        name = table.get(number)
        if name in _BEFORE_RESUME:
            continue
        return version in _RESUME.get(number, ())
    return False


def decode(code: CodeObject, version: Version) -> tuple[Instruction, ...]:
    """The instructions as ``version`` reads them. Raises InvalidBytecode."""
    table = OPCODES.get(version)
    if table is None or len(code.code) % 2:
        raise InvalidBytecode(f"no bytecode of Python {version}")
    found: list[Instruction] = []
    extended, begin = 0, None
    raw = code.code
    offset = 0
    while offset < len(raw):
        name = table.get(raw[offset])
        if name is None:
            raise InvalidBytecode(f"opcode {raw[offset]} of Python {version}")
        begin = offset if begin is None else begin
        argument = extended << 8 | raw[offset + 1]
        offset += 2
        if name == "EXTENDED_ARG":
            extended = argument
            continue
        if version >= _FIRST_WITH_CACHES:
            while offset < len(raw) and table.get(raw[offset]) == "CACHE":
                offset += 2
        found.append(Instruction(begin, name, argument, offset))
        extended, begin = 0, None
    return tuple(found)


def jump_target(instruction: Instruction, version: Version) -> int:
    """The offset in bytes of a jump's target."""
    absolute = version < _FIRST_WITH_CACHES and instruction.name != "JUMP_FORWARD"
    unit = 1 if version < (3, 10) else 2
    base = 0 if absolute else instruction.following
    distance = unit * instruction.argument
    return base - distance if "BACKWARD" in instruction.name else base + distance


def handlers(code: CodeObject) -> tuple[int, ...]:
    """The offsets in bytes of the exception handlers of Python 3.11 and later.

    Raises InvalidBytecode for a damaged table. Source: Objects/exception_handling_notes.txt.
    """
    found: list[int] = []
    values = _varints(code.exceptions)
    while True:
        try:
            next(values)
        except StopIteration:
            return tuple(found)
        try:
            _length, target, _depth = next(values), next(values), next(values)
        except StopIteration as error:
            raise InvalidBytecode("exception table") from error
        found.append(target * 2)


def _varints(table: Sequence[int]) -> Iterator[int]:
    position = 0
    while position < len(table):
        value = table[position] & 63
        while table[position] & 64:
            position += 1
            if position >= len(table):
                raise InvalidBytecode("exception table")
            value = value << 6 | table[position] & 63
        position += 1
        yield value
