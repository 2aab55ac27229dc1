"""Trees by a language model: what it may answer, and what is made of that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.chat import ChatClient, ChatConfig, Reply
from robustzs.errors import HierarchyFormatError, UsageError
from robustzs.hierarchy.asked import AskOptions, ask_for_tree
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from tests.chat_server import Answer, said, serving

KINDS = {
    "poodle": "dog",
    "pug": "dog",
    "tabby": "cat",
    "siamese": "cat",
    "sparrow": "bird",
    "robin": "bird",
    "oak": "tree",
    "elm": "tree",
    "rose": "flower",
    "tulip": "flower",
    "dog": "animal",
    "cat": "animal",
    "bird": "animal",
    "tree": "plant",
    "flower": "plant",
}
LABELS = LabelSet.from_names(list(KINDS)[:10])


def _things(body: dict[str, Any]) -> list[str]:
    question = body["messages"][0]["content"]
    return re.findall(r"^\d+\. (.+)$", question, flags=re.MULTILINE)


def _groups(body: dict[str, Any]) -> dict[str, list[Any]]:
    """What a good model answers."""
    groups: dict[str, list[Any]] = {}
    for number, thing in enumerate(_things(body), start=1):
        groups.setdefault(KINDS[thing], []).append(number)
    return groups


def _draw(answer: Callable[[dict[str, Any], int], Answer], **options: Any) -> Hierarchy:
    with (
        serving(answer) as server,
        ChatClient(ChatConfig(url=server.url, model="tiny", n_retries=0)) as chat,
    ):
        return ask_for_tree(LABELS, chat, model="tiny", options=AskOptions(**options))


def _path(tree: Hierarchy, leaf: str) -> list[str]:
    above, node = [], tree.index(leaf)
    while node >= 0:
        above.append(tree.names[node])
        node = int(tree.parent[node])
    return above


def test_groups_of_groups_become_a_tree() -> None:
    requests: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        requests.append(body)
        return said(f"Sure!\n```json\n{json.dumps(_groups(body))}\n```")

    tree = _draw(answer)
    assert len(requests) == 2
    assert requests[0]["response_format"] == {"type": "json_object"}
    assert set(tree.leaf_ids) == set(LABELS.ids)
    assert _path(tree, "pug") == ["pug", "dog", "animal", "anything"]
    assert _path(tree, "rose") == ["rose", "flower", "plant", "anything"]
    assert dict(tree.provenance)["source"] == "the language model tiny"
    assert Hierarchy.from_json(tree.to_json()) == tree


def test_depth_and_questions_are_bounded() -> None:
    seen: list[list[str]] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        seen.append(_things(body))
        return said(json.dumps(_groups(body)))

    tree = _draw(answer, max_depth=2, per_question=4)
    assert int(tree.depth.max()) == 2
    assert [len(things) for things in seen] == [4, 3, 3]
    assert sorted(thing for things in seen for thing in things) == sorted(LABELS.names)
    assert int(_draw(answer, max_depth=1).depth.max()) == 1


def test_known_groups_are_offered_to_the_next_question() -> None:
    questions: list[str] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        questions.append(body["messages"][0]["content"])
        return said(json.dumps(_groups(body)))

    _draw(answer, per_question=5)
    assert "Use these groups where they fit" not in questions[0]
    assert (
        "Use these groups where they fit, and add new ones only where none does: dog;"
        in (questions[1])
    )


def _missing(groups: dict[str, list[Any]]) -> str:
    groups["dog"].pop()
    return json.dumps(groups)


def _twice(groups: dict[str, list[Any]]) -> str:
    groups["cat"].append(groups["dog"][0])
    return json.dumps(groups)


def _strangers(groups: dict[str, list[Any]]) -> str:
    groups["dog"] = [99, -1, "unicorn", True, None, {"a": []}, 1.0, 10**30]
    return json.dumps(groups)


def _badly_named(groups: dict[str, list[Any]]) -> str:
    groups["\x1b[2J"] = groups.pop("dog")
    return json.dumps(groups)


def _named_like_a_thing(groups: dict[str, list[Any]]) -> str:
    groups["Poodle"] = groups.pop("dog")
    return json.dumps(groups)


def _nameless(groups: dict[str, list[Any]]) -> str:
    groups["  "] = groups.pop("dog")
    return json.dumps(groups)


def _endless_name(groups: dict[str, list[Any]]) -> str:
    groups["very " * 50 + "good dog"] = groups.pop("dog")
    return json.dumps(groups)


BAD = [_missing, _twice, _strangers, _badly_named, _named_like_a_thing, _nameless, _endless_name]


@pytest.mark.parametrize("spoil", BAD)
def test_what_is_wrong_is_asked_again_and_the_rest_stays(
    spoil: Callable[[dict[str, list[Any]]], str],
) -> None:
    asked: list[list[str]] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        asked.append(_things(body))
        groups = _groups(body)
        return said(spoil(groups) if number == 0 else json.dumps(groups))

    tree = _draw(answer)
    assert asked[0] == list(LABELS.names)
    assert set(asked[1]) <= {"poodle", "pug"}
    assert asked[1]
    assert _path(tree, "pug") == ["pug", "dog", "animal", "anything"]


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "{}",
        "[1, 2]",
        '{"dog": [1, 2',
        '{"dog": 1}',
        '{"dog": {"poodle": [1]}}',
        '{"groups": [{"name": "dog", "members": [1]}]}',
        '{"dog": [' * 2000,
        '{"dog": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"dog": [' + "9" * 10_000 + "]}",
    ],
)
def test_what_is_no_grouping_at_all_is_asked_again(text: str) -> None:
    tree = _draw(lambda body, n: said(text if n == 0 else json.dumps(_groups(body))))
    assert set(tree.leaf_ids) == set(LABELS.ids)


def test_every_problem_is_told_after_the_last_attempt() -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        groups = _groups(body)
        groups.pop("tree", None)
        groups["flower"] = [*groups.get("flower", []), 77]
        groups["oak"] = []
        return said(json.dumps(groups))

    with pytest.raises(HierarchyFormatError) as caught:
        _draw(answer, n_attempts=2)
    text = "\n".join(caught.value.problems)
    for piece in ("'oak' is in no group", "'elm' is in no group", "'77'", "like one of the things"):
        assert piece in text
    assert "after 2 attempts" in str(caught.value)
    assert "--model" in caught.value.hint


def test_the_model_is_told_what_was_wrong() -> None:
    questions: list[str] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        questions.append(body["messages"][0]["content"])
        return said('{"dog": 1}' if number == 0 else json.dumps(_groups(body)))

    _draw(answer)
    assert "could not be used" not in questions[0]
    assert "could not be used as it was: the answer is not the JSON" in questions[1]


class _Babbler:
    """Answers with any groups, sound or not."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def ask(self, messages: object, *, json_answer: bool = False) -> Reply:
        members = st.lists(st.one_of(st.integers(-1, 12), st.sampled_from(list(KINDS)), st.text()))
        groups = st.dictionaries(st.one_of(st.sampled_from(list(KINDS)), st.text()), members)
        return Reply(json.dumps(self.data.draw(groups)))


@given(st.data())
def test_any_answer_gives_a_tree_over_the_labels_or_a_typed_error(data: st.DataObject) -> None:
    babbler = _Babbler(data)
    try:
        tree = ask_for_tree(LABELS, babbler, model="x", options=AskOptions(n_attempts=2))
    except HierarchyFormatError:
        return
    assert sorted(tree.leaf_ids) == sorted(LABELS.ids)


def test_a_group_named_like_one_below_takes_it_in() -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        if number == 0:
            return said(json.dumps(_groups(body)))
        things = _things(body)
        # "dog" gathers dogs and cats; the old group of that name is put elsewhere by mistake.
        groups = {"dog": [things.index("cat") + 1]}
        groups["thing"] = [n for n in range(1, 6) if n != groups["dog"][0]]
        return said(json.dumps(groups))

    tree = _draw(answer, max_depth=3)
    assert _path(tree, "pug") == ["pug", "dog", "anything"]
    assert _path(tree, "tabby") == ["tabby", "cat", "dog", "anything"]
    assert _path(tree, "oak") == ["oak", "tree", "thing", "anything"]
    assert tree.names.count("dog") == 1


def test_what_cannot_be_asked() -> None:
    def never(body: dict[str, Any], number: int) -> Answer:
        raise NotImplementedError

    with pytest.raises(UsageError):
        _draw(never, max_depth=0)
    with pytest.raises(UsageError):
        _draw(never, per_question=1)


def test_a_group_with_the_id_of_a_label_gets_another_one(tmp_path: Path) -> None:
    # "Dog!" is another name than the label "dog", but has its slug.
    labels = LabelSet.from_names(["dog", "wolf", "oak", "elm", "rose"])
    groups = {"Dog!": [1, 2], "tree": [3, 4, 5]}
    with (
        serving(lambda body, n: said(json.dumps(groups))) as server,
        ChatClient(ChatConfig(url=server.url, model="tiny", n_retries=0)) as chat,
    ):
        tree = ask_for_tree(labels, chat, model="tiny", options=AskOptions(max_depth=2))
    assert tree.ids[tree.parent[tree.index("dog")]] == "dog-2"
