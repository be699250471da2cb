"""Collectives of a program, against a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from sagan_jax.runtime.collectives import Collectives, compiled_collectives, traced_collectives
from sagan_jax.runtime.compiled_programs import compile_program
from sagan_jax.runtime.devices import ParallelStep

# Lines of a program that was compiled for a v5e:2x4. What the count does not need is cut out.
OF_A_TPU = """HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%region_99.104 (psum.1: f32[], psum.2: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%psum.1, %psum.2)
}

%body.7 (arg.1: (s32[], f32[64,8])) -> (s32[], f32[64,8]) {
  %psum.9 = f32[64,8]{1,0:T(8,128)} all-reduce(%gte.2), to_apply=%region_99.104
  ROOT %tuple.2 = (s32[], f32[64,8]{1,0}) tuple(%gte.1, %psum.9)
}

%c (arg.2: (s32[], f32[64,8])) -> pred[] {
  ROOT %lt = pred[] compare(%gte.3, %constant.1), direction=LT
}

%async_collective_fusion.1 (p.7: f32[1,5]) -> f32[8,5] {
  ROOT %all-gather.5 = f32[8,5]{1,0} all-gather(%p.7), channel_id=9, frontend_attributes={chain_id="0"}
}

%async_collective_fusion.2 (p.8: f32[1,5]) -> f32[8,5] {
  ROOT %all-gather.6 = f32[8,5]{1,0} all-gather(%p.8), channel_id=9, frontend_attributes={chain_id="0"}
}

%async_collective_fusion.3 (p.9: f32[1,11]) -> f32[8,11] {
  ROOT %all-gather.7 = f32[8,11]{1,0} all-gather(%p.9), channel_id=3, frontend_attributes={chain_id="1"}
}

%c.9 (param.7: (s32[], f32[64,8])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(4), metadata={op_name="jit(step)/shard_map"}
  %other.3 = s32[]{:T(128)} constant(9)
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.2, %constant.3), direction=LT, metadata={}
}

%body.9 (param.8: (s32[], f32[64,8])) -> (s32[], f32[64,8]) {
  %psum.9 = f32[7,2]{1,0} all-reduce(%get-tuple-element.8), to_apply=%region_99.104
}

ENTRY %main.650_spmd (param.359: s32[], param.362: f32[64,8]) -> (s32[], f32[64,8]) {
  %psum.970 = f32[64]{0:T(128)S(1)} all-reduce(%fusion.93), to_apply=%region_99.104
  %ar = (f32[64]{0:T(128)S(1)}, bf16[3,5]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%f.2, %f.1), to_apply=%region_99.104
  %gte.8 = f32[64]{0:T(128)S(1)} get-tuple-element(%ar), index=1
  %w = (s32[], f32[64,8]) while(%t), condition=%c, body=%body.7, backend_config={"known_trip_count":{"n":"5"}}
  %w.9 = (s32[], f32[64,8]) while(%t.9), condition=%c.9, body=%body.9
  %ag.1 = (f32[2,7]{1,0}, f32[16,7]{1,0}) all-gather-start(%p.1), dimensions={0}
  %ag.2 = f32[16,7]{1,0} all-gather-done(%ag.1)
  %ag.3 = f32[8,5]{1,0} fusion(%p.4), calls=%async_collective_fusion.1
  %ag.4 = f32[8,5]{1,0} fusion(%ag.3), calls=%async_collective_fusion.2
  %ag.5 = f32[8,11]{1,0} fusion(%p.5), calls=%async_collective_fusion.3
  %cp.1 = (u8[3]{0}, u8[3]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p.2)
  ROOT %t = (s32[], f32[64,8]{1,0}) tuple(%p.3, %get-tuple-element.9)
}
"""


def test_collectives_of_a_tpu_program_are_those_counted_by_hand():
    assert compiled_collectives(OF_A_TPU) == (
        Collectives("all-gather", 3, 3, (16 * 7 + 8 * 5 + 8 * 11) * 4),
        Collectives("all-reduce", 2 + 5 + 4, 3 + 5 + 4, 64 * 4 + (64 * 4 + 15 * 2) + 5 * 64 * 8 * 4 + 4 * 7 * 2 * 4),
        Collectives("collective-permute", 1, 1, 3),
    )


def test_collectives_as_written_and_as_compiled_are_those_of_the_step():
    def step(state, batch, *, axis_name):
        def round_(carry, _):
            return jax.lax.pmean(carry * 2, axis_name), None

        carry, _ = jax.lax.scan(round_, state["a"] + batch.sum(), length=6)
        moments = jax.lax.pmean({"m": state["b"] * batch.mean(), "v": state["b"] + batch.max()}, axis_name)
        return {"a": carry, "b": moments["m"] * moments["v"]}, {}

    state = {"a": jax.ShapeDtypeStruct((3, 5), jnp.float32), "b": jax.ShapeDtypeStruct((7,), jnp.bfloat16)}
    batch = jax.ShapeDtypeStruct((1, 8, 2), jnp.bfloat16)
    traced = ParallelStep(step, driver="shard_map").trace(state, batch)
    assert traced_collectives(traced.jaxpr) == (Collectives("all-reduce", 8, 8, 6 * 15 * 4 + 2 * 7 * 2),)
    program = compile_program(traced)
    (found,) = program.collectives
    # The compiler may join the two, or sum them in float32; each round of the loop remains.
    assert (found.kind, found.arrays) == ("all-reduce", 8)
    assert 7 <= found.count <= 8
    assert found.num_bytes in (6 * 15 * 4 + 2 * 7 * 2, 6 * 15 * 4 + 2 * 7 * 4)
    # The state on each device, and a quarter of the batch.
    assert program.arguments == 15 * 4 + 7 * 2 + np.prod(batch.shape) * 2 // jax.device_count()
