import jax
import jax.numpy as jnp
import pytest

from sagan_jax.functional.shape_checks import check_arrays, check_that


def test_check_returns_the_size_of_each_letter():
    sizes = check_arrays("f", a=(jnp.ones((2, 3, 5, 7)), "floating [..., H, C]"), b=(jnp.ones((7, 11)), "[C, E]"))
    assert sizes == {"H": 5, "C": 7, "E": 11}


def test_refusal_lists_all_needs_and_all_arguments_in_one_line():
    message = (
        r"f needs floating a \[N, D\], bool m \[N\], any \[\]; got a \(2, 3\) float32, m \(5,\) bool, any \(\) float\."
    )
    with pytest.raises(AssertionError, match=message) as caught:
        check_arrays("f", a=(jnp.ones((2, 3)), "floating [N, D]"), m=(jnp.ones(5, bool), "bool [N]"), any=(0.5, "[]"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "need"),
    [
        ((5, 3), "[M, D]"),  # D is 7
        ((3, 5, 7), "[..., M, D]"),  # the leading axes are (2,)
        ((5, 7), "[..., M, D]"),
        ((2, 2, 5, 7), "[..., M, D]"),
        ((7,), "[M, D]"),
        ((2, 7), "[B, ..., H, D]"),
    ],
)
def test_letter_and_ellipsis_have_one_size_in_all_arrays(shape, need):
    with pytest.raises(AssertionError, match=r"f needs a .* got a \(2, 3, 7\)"):
        check_arrays("f", a=(jnp.ones((2, 3, 7)), "[..., N, D]"), b=(jnp.ones(shape), need))


def test_inner_axes_of_an_ellipsis_are_free_in_number():
    for shape in ((2, 7), (2, 3, 7), (2, 3, 5, 7)):
        assert check_arrays("f", x=(jnp.ones(shape), "[B, ..., C]"), scale=(jnp.ones((2, 7)), "[B, C]")) == {
            "B": 2,
            "C": 7,
        }


@pytest.mark.parametrize(("dtype", "need"), [("int32", "floating"), ("bool", "floating [N]"), ("float32", "bool [N]")])
def test_array_of_another_dtype_is_refused(dtype, need):
    with pytest.raises(AssertionError, match=rf"got a \(3,\) {dtype}"):
        check_arrays("f", a=(jnp.ones(3, dtype), need))


def test_one_dtype_is_asked_of_floating_arrays_only():
    wide, narrow, need = jnp.ones(3), jnp.ones(3, jnp.bfloat16), "floating [N]"
    check_arrays("f", a=(wide, need), b=(narrow, need))
    check_arrays("f", one_dtype=True, a=(wide, need), gamma=(jnp.ones((), jnp.bfloat16), "[]"))
    with pytest.raises(AssertionError, match=r"of one dtype; got a .* float32, b .* bfloat16"):
        check_arrays("f", one_dtype=True, a=(wide, need), b=(narrow, need))


def test_argument_that_is_none_is_not_checked():
    assert check_arrays("f", a=(jnp.ones(3), "[N]"), b=(None, "floating [N, M]")) == {"N": 3}


def test_check_leaves_nothing_in_the_compiled_program():
    def checked(x):
        check_arrays("f", x=(x, "floating [..., H, W]"))
        check_that("f", x.shape[-1] > 1, "a W above 1", x.shape)
        return x

    assert jax.make_jaxpr(checked)(jnp.ones((2, 3, 5))).eqns == []
