"""Runs one step on many devices, by pmap or shard_map. No other module uses these transforms."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sagan_jax.errors import InvalidInputError, one_line

AXIS = "devices"

Step = Callable[..., tuple[Any, dict[str, Any]]]

_UNABLE = "Unable to initialize backend"


def require_backend() -> None:
    """Starts jax's backend, so that a missing one is reported before anything is read or written.

    Raises:
        InvalidInputError: when jax has no backend for the platform in `JAX_PLATFORMS`.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if not _may_be_of_the_backend(error):
            raise
        raise InvalidInputError(_absence(error)) from error


def backend_error(error: BaseException) -> InvalidInputError | None:
    """Returns the error to raise when an error of jax means that its backend could not start, else None."""
    if not _may_be_of_the_backend(error):
        return None
    try:
        require_backend()
    except InvalidInputError as known:
        return known
    return None


def _may_be_of_the_backend(error: BaseException) -> bool:
    # For cuda without its plugin, jax fails an assertion without a message.
    return _UNABLE in str(error) or (isinstance(error, AssertionError) and not str(error))


def _absence(error: BaseException) -> str:
    given = jax.config.jax_platforms  # pyrefly: ignore[missing-attribute]
    asked = f"{given!r} backend here: JAX_PLATFORMS asks for it, but" if given else "backend here:"
    reason = one_line(error).partition(_UNABLE)[2].partition("(set JAX_PLATFORMS")[0].partition(": ")[2].rstrip(" .")
    return (
        f"no {asked} jax was not installed for it or finds no such device{reason and f' ({reason[:200]})'}. "
        f"Unset JAX_PLATFORMS to use the available devices."
    )


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """The memory that a compiled step needs on each device, in bytes.

    Attributes:
        state_and_batch: the arguments of the step, and results that do not reuse the memory of the old state.
        temporary: temporaries, such as activations and gradients.
    """

    state_and_batch: int
    temporary: int

    @property
    def peak(self) -> int:
        """The sum of both. Other arrays on the device, such as the next batch, are not included."""
        return self.state_and_batch + self.temporary


class ParallelStep:
    """Runs a step `(state, batch, *constants, axis_name) -> (state, metrics)` on all devices, each with its part.

    The state is replicated and donated. Batch leaves `[updates, B, ...]` are split along B. Constants are replicated
    once and stay on the devices. Both drivers run the same function with the same collectives, and give bitwise equal
    results.

    Args:
        step: a pure function that averages its results over `axis_name`.
        constants: arguments after the batch that no step changes, such as the weights of a fixed network. They are
            arguments, so that they are not embedded in the compiled program.
        driver: `pmap` or `shard_map`. The global arrays of `shard_map` suit many hosts.
        devices: the devices to use. Defaults to all devices of all processes.

    Raises:
        InvalidInputError: when `driver` has another value.
    """

    def __init__(
        self,
        step: Step,
        constants: Sequence[Any] = (),
        *,
        driver: Literal["pmap", "shard_map"] = "pmap",
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self._devices = list(jax.devices() if devices is None else devices)
        self._mesh = Mesh(np.array(self._devices), (AXIS,))
        self._driver = driver
        if driver not in ("pmap", "shard_map"):
            raise InvalidInputError(f"The driver needs to be 'pmap' or 'shard_map'; got {driver!r}.")
        function, fixed = (step.func, step.args) if isinstance(step, partial) and not step.keywords else (step, ())
        program = _program if _is_hashable((function, *fixed)) else _program.__wrapped__
        self._step = program(function, fixed, len(constants), driver, tuple(self._devices))
        self._constants = tuple(map(self.replicate, constants))

    def replicate(self, state: Any) -> Any:
        """Returns the state on every device, in new buffers, so that donation does not delete the argument."""
        host = jax.tree.map(np.array, state)
        if self._driver == "pmap" and jax.process_count() > 1:
            return host
        return jax.device_put(host, NamedSharding(self._mesh, PartitionSpec()))

    def shard(self, batch: Any) -> Any:
        """Returns this process's part `[updates, B, ...]` of a batch on its devices, in the layout of the driver.

        The transfer is asynchronous: it may continue after the call returns.

        Raises:
            InvalidInputError: when B is not a multiple of the number of this process's devices.
        """
        local = [device for device in self._devices if device.process_index == jax.process_index()]
        rows = {leaf.shape[1] for leaf in jax.tree.leaves(batch)}
        if len(rows) != 1 or next(iter(rows)) % len(local):
            raise InvalidInputError(
                f"A batch needs a multiple of {len(local)} images, so that the {len(local)} devices share it; "
                f"got {' and '.join(map(str, sorted(rows)))}. Change --batch-size."
            )
        if self._driver == "pmap":
            split = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], len(local), -1, *leaf.shape[2:]), batch)
            return jax.device_put(split, NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(None, AXIS)))
        sharding = NamedSharding(self._mesh, PartitionSpec(None, AXIS))
        return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), batch)

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the next state and the metrics, for a state from `replicate` and a batch on the host."""
        return self.run(state, self.shard(batch))

    def run(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the next state and the metrics, for a state from `replicate` and a batch from `shard`."""
        return self._step(state, batch, *self._constants)

    def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
        """Traces the step for shapes, without arrays. The devices may belong to a topology, which cannot run programs.

        Args:
            state: a tree of `jax.ShapeDtypeStruct`.
            batch: the same, for the whole batch `[updates, B, ...]`. B is a multiple of the number of devices.

        Raises:
            ValueError: the driver is `pmap`, which cannot be traced for absent devices.
        """
        if self._driver != "shard_map":
            raise ValueError(f"A step is traced for shapes with the driver shard_map; got {self._driver}.")

        def placed(tree: Any, spec: PartitionSpec) -> Any:
            sharding = NamedSharding(self._mesh, spec)
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

        constants = placed(self._constants, PartitionSpec())
        return self._step.trace(placed(state, PartitionSpec()), placed(batch, PartitionSpec(None, AXIS)), *constants)

    def memory(self, state: Any, batch: Any) -> StepMemory | None:
        """Compiles the step, and returns the memory that it needs; None if the compiler does not report it.

        Args:
            state: a tree of arrays or shapes.
            batch: this process's part of a batch, on the host.
        """
        analysis = self._step.lower(state, self.shard(batch), *self._constants).compile().memory_analysis()
        if analysis is None:
            return None
        new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        return StepMemory(analysis.argument_size_in_bytes + max(new, 0), analysis.temp_size_in_bytes)


def _is_hashable(values: tuple[Any, ...]) -> bool:
    """Returns whether all values are hashable. A task is not hashable if a field of its networks is a list."""
    try:
        hash(values)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=4)  # further runs in the same process neither trace nor compile again
def _program(
    function: Step, fixed: tuple[Any, ...], num_constants: int, driver: str, devices: tuple[jax.Device, ...]
) -> Any:
    """Returns `function` with its first arguments fixed, as one program over all devices."""
    step = partial(function, *fixed, axis_name=AXIS)
    if driver == "pmap":
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 1, *(None for _ in range(num_constants))),
            out_axes=None,
            devices=devices if jax.process_count() == 1 else None,
            donate_argnums=0,
        )
    mapped = jax.shard_map(
        step,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=(PartitionSpec(), PartitionSpec(None, AXIS), *(PartitionSpec() for _ in range(num_constants))),
        out_specs=PartitionSpec(),
        # With the check, jax sums the gradients of replicated parameters itself. The average in the step would then
        # silently return the sum over devices instead of the mean.
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0)


def replicate_locally(tree: Any) -> Any:
    """Returns the arrays replicated on the devices of this process, for work without other processes."""
    return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def shard_locally(rows: Any) -> Any:
    """Returns arrays `[B, ...]` split along B over this process's devices. B is a multiple of their number."""
    return jax.device_put(rows, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))


def _local_mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
