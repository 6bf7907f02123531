"""Calls that do not fit."""

import pytest

from qkd_tf.console.arguments import arguments_checked


@arguments_checked(ValueError)
def cut(bread, knife="long", *, slices=1):
    return bread, knife, slices


@arguments_checked(ValueError, ["colour", "bread"])
def bake(bread, **options):
    return bread, options


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: cut("rye", slice=2), "cut has no argument slice; did you mean slices?"),
        (lambda: cut("rye", oven=2), "cut has no argument oven; it takes bread, knife, slices"),
        (lambda: cut(), "cut lacks bread; call cut(bread, …)"),
        (lambda: cut(knife="short"), "cut lacks bread; call cut(bread, …)"),
        (lambda: cut("rye", bread="white"), "cut is given bread twice, by its place and by its name; leave one out"),
        (
            lambda: cut("rye", "short", 3),
            "cut takes 2 arguments without names (bread, knife), and 3 are given; name the others",
        ),
        (lambda: bake("rye", color="red"), "bake has no argument color; did you mean colour?"),
        (lambda: bake("rye", zzz=1), "bake has no argument zzz; it takes bread, and the flags of docs/flags.md"),
    ],
)
def test_call_that_does_not_fit_is_one_line(call, told):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == told


def test_call_that_fits_is_made():
    assert cut("rye", slices=3) == ("rye", "long", 3) == cut(slices=3, bread="rye")
    assert bake("rye", colour="red") == ("rye", {"colour": "red"})


def test_errors_of_the_function_itself_are_its_own():
    @arguments_checked(ValueError)
    def fails():
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        fails()
