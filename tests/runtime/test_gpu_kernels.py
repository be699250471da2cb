"""Kernels of a program for a GPU, against a count by hand."""

import doctest

import pytest

from sagan_jax.runtime import collectives, gpu_kernels, hlo_text
from sagan_jax.runtime.gpu_kernels import compiled_kernels

# Lines of a program that was compiled for an H200. What the count does not need is cut out, and some were added.
OF_A_GPU = """HloModule jit_step, is_scheduled=true, input_output_alias={ {}: (0, {}, may-alias) }

%fused_reduce (param_0.1: f32[256,256]) -> f32[] {
  %param_0.1 = f32[256,256]{1,0} parameter(0)
  %constant_5 = f32[] constant(0)
  ROOT %reduce.6 = f32[] reduce(%param_0.1, %constant_5), dimensions={0,1}, to_apply=%region_2.4
}

%region_2.4 (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum.5 = f32[] add(%a, %b)
}

%body.2 (arg.1: (s32[], f32[256,256])) -> (s32[], f32[256,256]) {
  %gte.6 = s32[] get-tuple-element(%arg.1), index=0
  %dot.1 = f32[256,256]{1,0} fusion(%gte.7), kind=kCustom, calls=%fused_reduce, metadata={op_name="while/body/call(x)"}
  %loop_add_fusion.1 = s32[] fusion(%gte.6), kind=kLoop, calls=%fused_reduce
  ROOT %tuple.3 = (s32[], f32[256,256]{1,0}) tuple(%loop_add_fusion.1, %dot.1)
}

%condition.3 (arg.3: (s32[], f32[256,256])) -> pred[] {
  ROOT %loop_compare_fusion = pred[] fusion(%gte.9), kind=kLoop, calls=%fused_reduce
}

%branch.1 (arg.4: f32[8]) -> f32[8] {
  ROOT %copy.4 = f32[8]{0} copy(%arg.4)
}

%async.1 (p.4: f32[8]) -> f32[8] {
  ROOT %gemm.1 = (f32[8]{0}, s8[4096]{0}) custom-call(%p.4), custom_call_target="__cublas$gemm"
}

ENTRY %main.6 (state.1: f32[256,256], batch.1: f32[1,16,1024]) -> f32[256,256] {
  %constant_9_0 = s32[] constant(0)
  %copy.9 = s32[] copy(%constant_9_0)
  %w.5 = (s32[], /*index=1*/f32[4]) while(%t), condition=%condition.3, body=%body.2, x={"known_trip_count":{"n":"7"}}
  %w.6 = (s32[], f32[256,256]{1,0}) while(%w.5), condition=%condition.3b, body=%body.2b
  %conv.1 = (f32[4,3,3]{2,1,0}, u8[99]{0}) custom-call(%batch.1, %b), custom_call_target="__cudnn$convForward"
  %ar.1 = f32[8]{0} all-reduce-start(%p.1), to_apply=%region_2.4
  %ar.2 = f32[8]{0} all-reduce-done(%ar.1)
  %as.1 = ((f32[8]{0}), f32[8]{0}) async-start(%ar.2), calls=%async.1
  %as.2 = f32[8]{0} async-done(%as.1)
  %c.1 = f32[8]{0} call(%as.2), to_apply=%branch.1
  %c.2 = f32[8]{0} conditional(%index, %c.1), branch_computations={%branch.1}
  ROOT %bitcast.1 = f32[256,256]{1,0} bitcast(%conv.1)
}

%body.2b (arg.5: (s32[], f32[256,256])) -> (s32[], f32[256,256]) {
  ROOT %copy.7 = f32[256,256]{1,0} copy(%arg.5)
}

%condition.3b (arg.6: (s32[], f32[256,256])) -> pred[] {
  ROOT %loop_compare_fusion.1 = pred[] fusion(%gte.9), kind=kLoop, calls=%fused_reduce
}
"""


def test_kernels_are_counted_as_often_as_they_are_started():
    in_loops = 7 * 2 + 1 + 1  # a loop without a stated number of iterations counts once, with its condition
    in_entry = 3  # a copy, a convolution, an all-reduce
    called = 1 + 1 + 1  # by async-start, call and conditional
    assert compiled_kernels(OF_A_GPU) == in_loops + in_entry + called


def test_program_without_kernels_has_none():
    assert compiled_kernels("") == 0
    assert compiled_kernels("ENTRY %m (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}") == 0


@pytest.mark.parametrize("module", [collectives, gpu_kernels, hlo_text])
def test_examples_of_what_reads_programs_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
