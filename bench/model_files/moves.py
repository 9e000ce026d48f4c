"""The ONNX operators that move, drop or repeat the entries of a value, or put others beside them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.model_files.layers import Concat, Expand, Pad, Permute, Reshape, Resize, Take, entries
from bench.model_files.program import Call, Data


def reshape(call: Call) -> nn.Module:
    before, wanted = call.get(0), call.whole(1, "shape")
    if not call.options.get("allowzero"):
        wanted = [before.full[place] if size == 0 else size for place, size in enumerate(wanted)]
    return _to_shape(wanted, before, call)


def flatten(call: Call) -> nn.Module:
    before, axis = call.get(0), call.options.get("axis", 1)
    full = before.full
    axis = axis % len(full) if axis < 0 else axis
    rows = int(torch.Size(full[:axis]).numel())
    return _to_shape([rows, -1], before, call)


def squeeze(call: Call) -> nn.Module:
    before = call.get(0)
    axes = call.numbers(1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(before.full) if size == 1 and (axis or before.batch is None)]
    dropped = {call.axis(axis) for axis in axes}
    return _shaped([size for axis, size in enumerate(before.shape) if axis not in dropped])


def unsqueeze(call: Call) -> nn.Module:
    before, axes = call.get(0).shape, call.whole(1, "axes")
    shape = list(before)
    for axis in sorted(call.axis(axis, extra=len(axes)) for axis in axes):
        shape.insert(axis, 1)
    return _shaped(shape) if before else Reshape(tuple(shape))


def _to_shape(wanted: Sequence[int], before: Data, call: Call) -> nn.Module:
    try:
        after = torch.empty(before.full).reshape(tuple(wanted)).shape
    except RuntimeError as error:
        raise call.refuse(f"shape {before.full} cannot become {tuple(wanted)}") from error
    if before.batch is None:
        return _shaped(after)
    if not after or after[0] != before.batch:
        raise call.refuse("it does not keep the inputs of a batch apart")
    return _shaped(after[1:]) if before.shape else Reshape(tuple(after[1:]))


def _shaped(shape: Sequence[int]) -> nn.Module:
    return nn.Flatten(1) if len(shape) == 1 else Reshape(tuple(shape))


def transpose(call: Call) -> nn.Module:
    value = call.get(0)
    order = call.options.get("perm", list(range(len(value.full)))[::-1])
    if value.batch is not None and order[0] != 0:
        raise call.refuse("it does not keep the inputs of a batch apart")
    order = (0, *(axis + 1 for axis in order)) if value.batch is None else tuple(order)
    moving = [size for size in (value.shape[axis - 1] for axis in order[1:]) if size > 1]
    if moving == [size for size in value.shape if size > 1]:
        return _shaped([value.shape[axis - 1] for axis in order[1:]])
    return Permute(order)


def expand(call: Call) -> nn.Module:
    before, wanted = call.get(0), call.whole(1, "shape")
    lead = 0 if before.batch is None else 1
    after = torch.broadcast_shapes(before.full, tuple(wanted))
    if lead and (len(after) != len(before.full) or after[0] != before.batch):
        raise call.refuse("it does not keep the inputs of a batch apart")
    return Expand(tuple(after[lead:]))


def concat(call: Call) -> nn.Module:
    """Values side by side, constants among them."""
    parts = list(call.arguments.values())
    values = call.data()
    axis = call.axis(call.options["axis"], values[0])
    constants = [None if isinstance(part, Data) else _one_example(part, values[0], call) for part in parts]
    return Concat(constants, axis + 1)


def _one_example(constant: Tensor, beside: Data, call: Call) -> Tensor:
    if beside.batch is None:
        return constant.double()
    if constant.shape[0] != 1 and not bool((constant == constant[:1]).all()):
        raise call.refuse("it joins other constants to each input of a batch")
    return constant[0].double()


def split(call: Call) -> list[nn.Module]:
    value = call.get(0)
    axis = call.axis(call.options.get("axis", 0))
    sizes = call.numbers(1, "split")
    if sizes is None:
        each = -(-value.shape[axis] // call.outputs)
        sizes = [min(each, value.shape[axis] - each * place) for place in range(call.outputs)]
    parts = torch.arange(value.shape[axis]).split(sizes)
    return [Take(axis + 1, part) for part in parts]


def cut(call: Call) -> nn.Module:
    value = call.get(0)
    starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    layers: list[nn.Module] = []
    for start, end, place, step in zip(starts, ends, axes, steps, strict=True):
        if value.batch is not None and place % len(value.full) == 0:
            if start in (0, -value.batch) and step == 1 and end >= value.batch:
                continue
            raise call.refuse("it does not keep the inputs of a batch apart")
        axis = call.axis(place)
        size = value.shape[axis]
        if step < 0:
            numbers = list(range(size))[slice(start, None if end < -size else end, step)]
        else:
            numbers = list(range(size))[start:end:step]
        layers.append(Take(axis + 1, torch.tensor(numbers, dtype=torch.long)))
    return nn.Sequential(*layers) if layers else nn.Identity()


def gather(call: Call) -> nn.Module:
    value, numbers = call.get(0), call.get(1)
    if not isinstance(value, Data) or not isinstance(numbers, Tensor):
        raise call.refuse("its indices depend on the input")
    axis = call.axis(call.options.get("axis", 0), value)
    size = value.shape[axis]
    numbers = torch.where(numbers < 0, numbers + size, numbers).long()
    shape = (*value.shape[:axis], *numbers.shape, *value.shape[axis + 1 :])
    taken = Take(axis + 1, numbers.flatten())
    return taken if numbers.dim() == 1 else nn.Sequential(taken, _shaped(shape))


def pad(call: Call) -> nn.Module:
    value, pads = call.get(0), call.whole(1, "pads")
    mode, fill = call.options.get("mode", b"constant"), call.get(2, call.options.get("value", 0.0))
    axes = call.numbers(3, "axes") or list(range(len(value.full)))
    if isinstance(fill, Data) or mode not in (b"constant", b"edge", b"reflect"):
        raise call.refuse(f"its mode {mode.decode()!r} is not")
    each = [[0, 0] for _ in value.shape]
    for place, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            each[call.axis(place)] = [before, after]
    widths = [number for pair in reversed(each) for number in pair]
    if mode == b"constant":
        return Pad(widths, value=float(fill))
    while len(widths) > 2 and widths[-2:] == [0, 0]:
        widths = widths[:-2]
    return Pad(widths, "replicate" if mode == b"edge" else "reflect")


def resize(call: Call) -> nn.Module:
    """Resize and Upsample by whole numbers, nearest or bilinear."""
    value, options = call.get(0), call.options
    mode = options.get("mode", b"nearest").decode()
    size = _new_size(call)
    if mode not in ("nearest", "linear"):
        raise call.refuse(f"its mode {mode!r} is not")
    # Before version 11 of the standard pixels had no other coordinates than these.
    usual = b"half_pixel" if call.operator == "Resize" and call.opset >= 11 else b"asymmetric"
    coordinates = options.get("coordinate_transformation_mode", usual)
    if options.get("antialias") or options.get("axes"):
        raise call.refuse("its antialiasing or axes are not")
    if mode == "nearest":
        if any(new % old for new, old in zip(size, value.shape[1:], strict=True)):
            raise call.refuse("only whole factors are")
        return Resize(size, "nearest")
    if coordinates not in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        raise call.refuse(f"its coordinates {coordinates.decode()!r} are not: export with a newer opset")
    return Resize(size, "bilinear", coordinates == b"align_corners")


def _new_size(call: Call) -> list[int]:
    """Height and width of the images that a Resize or Upsample gives."""
    value = call.get(0)
    newer = call.operator == "Resize" and call.opset >= 11
    factors, sizes = call.get(2 if newer else 1, call.options.get("scales")), call.get(3)
    if isinstance(sizes, Tensor) and sizes.numel():
        after = [int(size) for size in sizes]
    elif factors is not None and not isinstance(factors, Data) and len(factors):
        after = [int(size * float(factor)) for size, factor in zip(value.full, factors, strict=True)]
    else:
        raise call.refuse("its new size depends on the input")
    if len(after) != 4 or value.batch is None or after[:2] != list(value.full[:2]):
        raise call.refuse("only the height and width of images can change")
    return after[2:]


def blocks(call: Call) -> nn.Module:
    """DepthToSpace and SpaceToDepth."""
    value, size = call.get(0), call.options["blocksize"]
    if value.batch is None or len(value.shape) != 3:
        raise call.refuse("only that of images is")
    channels, height, width = value.shape
    numbered = entries(value.shape)[0].long()
    if call.operator == "SpaceToDepth":
        parts = numbered.reshape(channels, height // size, size, width // size, size).permute(2, 4, 0, 1, 3)
        return _moved(parts.reshape(-1, height // size, width // size))
    if call.options.get("mode", b"DCR") == b"CRD":
        parts = numbered.reshape(-1, size, size, height, width).permute(0, 3, 1, 4, 2)
    else:
        parts = numbered.reshape(size, size, -1, height, width).permute(2, 3, 0, 4, 1)
    return _moved(parts.reshape(-1, height * size, width * size))


def tile(call: Call) -> nn.Module:
    """Tile: the value repeated along its axes, but not its batch."""
    value, repeats = call.get(0), call.whole(1, "repeats")
    if value.batch is not None:
        if repeats[0] != 1:
            raise call.refuse("it does not keep the inputs of a batch apart")
        repeats = repeats[1:]
    return _moved(entries(value.shape)[0].long().repeat(repeats))


def _moved(index: Tensor) -> nn.Module:
    """The entries of a value in other places: ``index`` (*shape) into its flat entries."""
    return nn.Sequential(nn.Flatten(1), Take(1, index.flatten()), _shaped(tuple(index.shape)))
