"""A tree that a language model draws: labels into groups, groups into larger groups.

The model is asked level by level, each time to put numbered things into named groups. What it
answers is data: each thing must stand in exactly one group and every name must be one that a
label could have. What is wrong is asked again, a bounded number of times, and then told at once.
Since a level only groups the level below, no answer can close a ring or get around the depth.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from robustzs.chat import Message, Reply
from robustzs.errors import HierarchyFormatError, UsageError
from robustzs.hierarchy.build import BuildOptions, Node
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.problems import ProblemLog
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from robustzs.labels.rules import same_text_key, slug, text_problem, tidy

MAX_NAME = 60
"""Characters in the name of a group."""
_FEW = 4
"""So many groups need no further level."""

_QUESTION = (
    "Here are things that a picture may show. Put them into groups by what kind of thing they "
    "are, as an encyclopedia would. Name each group by a common English noun for that kind, in "
    "the singular. Make about {n_groups} groups, none of them named like one of the things, none "
    "called 'other'.{known}\n\n{things}\n\n"
    'Answer with JSON alone: {{"name of a group": [numbers of its things], ...}}. Every number '
    "stands in exactly one group."
)
_KNOWN = " Use these groups where they fit, and add new ones only where none does: {names}."
_WRONG = "\n\nYour last answer could not be used as it was: {problems}."
_TOLD = 5


class Chat(Protocol):
    """Whoever answers: :class:`robustzs.chat.ChatClient`."""

    def ask(self, messages: Sequence[Message], *, json_answer: bool = False) -> Reply:
        """One answer."""


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """How the model is asked.

    Args:
        max_depth: Deepest leaf: at most one level of groups fewer.
        n_attempts: How often the things of one question are asked for, until all are in place.
        per_question: Things in one question.
        shrink: A level has about so many times fewer groups than the level below has things.
    """

    max_depth: int = 4
    n_attempts: int = 3
    per_question: int = 60
    shrink: int = 5


def ask_for_tree(
    labels: LabelSet,
    chat: Chat,
    *,
    model: str,
    options: AskOptions | None = None,
    name: str = "asked",
    limits: HierarchyLimits = DEFAULT_LIMITS,
    report: Callable[[int, int], None] | None = None,
) -> Hierarchy:
    """The tree over some labels that a language model draws.

    Args:
        labels: The leaves, with all their fields.
        chat: Who is asked.
        model: The model's name, for the record.
        options: How it is asked.
        name: What people call the tree.
        limits: Caps.
        report: Told how many things of the present level are in place, and of how many.

    Raises:
        HierarchyFormatError: Labels are still not in place after the last attempt; every problem is
            listed.
        ServerError: No answer came.
        UsageError: Fewer than two labels, or options that cannot be.
    """
    chosen = options or AskOptions()
    if len(labels) < 2 or min(chosen.max_depth, chosen.n_attempts, chosen.shrink) < 1:
        raise UsageError(
            f"{len(labels)} labels, depth {chosen.max_depth}, {chosen.n_attempts} attempts",
            hint="give at least two labels, a depth and an attempt",
        )
    if chosen.per_question < 2:
        raise UsageError("a question needs at least two things", hint="per_question=60")
    things = [label.prompt for label in labels]
    taken = set(map(same_text_key, (*labels.names, *things)))
    groups_below: set[str] = set()
    levels: list[list[str]] = []  # per level the group of each thing of the level below
    while len(levels) < chosen.max_depth - 1 and len(things) > _FEW:
        unfit = taken - set(map(same_text_key, things)) if levels else taken
        groups = _Level(chat, chosen, things, unfit).grouped(report)
        names = list(dict.fromkeys(groups))
        if len(names) >= len(things):
            break
        # A group may be named like one right below, which then is a part of it, but not like one
        # further down.
        taken |= groups_below
        groups_below = set(map(same_text_key, names))
        levels.append(groups)
        things = names
    return Hierarchy.from_nodes(
        _nodes(labels, levels),
        name=name,
        options=BuildOptions(limits=limits),
        provenance={"source": f"the language model {model}", "method": "robustzs.hierarchy.asked"},
    ).restrict(labels.ids)


@dataclass
class _Level:
    """One level: things into groups, question by question."""

    chat: Chat
    options: AskOptions
    things: Sequence[str]
    taken: set[str]  # names that no group may have
    names: dict[str, str] = field(default_factory=dict)  # of groups so far, by their folded form

    def grouped(self, report: Callable[[int, int], None] | None) -> list[str]:
        """The group of each thing."""
        found: dict[int, str] = {}
        size = self.options.per_question
        n_questions = -(-len(self.things) // size)
        for number in range(n_questions):
            # Every n-th, so that each question sees the whole breadth of things.
            found.update(self._asked(list(range(number, len(self.things), n_questions))))
            if report is not None:
                report(len(found), len(self.things))
        return [
            self.names.get(same_text_key(thing), found[number])
            for number, thing in enumerate(self.things)
        ]

    def _asked(self, numbers: list[int]) -> dict[int, str]:
        """Ask for some things until each is in one group.

        Raises:
            HierarchyFormatError: That did not happen.
        """
        found: dict[int, str] = {}
        problems: list[str] = []
        for _ in range(self.options.n_attempts):
            missing = [number for number in numbers if number not in found]
            reply = self.chat.ask(self._question(missing, problems), json_answer=True)
            try:
                answer = _parse(reply.text)
            except ValueError as error:
                problems = [f"the answer is not the JSON that was asked for: {error}"]
                problems += ["it was cut by the limit of tokens"] if reply.is_cut else []
                continue
            good, problems = self._checked(answer, missing)
            found.update(good)
            if len(found) == len(numbers):
                return found
        log = ProblemLog(f"the model's tree, after {self.options.n_attempts} attempts")
        for problem in problems:
            log.add(HierarchyFormatError, problem)
        for number in numbers:
            if number not in found:
                log.add(HierarchyFormatError, f"{self.things[number]!r} is in no group")
        try:
            log.raise_if_any()
        except HierarchyFormatError as error:
            error.hint = "try again with a more capable --model, more --attempts or fewer labels"
            raise
        return found

    def _question(self, missing: Sequence[int], problems: Sequence[str]) -> list[Message]:
        lines = [f"{place}. {self.things[n]}" for place, n in enumerate(missing, start=1)]
        known = _KNOWN.format(names="; ".join(self.names.values())) if self.names else ""
        n_groups = max(2, round(len(self.things) / self.options.shrink))
        content = _QUESTION.format(
            n_groups=min(n_groups, len(missing)), known=known, things="\n".join(lines)
        )
        if problems:  # told, because the same question would get the same answer
            content += _WRONG.format(problems="; ".join(problems[:_TOLD]))
        return [{"role": "user", "content": content}]

    def _checked(
        self, answer: Mapping[str, list[Any]], missing: Sequence[int]
    ) -> tuple[dict[int, str], list[str]]:
        """The things that stand in exactly one well-named group, and all that is wrong."""
        problems = []
        groups: dict[int, set[str]] = defaultdict(set)
        by_name = {same_text_key(self.things[n]): n for n in missing}
        for raw, members in answer.items():
            name = tidy(raw)
            problem = self._name_problem(name)
            if problem:
                problems.append(problem)
                continue
            name = self.names.setdefault(same_text_key(name), name)
            for member in members:
                number = _number(member, missing, by_name)
                if number is None:
                    problems.append(f"group {name!r} holds {str(member)[:MAX_NAME]!r}: not asked")
                else:
                    groups[number].add(name)
        good = {}
        for number, names in groups.items():
            if len(names) == 1:
                good[number] = names.pop()
            else:
                listed = ", ".join(sorted(names))
                problems.append(f"{self.things[number]!r} is in {len(names)} groups: {listed}")
        return good, problems

    def _name_problem(self, name: str) -> str | None:
        if not name or not slug(name):
            return f"a group is called {name!r}"
        if problem := text_problem(name, "the name of a group", MAX_NAME):
            return problem
        if same_text_key(name) in self.taken:
            return f"a group is called {name!r} like one of the things"
        return None


def _parse(text: str) -> dict[str, list[Any]]:
    """The groups of an answer: its outermost braces, whatever is around them.

    Raises:
        ValueError: No JSON object of lists.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("there is no object in it")

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, list[Any]]:
        # A name that occurs twice is one group.
        merged: dict[str, list[Any]] = defaultdict(list)
        for name, members in pairs:
            if not isinstance(members, list):
                raise ValueError(f"{name[:MAX_NAME]!r} does not hold a list")
            merged[name] += members
        return dict(merged)

    try:
        answer = json.loads(text[start : end + 1], object_pairs_hook=collect)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(answer, dict) or not answer:
        raise ValueError("it holds no groups")
    return answer


def _number(member: object, missing: Sequence[int], by_name: Mapping[str, int]) -> int | None:
    """Which thing a member of a group is: by its number in the question, or by its name."""
    if isinstance(member, str):
        text = member.strip()
        if not (text.isascii() and text.isdecimal() and len(text) < 7):
            return by_name.get(same_text_key(text))
        member = int(text)
    if isinstance(member, bool) or not isinstance(member, int):
        return None
    return missing[member - 1] if 1 <= member <= len(missing) else None


def _nodes(labels: LabelSet, levels: Sequence[Sequence[str]]) -> list[Node]:
    """The leaves and the groups as nodes, each group named within its level."""
    taken = {*labels.ids}
    root = _free("root", taken)
    nodes = [Node(id=root, name="anything")]
    above: dict[str, str] = {}  # ids of the groups of the level above
    for depth in reversed(range(len(levels))):
        ids: dict[str, str] = {}
        further = levels[depth + 1] if depth + 1 < len(levels) else None
        for place, name in enumerate(dict.fromkeys(levels[depth])):
            parent = None if further is None else further[place]
            if parent is not None and same_text_key(parent) == same_text_key(name):
                ids[name] = above[parent]  # one kind, told twice
                continue
            ids[name] = _free(slug(name), taken)
            parent_id = root if parent is None else above[parent]
            nodes.append(Node(id=ids[name], name=name, parent_id=parent_id))
        above = ids
    for position, label in enumerate(labels):
        nodes.append(
            Node(
                id=label.id,
                parent_id=above[levels[0][position]] if levels else root,
                name=label.name,
                synset=label.synset,
                prompt=label.prompt,
                aliases=label.aliases,
            )
        )
    return nodes


def _free(wanted: str, taken: set[str]) -> str:
    """An id that nobody has yet."""
    free, number = wanted, 1
    while free in taken:
        number += 1
        free = f"{wanted}-{number}"
    taken.add(free)
    return free
