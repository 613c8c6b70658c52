"""Two pretended GPUs on any machine: what a GPU refuses is refused, what it says is true.

Their tensors tell Python that they are on ``cuda:0`` or ``cuda:1`` and hold their values on the
processor, so that whole runs can be compared with its own, bit for bit. Refused is what a GPU
refuses: operands on different devices, a generator of another device, NumPy's view, the pointer
that compiled code takes, and what varies where deterministic algorithms are asked for. What stays
unseen: a GPU's arithmetic and memory, and what waits for what.

FakeTensorMode holds no values, so it stops where a value decides, and at every ``backward``.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NAME, GPUS = "A pretended GPU", 2
FREE, ALL = 60 * 2**30, 80 * 2**30  # bytes of each
aten = torch.ops.aten
DEFECTIVE_COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (  # a GPU takes an index from the processor
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default,
    aten._index_put_impl_.default,
)  # fmt: skip
UNDECIDED = (  # refused by a GPU where deterministic algorithms are asked for (torch's own list)
    "cumsum", "kthvalue", "median", "histc", "bincount", "put_", "scatter_reduce", "resize_",
    "reflection_pad", "replication_pad", "upsample", "grid_sampler", "adaptive_avg_pool",
    "adaptive_max_pool", "avg_pool3d", "max_pool3d", "nll_loss2d", "_ctc_loss", "embedding_bag",
)  # fmt: skip
FORWARD_TOO = UNDECIDED[:7]
NEEDS_MEMORY = ("numpy", "__array__", "data_ptr")


class OnCuda(torch.Tensor):
    """Says that it is on ``at``; ``held`` has the values. To autograd it is any tensor."""

    @staticmethod
    def __new__(cls, held, at=CUDA):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=CPU,
        )  # fmt: skip

    def __init__(self, held, at=CUDA):
        self.held, self.at = held, at

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: self.at)
    is_cuda, is_cpu = property(lambda self: True), property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatched(func, args, kwargs or {})

    def tolist(self):
        return self.held.tolist()

    def __format__(self, spec):
        return format(self.held, spec)

    def __deepcopy__(self, memo):
        copied = OnCuda(self.held.clone(), self.at)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)


class _Operators(TorchDispatchMode):
    """What makes new tensors, and what copies between the devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatched(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What reads where a tensor is before any operator sees it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if args and isinstance(args[0], OnCuda):
            if name in NEEDS_MEMORY:
                raise TypeError(f"can't convert {args[0].at} device type tensor to numpy ({name})")
            if name == "cpu" or (
                name == "to" and CPU in map(_place, (*args[1:], *kwargs.values()))
            ):
                return args[0].held.clone().to(*[a for a in args[1:] if _place(a) is None])
        if name == "to" and len(args) > 1 and isinstance(args[1], OnCuda):
            args = (args[0], args[1].at, args[1].dtype, *args[2:])
        args, kwargs = _each(
            lambda x: x if _place(x) in (None, CPU) else _place(x), (args, kwargs)
        )
        there = _place(kwargs.get("device"))
        if name in ("tensor", "as_tensor") and _is_gpu(there):
            return func(*args, **kwargs | {"device": CPU}).to(there)
        return func(*args, **kwargs)


def _each(function, x):
    """A function of everything in lists and dictionaries of them."""
    if type(x) in (tuple, list):
        return type(x)([_each(function, y) for y in x])
    if type(x) is dict:
        return {k: _each(function, y) for k, y in x.items()}
    return function(x)


def _place(x):
    """The device that an argument names; None: it is no device."""
    if isinstance(x, torch.device):
        if x.type == "cuda" and (x.index or 0) >= GPUS:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return CUDA if x.type == "cuda" and x.index is None else x
    words = isinstance(x, str) and x.partition(":")[0] in ("cpu", "cuda")
    return _place(torch.device(x)) if words else None


def _is_gpu(place):
    return place is not None and place.type == "cuda"


def _dispatched(func, args, kwargs):
    given = []
    _each(lambda x: given.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
    there = [x for x in given if isinstance(x, OnCuda)]
    asked = kwargs.get("device")
    # Torch fills in the device that it knows; who asks for the processor does not come here.
    at = None if asked is None else _place(torch.device(asked))
    at = there[0].at if there and not _is_gpu(at) else at
    ends_there = _is_gpu(at)
    if func is aten.copy_.default:
        ends_there = isinstance(args[0], OnCuda)
        at = args[0].at if ends_there else None
    if there:
        _one_device(func, args, given)
        _decided(func)
    if ends_there and kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    own = {id(x.held): x for x in there} | {id(x): x for x in given}
    args, kwargs = _each(lambda x: x.held if isinstance(x, OnCuda) else x, (args, kwargs))
    if ends_there and asked is not None:
        kwargs = {**kwargs, "device": CPU}
    found = func(*args, **kwargs)

    def told(x):
        if not (ends_there and isinstance(x, torch.Tensor)):
            return x
        return own[id(x)] if id(x) in own else OnCuda(x, at)

    return _each(told, found)


def _one_device(func, args, given):
    if func in DEFECTIVE_COPIES:
        return
    if func in INDEXED and isinstance(args[0], OnCuda):
        index = {id(x) for x in args[1]}
        given = [x for x in given if id(x) not in index]
    places = {x.at for x in given if isinstance(x, OnCuda)}
    # A number of the processor's may be anywhere.
    places |= {CPU for x in given if not isinstance(x, OnCuda) and x.dim()}
    if len(places) > 1:
        raise RuntimeError(
            f"{func}: Expected all tensors to be on the same device, but found at least two "
            f"devices, {' and '.join(map(str, places))}!"
        )


class _NoGrad:
    """In place of the inference mode."""

    def __enter__(self):
        self.before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)

    def __exit__(self, *raised):
        torch._C._set_grad_enabled(self.before)


def _at_once(pool, function, *given, **named):
    """Do here what would be done in a thread, where torch's modes end."""
    done = Future()
    done.set_result(function(*given, **named))
    return done


def _decided(func):
    name = func.name().removeprefix("aten::").partition(".")[0]
    backward = "backward" in name and name.startswith(UNDECIDED)
    if torch.are_deterministic_algorithms_enabled() and (backward or name in FORWARD_TOO):
        raise RuntimeError(f"{name} does not have a deterministic implementation")


def _set_device(device):
    if torch.device(device).index is None:
        raise ValueError(f"Expected a torch.device with a specified index, but got: {device}")


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """Inside, there are two GPUs, as far as can be."""
    future, cpu_autocast = torch.__future__, torch.autocast

    def autocast(kind, *given, **named):
        return cpu_autocast("cpu", *given, **named)

    drawn = [None]  # the state of the device's generator
    before = future.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for name, stands_in in {
            "_lazy_init": lambda: None, "is_available": lambda: True, "init": lambda: None,
            "synchronize": lambda device=None: None, "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda device=None: None,
            "max_memory_reserved": lambda device=None: 3 * 2**30,
            "memory_reserved": lambda device=None: 0, "set_device": _set_device,
            "mem_get_info": lambda device=None: (FREE, ALL),
            "get_device_name": lambda device=None: NAME,
            "get_device_capability": lambda device=None: (8, 0),
            "get_rng_state": lambda device=None: drawn[0],
            "set_rng_state": lambda state, device=None: drawn.__setitem__(0, state),
            "manual_seed_all": lambda seed: drawn.__setitem__(0, seed),
        }.items():  # fmt: skip
            stack.enter_context(patch.object(torch.cuda, name, stands_in))
        stack.enter_context(patch.object(torch, "autocast", autocast))
        health = "_accelerator_graph_capture_health_check"
        stack.enter_context(patch.object(torch.optim.Optimizer, health, lambda self: None))
        for name in ("__enter__", "__exit__"):  # which knows no views of tensors like these
            stand_in = getattr(_NoGrad, name)
            stack.enter_context(patch.object(torch.inference_mode, name, stand_in))
        stack.enter_context(patch.object(ThreadPoolExecutor, "submit", _at_once))
        stack.enter_context(_Operators())
        stack.enter_context(_Functions())
        future.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            future.set_overwrite_module_params_on_conversion(before)
