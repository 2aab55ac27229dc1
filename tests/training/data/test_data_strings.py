from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.data.strings import StringColumn

# Everything that a file name or a caption may hold: surrogates stand for bytes that are not UTF-8.
TEXTS = st.lists(
    st.text(
        st.one_of(
            st.characters(exclude_categories=("Cs",)),
            st.characters(categories=(), include_characters="\udc80\udcff"),
        ),
        max_size=20,
    ),
    max_size=20,
)


@given(TEXTS)
def test_every_text_comes_back(texts: list[str]) -> None:
    # Bytes that happen to be UTF-8 become the characters that they mean, as in file names.
    texts = [t.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") for t in texts]
    column = StringColumn.of(texts)
    assert len(column) == len(texts)
    assert list(column) == texts
    again = pickle.loads(pickle.dumps(column))
    assert list(again) == texts
    assert column.lengths.tolist() == [len(t.encode("utf-8", "surrogateescape")) for t in texts]


def test_take_gives_nothing_for_negative_rows() -> None:
    column = StringColumn.of(["a", "bb", "ccc"])
    assert list(column.take(np.array([2, -1, 0, 2]))) == ["ccc", "", "a", "ccc"]


def test_a_million_names_travel_as_two_blocks() -> None:
    column = StringColumn.of(f"n{i:08d}/n{i:08d}_{i}.JPEG" for i in range(100_000))
    size = len(pickle.dumps(column))
    assert size < column.data.nbytes + column.ends.nbytes + 1000


def test_digest_parts_tell_where_texts_end() -> None:
    assert StringColumn.of(["ab", "c"]).parts != StringColumn.of(["a", "bc"]).parts
