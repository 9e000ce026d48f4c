"""The declaration of search spaces: what every method may say, and that what it says fits its settings."""

import pytest

from bench.basics.errors import UsageError
from bench.basics.settings import from_table
from bench.basics.space import Choice, Range, SearchSpace, augmentation
from bench.contract import NORMS
from bench.methods import registered_methods


def nested(key: str, value: object) -> dict:
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", registered_methods())
def test_every_value_of_a_declared_space_is_a_setting_of_the_method(name, norm):
    method = registered_methods()[name]
    space = method.space.for_norm(norm)
    for key, values in space.settings.items():
        ends = values.options if isinstance(values, Choice) else (values.low, values.high)
        for value in ends:
            whole = isinstance(values, Range) and values.whole
            from_table(method.Settings, nested(key, int(value) if whole else value), name)
    from_table(method.Settings, space.judging, name)


def test_the_norm_is_filled_in_where_it_is_named():
    space = SearchSpace({"targets.{norm}": Range(1, 2, of="{norm}"), "rate": Range(1, 2, of="l1")})
    filled = space.for_norm("linf")
    assert filled.settings == {"targets.linf": Range(1, 2, of="linf"), "rate": Range(1, 2, of="l1")}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Range(2, 1),
        lambda: Range(0, 1, log=True),
        lambda: Range(1, 2, of="l3"),
        lambda: Choice(),
        lambda: SearchSpace(augmentation(), starts=({"train.flop": True},)),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_where_it_is_written(make):
    with pytest.raises(UsageError):
        make()


def test_a_choice_may_name_the_norm_too():
    space = SearchSpace({"keep_best": Choice("", "{norm}")}).for_norm("l1")
    assert space.settings["keep_best"].options == ("", "l1")
