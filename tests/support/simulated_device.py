"""
A device that is not there: tensors on "gpu" hold their values on the CPU and behave otherwise as on a GPU.

    with simulated_device.there():
        train.main(["--device", "gpu:0", ...])

They refuse to meet tensors of the CPU, and note every copy between the two and every wait of the host for the device,
with the lines that caused it, while `watching` is on. What this shows: device mismatches, waits, copies. What it
cannot: kernels, times, memory. A process that has been `there` has the device for good: use one of its own.
"""
import collections
import contextlib
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

COPIES = ("aten._to_copy", "aten.copy_", "aten._copy_from", "aten.copy")
WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten.masked_select", "aten.item")
INDEXING = ("aten.index", "aten.index_put_", "aten.index_put", "aten._index_put_impl_")

watching = False
seen: collections.Counter = collections.Counter()                # (what, shape, where)


class Backend(_DummyBackendModule):
    """What torch asks of a device's module, beside what the dummy has."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16, torch.float32]

    def get_rng_state(self, *_):
        return torch.empty(0)

    def set_rng_state(self, *_):
        pass

    def synchronize(self, *_):
        pass


def register() -> torch.library.Library:
    """Give torch the device. -> what must live as long as it is used"""
    _setup_privateuseone_for_python_backend("gpu", backend_module=Backend())
    library = torch.library.Library("_", "IMPL")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return library


# --- tensors --------------------------------------------------------------------------------------
class GpuTensor(Tensor):
    """value: the same tensor on the CPU."""
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor, requires_grad: bool = False):
        made = Tensor._make_wrapper_subclass(
            cls, value.size(), strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            layout=value.layout, device="gpu:0", requires_grad=requires_grad)
        made.value = value
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def tolist(self):
        return Tensor.cpu(self).tolist()

    def __repr__(self):
        return f"GpuTensor({self.value})"


def value_of(x):
    """A tensor on the CPU in place of one on the device; anything else as it is."""
    return x.value if isinstance(x, GpuTensor) else x


def host_copy(tree):
    """A checkpoint, say, with all its tensors on the CPU: torch.save cannot read the device's."""
    return tree_map(value_of, tree)


# --- what is noted --------------------------------------------------------------------------------
def note(what: str, tensor: Tensor) -> None:
    if watching:
        seen[what, tuple(tensor.shape), where()] += 1


def where() -> str:
    """The two innermost lines outside torch and this file."""
    frames = [frame for frame in traceback.extract_stack()
              if "site-packages" not in frame.filename and frame.filename != __file__]
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames[-2:]))


# --- operators ------------------------------------------------------------------------------------
def dispatch(func, args, kwargs):
    """Any operator of torch: refuse, note, compute on the CPU, and put the result on the device."""
    base = str(func).rsplit(".", 1)[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = [one for one in tensors if isinstance(one, GpuTensor)]
    on_cpu = [one for one in tensors if not isinstance(one, GpuTensor)]
    asked_for = kwargs.get("device")
    makes_gpu = asked_for is not None and torch.device(asked_for).type == "gpu"
    if not on_gpu and not makes_gpu:
        return func(*args, **kwargs)

    if base == "aten.is_pinned":
        return False
    if base == "aten._pin_memory":
        return args[0]
    if on_gpu:
        refuse_a_mixture(func, base, on_cpu)
        note_waits(base, args, on_gpu[0], on_cpu)
    if base == "aten._to_copy":
        return copied(func, args, kwargs)
    if base == "aten.copy_" and isinstance(args[0], GpuTensor) != isinstance(args[1], GpuTensor):
        note("upload (copy_)" if isinstance(args[0], GpuTensor) else "download: a wait (copy_)", args[1])

    arguments, options = host_copy(args), host_copy(kwargs)
    if makes_gpu:
        options["device"] = torch.device("cpu")
    made = func(*arguments, **options)

    # What comes back changed in place is the tensor that went in.
    known = {id(one.value): one for one in on_gpu}
    ours = {id(one) for one in on_cpu}

    def wrapped(x):
        if not isinstance(x, Tensor) or id(x) in ours:
            return x
        return known.get(id(x)) if id(x) in known else GpuTensor(x)
    return tree_map(wrapped, made)


def refuse_a_mixture(func, base: str, on_cpu: list[Tensor]) -> None:
    """As CUDA does: a number may come from the CPU, and an index, a tensor may not."""
    if base in COPIES or base in INDEXING:
        return
    mixed = [tuple(one.shape) for one in on_cpu if one.ndim > 0]
    if mixed:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found gpu:0 and cpu: {func} {mixed}")


def note_waits(base: str, args: tuple, first: Tensor, on_cpu: list[Tensor]) -> None:
    """Operators for which the host waits: it needs a number, or a size that the device must count."""
    if base in INDEXING:
        for index in on_cpu:
            note("upload of an index: a wait", index)
    masks = []
    if base == "aten.index":
        masks = [one for one in tree_leaves(args[1]) if isinstance(one, Tensor) and one.dtype == torch.bool]
    if base in WAITS or masks:
        note(f"{base}: a wait", first)


def copied(func, args, kwargs):
    """tensor.to(...): to the device, from it, or to another dtype there."""
    source = args[0]
    options = {name: option for name, option in kwargs.items() if name not in ("device", "pin_memory")}
    target = kwargs.get("device")
    from_gpu = isinstance(source, GpuTensor)
    to_gpu = from_gpu if target is None else torch.device(target).type == "gpu"
    if from_gpu and not to_gpu:
        note("download: a wait", source)
    if to_gpu and not from_gpu:
        blocks = "" if kwargs.get("non_blocking") else ": a wait"
        note(f"upload{blocks}", source)
    value = value_of(source)
    made = func(value, *args[1:], **options)
    if made.data_ptr() == value.data_ptr():
        made = made.clone()
    return GpuTensor(made) if to_gpu else made


# --- around the code under test -------------------------------------------------------------------
class MakingTensors(TorchDispatchMode):
    """For operators that have no tensor of the device yet, but a device=."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


@contextlib.contextmanager
def there() -> Iterator[None]:
    """Code that makes tensors with device="gpu" runs inside this, once in a process."""
    library = register()
    plain = torch.as_tensor

    def as_tensor(x, dtype=None, device=None):
        """torch.as_tensor reads the device's memory itself, past all operators."""
        if device is None or torch.device(device).type != "gpu":
            return plain(x, dtype=dtype, device=device)
        return x.to(device) if isinstance(x, Tensor) else plain(x, dtype=dtype).to(device)

    torch.as_tensor = as_tensor
    try:
        with MakingTensors():
            yield
    finally:
        torch.as_tensor = plain
        del library
