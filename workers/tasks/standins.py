"""What a pickle may name, and the inert things that stand for it.

A pickle names classes and functions by module and name. Here a name is a key of one fixed table: its value is
a function of ours that checks its arguments and builds something inert. Nothing is ever looked up in a
module. The names are those that torch, numpy, Lightning and omegaconf write into checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atelier.contract.errors import ModelUnusable

MAX_DIMENSIONS = 16
MAX_ELEMENTS = 2**44


class Malformed(ValueError):
    """A pickle's data contradicts itself; the text says where. Readers turn it into ModelUnusable."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A row of numbers in the file. `dtype` is safetensors' name for their type, None for plain bytes;
    `count` and `offset` are in elements.
    """

    key: str
    dtype: str | None
    count: int
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage: `offset` and `strides` are in elements of `dtype`."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it shows."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of those numbers, written one after the other."""
        return self.elements * SIZES[self.dtype]


@dataclass(eq=False)
class StandIn:
    """An object whose class is known by name alone: it keeps what it was given and does nothing."""

    kind: str
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A name of the table. `build` makes the inert thing from the arguments; None where the name may stand
    but not be called.
    """

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None
    dtype: str | None = None


SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element, by safetensors' names."""
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "Float8_e4m3fnStorage": "F8_E4M3",
    "Float8_e5m2Storage": "F8_E5M2",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16",
    "short": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def whole(value: Any, limit: int = MAX_ELEMENTS) -> int:
    """`value`, if it is a whole number from 0 to `limit`. Raises Malformed."""
    if type(value) is not int or not 0 <= value <= limit:
        raise Malformed("a count, offset or size in it is no number a tensor can have")
    return value


def _sides(value: Any) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or len(value) > MAX_DIMENSIONS:
        raise Malformed("a tensor in it has no proper shape")
    return tuple(whole(side) for side in value)


def _view(storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any) -> Tensor:
    """The view, checked to lie within its storage."""
    if not isinstance(storage, Storage):
        raise Malformed("a tensor in it has no storage")
    kind = dtype or storage.dtype
    if kind is None:
        raise Malformed("a tensor in it has no number format")
    found = Tensor(storage, kind, _sides(shape), _sides(strides), whole(offset))
    if len(found.shape) != len(found.strides) or found.elements > MAX_ELEMENTS:
        raise Malformed("a tensor in it has no proper shape")
    room = storage.count * (1 if storage.dtype is None else SIZES[storage.dtype]) // SIZES[kind]
    last = found.offset + sum(
        (side - 1) * step for side, step in zip(found.shape, found.strides, strict=True) if side
    )
    if found.elements and last >= room:
        raise Malformed("a tensor in it reaches beyond its storage")
    return found


def _tensor_v2(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    return _view(storage, None, offset, shape, strides)


def _tensor_v3(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    dtype = arguments[6]
    if not isinstance(dtype, Known) or dtype.dtype is None:
        raise Malformed("a tensor in it has an unknown number format")
    return _view(storage, dtype.dtype, offset, shape, strides)


def _first(arguments: tuple[Any, ...]) -> Any:
    """A parameter is its tensor."""
    return arguments[0]


def _typed(arguments: tuple[Any, ...]) -> Any:
    """`_rebuild_from_type_v2(function, class, arguments, state)`: the tensor without its class."""
    function, _, given = arguments[:3]
    if not isinstance(function, Known) or function.build is None or type(given) is not tuple:
        raise Malformed("a tensor in it is rebuilt by something unknown")
    return function.build(given)


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """dict() and OrderedDict(), of nothing, of a dict, or of pairs."""
    if not arguments:
        return {}
    source = arguments[0]
    if type(source) is dict:
        return dict(source)
    if type(source) not in (list, tuple) or any(type(pair) not in (list, tuple) for pair in source):
        raise Malformed("a table in it is made of something else than pairs")
    if any(len(pair) != 2 for pair in source):
        raise Malformed("a table in it is made of something else than pairs")
    return {hashable(key): value for key, value in source}


def _counted(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """tuple() and torch.Size() of a list or a tuple."""
    source = arguments[0] if arguments else ()
    if type(source) not in (list, tuple):
        raise Malformed("a tuple in it is made of something that is no list")
    return tuple(source)


def _listed(arguments: tuple[Any, ...]) -> list[Any]:
    return list(_counted(arguments))


def _distinct(arguments: tuple[Any, ...]) -> set[Any]:
    return {hashable(each) for each in _counted(arguments)}


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """`_codecs.encode(text, "latin1")`: how protocol 2 writes bytes."""
    text = arguments[0]
    if type(text) is not str or arguments[1:] not in ((), ("latin1",), ("latin-1",), ("utf-8",)):
        raise Malformed("bytes in it are written in an unknown way")
    try:
        return text.encode("latin-1" if arguments[1:] else "utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("bytes in it are written in an unknown way") from error


def hashable(key: Any) -> Any:
    """`key`, if hashing it takes no more than a moment: a plain value or a short tuple of them. Raises
    Malformed.
    """
    if type(key) in (str, bytes, int, float, bool, type(None)) or isinstance(key, Known):
        return key
    if type(key) is tuple and len(key) <= 16 and all(type(each) in (str, int, bool) for each in key):
        return key
    raise Malformed("a key of a table in it is no plain value")


def inert(name: str) -> Known:
    """A class that is known by name alone."""
    return Known(name, lambda arguments: StandIn(name, arguments))


def _table() -> dict[str, Known]:
    builders: dict[str, Callable[[tuple[Any, ...]], Any]] = {
        "torch._utils._rebuild_tensor": _tensor_v2,
        "torch._utils._rebuild_tensor_v2": _tensor_v2,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._tensor._rebuild_from_type_v2": _typed,
        "torch._tensor._rebuild_from_type": _typed,
        "torch.nn.parameter.Parameter": _first,
        "torch.Size": _counted,
        "collections.OrderedDict": _mapping,
        "collections.Counter": _mapping,
        "_codecs.encode": _encoded,
    }
    for module in ("builtins", "__builtin__"):
        builders |= {
            f"{module}.dict": _mapping,
            f"{module}.list": _listed,
            f"{module}.tuple": _counted,
            f"{module}.set": _distinct,
            f"{module}.frozenset": _distinct,
        }
    table = {name: Known(name, build) for name, build in builders.items()}
    table |= {f"torch.{name}": Known(f"torch.{name}", dtype=dtype) for name, dtype in _STORAGES.items()}
    table |= {f"torch.{name}": Known(f"torch.{name}", dtype=dtype) for name, dtype in _DTYPES.items()}
    table["torch.storage.UntypedStorage"] = Known("torch.storage.UntypedStorage")
    table |= {name: Known(name) for name in _NAMED}
    return table | {name: inert(name) for name in _INERT}


_PLAIN = ("object", "int", "float", "bool", "str", "bytes", "complex", "type")
_NAMED = (
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _PLAIN),
    "torch.Tensor", "torch._tensor.Tensor", "typing.Any", "numpy.ndarray",
)  # fmt: skip
"""Names that stand in data, as the type of something, and are not called."""
_CALLBACKS = (
    "callbacks.model_checkpoint.ModelCheckpoint", "callbacks.early_stopping.EarlyStopping",
    "callbacks.lr_monitor.LearningRateMonitor", "callbacks.progress.tqdm_progress.TQDMProgressBar",
    "callbacks.timer.Timer", "callbacks.stochastic_weight_avg.StochasticWeightAveraging",
    "callbacks.gradient_accumulation_scheduler.GradientAccumulationScheduler",
    "utilities.parsing.AttributeDict", "utilities.enums.LightningEnum",
    "trainer.states.TrainerFn", "trainer.states.TrainerStatus",
)  # fmt: skip
_INERT = (
    *(f"{module}.{name}" for module in ("pytorch_lightning", "lightning.pytorch") for name in _CALLBACKS),
    "lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict",
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode", "omegaconf.nodes.IntegerNode", "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "torch.device", "torch.serialization._get_layout", "torch._utils._get_layout", "torch.Generator",
    "torch.nn.modules.container.ParameterDict", "torch.nn.modules.container.ParameterList",
    "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "collections.defaultdict", "argparse.Namespace",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "datetime.datetime", "datetime.timedelta", "uuid.UUID",
    "copyreg._reconstructor", "copy_reg._reconstructor",
)  # fmt: skip
KNOWN = _table()
"""Every name that may stand in a pickle, with its module before the last dot."""


def known(file: str, module: str, name: str) -> Known:
    """What stands for `module`.`name`. Raises ModelUnusable, naming the file and the name, for any other."""
    found = KNOWN.get(f"{module}.{name}")
    if found is None or (module, name) != tuple(found.name.rpartition(".")[::2]):
        raise ModelUnusable(
            f"{file} names {f'{module}.{name}'[:120]!r}, which no model needs: reading it as Python does "
            "could run code. Nothing of it was run. Ask for the file as safetensors, or do not trust it.",
            detail={"global": f"{module}.{name}"[:200]},
        )
    return found
