"""Template sets and the articles of our own."""

from __future__ import annotations

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip import zero_shot_metadata

from robustzs.errors import TemplateError
from robustzs.labels import LabelSet, TemplateSet, get_templates
from robustzs.labels.articles import with_article
from robustzs.labels.rules import text_problem
from robustzs.labels.templates import TEMPLATE_SETS


def test_openai_templates_are_verbatim() -> None:
    for name, theirs in {
        "openai-imagenet-80": open_clip.OPENAI_IMAGENET_TEMPLATES,
        "openai-7": zero_shot_metadata.SIMPLE_IMAGENET_TEMPLATES,
    }.items():
        ours = get_templates(name)
        assert ours.templates == tuple(template("{}") for template in theirs)
        for prompt in ("tench", "otter", "a {} b"):
            assert ours.fill(prompt) == [template(prompt) for template in theirs]
    assert len(get_templates("openai-imagenet-80")) == 80


def test_the_small_sets() -> None:
    assert get_templates("single").fill("cat") == ["a photo of a cat."]
    assert get_templates("paper").fill("cat") == ["This is a photo of a cat"]
    assert get_templates("name").fill("cat") == ["cat"]
    assert get_templates("articles").fill("otter")[0] == "a photo of an otter."
    assert get_templates("articles").fill("sunglasses")[0] == "a photo of sunglasses."


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_every_named_set_loads_and_has_its_own_digest(name: str) -> None:
    templates = get_templates(name)
    assert templates.name == name
    assert templates is get_templates(name)
    others = {get_templates(other).digest for other in TEMPLATE_SETS if other != name}
    assert templates.digest not in others


@pytest.mark.parametrize(
    ("template", "prompt", "filled"),
    [
        ("{} and {}", "cat", "cat and cat"),
        ("{} {0}", "cat", "cat {0}"),
        ("{}{name.__class__}", "cat", "cat{name.__class__}"),
        ("{{}}", "cat", "{cat}"),
        ("{{{}}}", "cat", "{{cat}}"),
        ("a {}", "{}", "a {}"),
        ("a {}", "{0.__class__}", "a {0.__class__}"),
        ("{} {!r} {:>9}", "x", "x {!r} {:>9}"),
        ("{} %s $x", r"\1", r"\1 %s $x"),
        ("{}{}", "{}{}", "{}{}{}{}"),
    ],
)
def test_filling_is_literal(template: str, prompt: str, filled: str) -> None:
    assert get_templates(template).fill(prompt) == [filled]


@given(st.text(), st.lists(st.text(), min_size=2, max_size=5))
def test_filling_is_joining_at_the_marks(prompt: str, pieces: list[str]) -> None:
    template = "{}".join(pieces)
    expected = prompt.join(template.split("{}"))
    if text_problem(template, "template"):
        with pytest.raises(TemplateError, match=r"control character|surrogate"):
            TemplateSet("custom", (template,))
    else:
        assert TemplateSet("custom", (template,)).fill(prompt) == [expected]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("openai-79", "'openai-79' is neither a template .* nor a set"),
        ("a photo", "neither a template"),
        ("a photo of {0}", "neither a template"),
        ("", "neither a template"),
        ([], "at least one"),
        (["a {}", "b"], "template 2 has no literal"),
        (["a {}", "b {}", "a {}"], "template 3 repeats template 1"),
        (["a {}\n"], r"template 1 contains the control character U\+000A"),
        (["{}" + "x" * 600], "template 1 has 602 characters"),
        ([f"{i} {{}}" for i in range(1001)], "1001 templates, the limit is 1000"),
    ],
)
def test_unfit_templates_are_refused(spec: str | list[str], words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        get_templates(spec)


def test_misuse_from_code_is_refused() -> None:
    with pytest.raises(TemplateError, match="not a list of templates"):
        TemplateSet("custom", "a {}")  # type: ignore[arg-type]
    with pytest.raises(TemplateError, match="template 1 is not a text"):
        TemplateSet("custom", (b"a {}",))  # type: ignore[arg-type]


def test_the_digest_covers_templates_order_and_articles() -> None:
    variants = [
        TemplateSet("x", ("a {}", "b {}")),
        TemplateSet("x", ("b {}", "a {}")),
        TemplateSet("x", ("a {}",)),
        TemplateSet("x", ("a {}",), article=True),
    ]
    assert len({each.digest for each in variants}) == len(variants)
    assert TemplateSet("y", ("a {}",)).digest == variants[2].digest


WITH_A = """
    unicorn; uniform; unicycle; university; union; unit; unanimous vote; unimog; user;
    urinal; uranium; utensil; uvula; ukulele; usual suspect; one-piece suit; onesie;
    eucalyptus; ewe; European hare; hen; hotel; T-shirt; U-boat; USB stick; NASA rocket;
    UFO; yak; 1980s car; 7-segment display; bus; walrus; hippopotamus; glass; lens;
    triceratops; mantis; colobus; gas mask; box of eggs; kite (bird of prey); potter's
    wheel; CD player; once-over; boss
"""
WITH_AN = """
    otter; umbrella; hour; hourglass; heirloom; honest man; urchin; urn; udder; usher;
    uninhabited island; unidentified object; X-ray; MRI scan; SUV; F-16; 8-ball; 11-sided
    die; 18-wheeler; 80s car; iPod; électricien; ylang-ylang; ear; octopus; impala
    (antelope); OX; LED lamp; acorn; onion; abacus
"""
WITHOUT = """
    sunglasses; jeans; binoculars; buses; hay; guacamole; chain mail; mashed potatoes;
    people; children; geese; swim trunks / shorts; my cat; the Eiffel Tower; two dogs; a
    dog; red wine; pairs of shoes; ice cream; parallel bars
"""


def words_of(text: str) -> list[str]:
    return [" ".join(words.split()) for words in text.split(";")]


@pytest.mark.parametrize("phrase", words_of(WITH_A))
def test_a(phrase: str) -> None:
    assert with_article(phrase) == f"a {phrase}"


@pytest.mark.parametrize("phrase", words_of(WITH_AN))
def test_an(phrase: str) -> None:
    assert with_article(phrase) == f"an {phrase}"


@pytest.mark.parametrize("phrase", words_of(WITHOUT))
def test_no_article(phrase: str) -> None:
    assert with_article(phrase) == phrase


def test_imagenet_prompts_that_go_without_an_article() -> None:
    bare = {p for p in LabelSet.imagenet1k().prompts if with_article(p) == p}
    assert bare == {
        *("binoculars", "chain mail", "clogs", "face powder", "hair spray", "jeans", "tights"),
        *("pajamas", "parallel bars", "sunglasses", "sunscreen", "swim trunks / shorts"),
        *("velvet fabric", "wool", "guacamole", "consomme", "ice cream", "mashed potatoes"),
        *("broccoli", "hay", "chocolate syrup", "dough", "red wine", "espresso", "eggnog"),
        *("corn", "toilet paper"),
    }


@given(st.text())
def test_any_phrase_keeps_its_text(phrase: str) -> None:
    assert with_article(phrase) in (phrase, f"a {phrase}", f"an {phrase}")
