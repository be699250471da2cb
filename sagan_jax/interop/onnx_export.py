"""Export of a function of arrays as an ONNX graph with its constants, from its jaxpr.

It supports the operations of the networks of this package in evaluation mode. Values that do not depend on the inputs
are computed at export and stored. The first axis of the inputs is a batch of any size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Literal

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.packages import is_installed

OPSET, IR_VERSION = 18, 9
"""The ONNX versions to write; onnxruntime supports them from 1.14."""

_BATCH = "b"
# Elementwise jax operations with a direct ONNX equivalent, which follows numpy's broadcasting rules.
_SAME = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"}
_SAME |= {"tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "erf": "Erf"}
_SAME |= {"logistic": "Sigmoid", "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater"}
_SAME |= {"ge": "GreaterOrEqual", "and": "And", "or": "Or", "not": "Not", "stop_gradient": "Identity"}
_SAME |= {"copy": "Identity"}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
# Parameters that hold an inner jaxpr, which is inlined. Operations in _REPEATED are not inlined.
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_REPEATED = ("scan", "while", "cond", "reduce")


def to_onnx(
    function: Callable[..., Any],
    inputs: Mapping[str, tuple[tuple[int, ...], Any]],
    output: str,
    *,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """Returns the bytes of an ONNX file.

    Args:
        function: a function of as many arrays as there are inputs, which returns one array. It is traced.
        inputs: the shape without the batch axis and the dtype of each input by name, in order.
        output: the name of the output.
        notes: metadata for the file.

    Raises:
        InvalidInputError: onnx is not installed, or the function has an unsupported operation.

    Source: https://onnx.ai/onnx/operators, https://docs.jax.dev/en/latest/jaxpr.html
    """
    if not is_installed("onnx"):
        raise InvalidInputError("--format onnx needs the package onnx. Run: pip install 'sagan-jax[onnx]'")
    from onnx import helper

    (batch,) = export.symbolic_shape(_BATCH)
    shapes = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in inputs.values()]
    closed = jax.make_jaxpr(function)(*shapes)
    graph = _Graph(next(iter(inputs)))
    (result,) = graph.evaluate(closed, list(inputs))
    graph.emit("Identity", result, name=output)
    kinds = [_value_info(name, shape) for name, shape in zip(inputs, shapes, strict=True)]
    made = helper.make_graph(
        graph.nodes, output, kinds, [_value_info(output, closed.out_avals[0])], list(graph.initializers.values())
    )
    model = helper.make_model(
        made, producer_name="sagan_jax", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(model, dict(notes or {}))
    return model.SerializeToString()


class _Graph:
    """The nodes and stored arrays of a graph. A value is a name in the graph, or an array that depends on no input.

    Args:
        batched: the name of an input that determines the batch size.
    """

    def __init__(self, batched: str) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.batched = batched

    def evaluate(self, closed: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        """Returns the values of a jaxpr's outputs."""
        jaxpr: Any = closed.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Any:
            if isinstance(variable, Literal):
                return np.asarray(variable.val, getattr(variable.aval, "dtype", None))
            return values[variable]

        for equation in jaxpr.eqns:
            results = self.apply(equation, [read(variable) for variable in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def apply(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Returns the values of one operation's outputs."""
        name, params = equation.primitive.name, equation.params
        if name == "platform_index":  # the last branch is the default for all platforms
            return [np.int32(len(params["platforms"]) - 1)]
        if name == "cond" and not isinstance(operands[0], str):
            return self.evaluate(params["branches"][int(operands[0])], operands[1:])
        inner = next((params[key] for key in _INNER if key in params), None)
        if inner is not None and name not in _REPEATED:
            closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            return self.evaluate(closed, operands)
        static = all(isinstance(side, int) for result in equation.outvars for side in result.aval.shape)
        if static and not any(isinstance(operand, str) for operand in operands):
            found = equation.primitive.bind(*operands, **params)
            return list(found) if equation.primitive.multiple_results else [found]
        if name == "split":
            return self.split(operands[0], params["sizes"], params["axis"])
        return [self.node(name, params, operands, equation)]

    def node(self, name: str, params: dict[str, Any], operands: list[Any], equation: Any) -> str:
        """Adds an operation with one output, and returns the name of the output."""
        if name in _SAME:
            return self.emit(_SAME[name], *operands)
        if name in _REDUCTIONS:
            return self.emit(_REDUCTIONS[name], operands[0], _integers(params["axes"]), keepdims=0)
        match name:
            case "rsqrt":
                return self.emit("Reciprocal", self.emit("Sqrt", operands[0]))
            case "square":
                return self.emit("Mul", operands[0], operands[0])
            case "integer_pow":
                return self.emit("Pow", operands[0], np.float32(params["y"]))
            case "select_n" if len(operands) == 3:
                return self.emit("Where", operands[0], operands[2], operands[1])
            case "convert_element_type":
                return self.emit("Cast", operands[0], to=_onnx_dtype(params["new_dtype"]))
            case "dot_general":
                ranks = [len(variable.aval.shape) for variable in equation.invars]
                return self.emit("Einsum", *operands, equation=_einsum(params["dimension_numbers"], ranks))
            case "conv_general_dilated":
                return self.convolution(operands[0], operands[1], params)
        moved = self.moved(name, params, operands, equation)
        if moved:
            return moved
        raise _unknown(name, params)

    def moved(self, name: str, params: dict[str, Any], operands: list[Any], equation: Any) -> str:
        """Adds an operation that moves, repeats or drops entries. Returns "" for an unsupported one."""
        shape, ranks = equation.outvars[0].aval.shape, [len(variable.aval.shape) for variable in equation.invars]
        match name:
            case "reshape" | "squeeze" if params.get("dimensions") is None or name == "squeeze":
                return self.reshape(operands[0], shape)
            case "transpose":
                return self.emit("Transpose", operands[0], perm=params["permutation"])
            case "broadcast_in_dim":
                return self.broadcast(operands[0], equation.invars[0].aval.shape, shape, params)
            case "concatenate":
                return self.emit("Concat", *operands, axis=params["dimension"])
            case "stack":
                axis = params["axis"]
                parts = [self.emit("Unsqueeze", operand, _integers([axis])) for operand in operands]
                return self.emit("Concat", *parts, axis=axis)
            case "slice":
                starts, ends, strides = params["start_indices"], params["limit_indices"], params["strides"]
                strides = strides or (1,) * ranks[0]
                if _whole(equation.invars[0].aval.shape, starts, ends, strides):
                    return self.slice(operands[0], starts, ends, strides)
            case "pad" if all(low >= 0 and high >= 0 and not inner for low, high, inner in params["padding_config"]):
                low, high, _ = zip(*params["padding_config"], strict=True)
                return self.emit("Pad", operands[0], _integers([*low, *high]), operands[1])
            case "dynamic_slice" if not any(isinstance(start, str) for start in operands[1:]):
                starts, sizes = [int(start) for start in operands[1:]], params["slice_sizes"]
                if _whole(equation.invars[0].aval.shape, starts, sizes, (1,) * ranks[0]):
                    return self.window(operands[0], starts, sizes)
            case "gather" if _is_window(params, ranks) and not isinstance(operands[1], str):
                starts = [0] * ranks[0]
                for axis, start in zip(params["dimension_numbers"].start_index_map, operands[1], strict=True):
                    starts[axis] = int(start)
                if _whole(equation.invars[0].aval.shape, starts, params["slice_sizes"], (1,) * ranks[0]):
                    return self.reshape(self.window(operands[0], starts, params["slice_sizes"]), shape)
        return ""

    def emit(self, operation: str, *operands: Any, name: str = "", **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        inputs = [self.named(operand) for operand in operands]
        self.nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def named(self, value: Any) -> str:
        """Returns the name of a value. Stores an array as an initializer."""
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        array = np.asarray(value)
        name = f"c{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def split(self, operand: Any, sizes: Sequence[int], axis: int) -> list[str]:
        """Returns the names of the parts along an axis."""
        from onnx import helper

        names = [f"v{len(self.nodes)}_{number}" for number in range(len(sizes))]
        inputs = [self.named(operand), self.named(_integers(sizes))]
        self.nodes.append(helper.make_node("Split", inputs, names, axis=axis))
        return names

    def reshape(self, operand: Any, shape: Sequence[Any]) -> str:
        return self.emit("Reshape", operand, _integers([side if isinstance(side, int) else -1 for side in shape]))

    def broadcast(self, operand: Any, before: Sequence[Any], shape: Sequence[Any], params: dict[str, Any]) -> str:
        """Adds a `broadcast_in_dim`: reshapes to the target rank, then expands axes of size 1."""
        placed: list[Any] = [1] * len(shape)
        for axis, side in zip(params["broadcast_dimensions"], before, strict=True):
            placed[axis] = side
        name = self.reshape(operand, placed)
        if placed == list(shape):
            return name
        wanted = [1 if side == now else side for side, now in zip(shape, placed, strict=True)]  # 1 keeps the size
        if not {str(side) for side in wanted if not isinstance(side, int)} <= {_BATCH}:
            raise _unknown("broadcast_in_dim", params)
        sides = [_integers([side]) if isinstance(side, int) else self.batch_size() for side in wanted]
        return self.emit("Expand", name, self.emit("Concat", *sides, axis=0))

    def batch_size(self) -> str:
        return self.emit("Shape", self.batched, start=0, end=1)

    def slice(self, operand: Any, starts: Sequence[Any], ends: Sequence[Any], strides: Sequence[int]) -> str:
        """Slices along all axes except those of symbolic size, which are kept whole."""
        axes = [axis for axis, end in enumerate(ends) if isinstance(end, int)]
        columns = [_integers([values[axis] for axis in axes]) for values in (starts, ends, range(len(ends)), strides)]
        return self.emit("Slice", operand, *columns)

    def window(self, operand: Any, starts: Sequence[int], sizes: Sequence[Any]) -> str:
        ends = [start + size if isinstance(size, int) else size for start, size in zip(starts, sizes, strict=True)]
        return self.slice(operand, starts, ends, (1,) * len(ends))

    def convolution(self, features: Any, kernel: Any, params: dict[str, Any]) -> str:
        """Adds a convolution, or a transposed one if the features are dilated. ONNX has channels first."""
        numbers, dilation = params["dimension_numbers"], params["lhs_dilation"]
        first = self.emit("Transpose", features, perm=numbers.lhs_spec)
        weights = self.transposed(kernel, numbers.rhs_spec)  # [E, C, K, L]
        low, high = ([side[end] for side in params["padding"]] for end in (0, 1))
        settings = {"group": params["feature_group_count"], "dilations": params["rhs_dilation"]}
        if set(dilation) == {1}:
            if min(*low, *high) < 0:
                raise _unknown("conv_general_dilated", params)
            settings |= {"strides": params["window_strides"], "pads": [*low, *high]}
            drawn = self.emit("Conv", first, weights, **settings)
        else:
            plain = set(params["window_strides"]) == set(params["rhs_dilation"]) == {1} and settings["group"] == 1
            if isinstance(kernel, str) or not plain:
                raise _unknown("conv_general_dilated", params)
            spans = [np.shape(kernel)[axis] - 1 for axis in numbers.rhs_spec[2:]]
            pads = [span - side for span, side in zip([*spans, *spans], [*low, *high], strict=True)]
            if min(pads) < 0:
                raise _unknown("conv_general_dilated", params)
            flipped = np.ascontiguousarray(weights[:, :, ::-1, ::-1].swapaxes(0, 1))
            drawn = self.emit("ConvTranspose", first, flipped, strides=dilation, pads=pads)
        return self.emit("Transpose", drawn, perm=np.argsort(numbers.out_spec).tolist())

    def transposed(self, value: Any, axes: Sequence[int]) -> Any:
        return self.emit("Transpose", value, perm=axes) if isinstance(value, str) else np.asarray(value).transpose(axes)


def _unknown(name: str, params: Any) -> InvalidInputError:
    return InvalidInputError(
        f"--format onnx does not support the jax operation {name!r} with {_short(params)}. Attention on maps of "
        f"more than 64x64 positions needs `scan`, which is not supported; your own network may need others."
    )


def _whole(shape: Sequence[Any], starts: Sequence[Any], ends: Sequence[Any], strides: Sequence[int]) -> bool:
    """Returns whether a slice keeps all axes of symbolic size whole."""
    symbolic = [axis for axis, side in enumerate(shape) if not isinstance(side, int)]
    return all((starts[axis], ends[axis], strides[axis]) == (0, shape[axis], 1) for axis in symbolic)


def _integers(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def _is_window(params: dict[str, Any], ranks: Sequence[int]) -> bool:
    """Returns whether a gather is a single slice with a computed start, optionally without axes of size 1."""
    return ranks[1] == 1 and not params["dimension_numbers"].operand_batching_dims


def _einsum(dimension_numbers: Any, ranks: Sequence[int]) -> str:
    """Returns the equation of a `dot_general`.

    Examples:
        >>> _einsum((((2,), (1,)), ((0,), (0,))), [3, 3])
        'abc,acd->abd'
    """
    (contracted, batched), letters = dimension_numbers, iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in range(ranks[0])]
    shared = {axis: first[other] for axes in (contracted, batched) for other, axis in zip(*axes, strict=True)}
    second = [shared[axis] if axis in shared else next(letters) for axis in range(ranks[1])]
    left = [letter for axis, letter in enumerate(first) if axis not in (*contracted[0], *batched[0])]
    right = [letter for axis, letter in enumerate(second) if axis not in shared]
    result = [first[axis] for axis in batched[0]] + left + right
    return f"{''.join(first)},{''.join(second)}->{''.join(result)}"


def _onnx_dtype(dtype: Any) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _value_info(name: str, array: Any) -> Any:
    from onnx import helper

    shape = [side if isinstance(side, int) else _BATCH for side in array.shape]
    return helper.make_tensor_value_info(name, _onnx_dtype(array.dtype), shape)


def _short(params: Any) -> str:
    text = " ".join(str(params).split())
    return text if len(text) <= 120 else f"{text[:120]}..."
