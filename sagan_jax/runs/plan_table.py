"""The rows of a plan's table, as text."""

from collections.abc import Mapping

from sagan_jax.runs.plan import Plan
from sagan_jax.runtime.collectives import Collectives
from sagan_jax.runtime.compiled_programs import CompiledProgram

_NOT_KNOWN = "not known"


def plan_rows(plan: Plan) -> Mapping[str, str]:
    """Returns the rows of a plan's table: labels and values."""
    program = plan.program
    share = f"{plan.batch_size // plan.device_count:,} a device"
    parts = f", in {plan.accumulation_steps} microbatches" if plan.accumulation_steps > 1 else ""
    rows = {
        "devices": f"{plan.device_count:,} x {plan.device_kind}",
        "precision": plan.precision,
        "batch": f"{plan.batch_size:,} images, {share}{parts}",
        "memory of a device": _memory(plan),
    }
    if program and program.arguments is not None and program.outputs is not None and program.aliased is not None:
        rows["- arguments"] = _bytes(program.arguments)
        rows["- temporaries"] = _bytes(program.temporary)
        rows["- new outputs"] = _bytes(max(program.outputs - program.aliased, 0))
    if plan.largest_batch is not None:
        found = f"{plan.largest_batch:,} images, to within an eighth" if plan.largest_batch else "none fits"
        rows["largest batch"] = found
    rows["operations of a device"] = f"{plan.flops / 1e9:,.4g} GFLOP a step"
    if program and program.bytes_accessed is not None:
        rows["bytes accessed"] = f"{_bytes(int(program.bytes_accessed))} a step"
    if program and program.kernels is not None:
        rows["kernels"] = f"{program.kernels:,} a step; a call of a library counts as one"
    return rows | _collectives(program) | _times(plan)


def _memory(plan: Plan) -> str:
    program, limit = plan.program, plan.memory_limit
    if program is None:
        return f"{_NOT_KNOWN}; a device has {_bytes(limit)}"
    if limit is None:
        return f"{_bytes(program.memory)}; the memory of a device is not known"
    verdict = {True: "fits", False: "does not fit", None: "may fit"}[plan.fits]
    least = "at least " if program.refused and program.needed else ""
    return f"{least}{_bytes(program.memory)} of {_bytes(limit)}: {verdict}"


def _collectives(program: CompiledProgram | None) -> dict[str, str]:
    if program is None:
        return {"collectives": _NOT_KNOWN}
    count = sum(one.count for one in program.collectives)
    written = f"{sum(one.count for one in program.written):,} as written"
    if program.refused:
        return {"collectives": written}
    return {"collectives": f"{count:,} a step, {written}"} | {
        f"- {one.kind}": _carried(one) for one in program.collectives
    }


def _carried(one: Collectives) -> str:
    return f"{one.count:,} with {one.arrays:,} arrays, {_bytes(one.num_bytes)}"


def _times(plan: Plan) -> dict[str, str]:
    times = plan.step_seconds
    if not times:
        unknown = f"{_NOT_KNOWN}: no published figures of {plan.device_kind}"
        return dict.fromkeys(("time of a step", "time of the run", "chip-hours of the run", "input needed"), unknown)
    seconds, peak = times.values(), (plan.peak or 0) / 1e12
    hours = [one * plan.total_steps / 3600 for one in seconds]
    chip_hours = [one * plan.device_count for one in hours]
    basis = " / ".join(times) + ("" if "XLA's estimate" in times else f" of {peak:,.4g} TFLOP/s")
    return {
        "basis of the time": basis,
        "time of a step": " / ".join(f"{1000 * one:,.4g}" for one in seconds) + " ms",
        "time of the run": f"{_figures(hours)} hours",
        "chip-hours of the run": _figures(chip_hours),
        "input needed": f"{_figures([plan.images_per_step / one for one in seconds])} images/s",
    }


def _figures(values: list[float]) -> str:
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:,.3g}" for value in values)


def _bytes(number: int | None) -> str:
    """Returns a size in the unit that shows it best.

    Examples:
        >>> _bytes(3 * 2**30), _bytes(1_500_000)
        ('3.00 GiB', '1.4 MiB')
    """
    if number is None:
        return _NOT_KNOWN
    if number < 1e5:
        return f"{number:,} bytes"
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"
