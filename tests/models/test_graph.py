from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeclf.models.graph import stable_names


class ReLU:
    def __init__(self, name):
        self.name = name


class Conv2D(ReLU):
    pass


def test_numbered_layers_get_the_numbers_of_their_graph_and_others_keep_their_names():
    layers = [Conv2D("stem"), ReLU("re_lu_17"), Conv2D("conv2d_4"), ReLU("re_lu_18"), ReLU("_hidden")]
    names = stable_names(layers)
    assert [names[id(layer)] for layer in layers] == ["stem", "re_lu", "conv2d", "re_lu_1", "hidden"]


@given(
    st.lists(st.tuples(st.sampled_from([ReLU, Conv2D]), st.text("re_lu1_conv2d", max_size=9)), max_size=12),
    st.lists(st.sampled_from(["re_lu", "conv2d", "stem"]), max_size=2),
)
def test_no_two_names_are_equal_reserved_or_begin_with_an_underscore(made, reserved):
    layers = [kind(name) for kind, name in made]
    names = stable_names(layers, reserved=reserved)
    assert len(set(names.values())) == len(layers)
    assert not set(names.values()) & set(reserved)
    assert all(name and not name.startswith("_") for name in names.values())
