"""Prompt formats of one's own as TOML and JSON files: what they become, and what is refused."""

import json
import re

import pytest

from jelicit.data import registry
from jelicit.data.format_files import KEYS, REQUIRED
from jelicit.data.formats import BASE_FORMATS, PromptFormat
from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, contrast_pair, few_shot, get_format, zero_shot

ITEM = Item(id="a", question="Capital of France?", choice="Paris {sic}", label=True)
TOML = '''
name = "exam"
text = """
Exam question: {question}
A pupil writes: {choice}
The pupil's answer is"""
true_word = " right"
false_word = " wrong"
system = "You mark exams."
'''
SAID = {
    "name": "exam",
    "text": "Exam question: {question}\nA pupil writes: {choice}\nThe pupil's answer is",
    "true_word": " right",
    "false_word": " wrong",
    "system": "You mark exams.",
}


@pytest.fixture
def write(tmp_path):
    def write(said: dict | str, name: str = "mine.json") -> str:
        path = tmp_path / name
        text = said if isinstance(said, str) else json.dumps(said)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return str(path)

    return write


def test_a_toml_and_a_json_file_of_one_format_are_that_format(write):
    expected = PromptFormat(**SAID)
    assert get_format(write(TOML, "mine.toml")) == expected
    assert get_format(write(SAID)) == expected
    assert get_format(write("\ufeff" + TOML.replace("\n", "\r\n"), "MINE.TOML")) == expected
    assert get_format(write({**SAID, "third_word": None})) == expected


def test_zero_shot_few_shot_and_contrast_pairs_are_made_of_it(write):
    path = write(TOML, "mine.toml")
    text = "Exam question: Capital of France?\nA pupil writes: Paris {sic}\nThe pupil's answer is"
    whole = "You mark exams.\n\n" + text
    assert zero_shot(ITEM, path) == whole
    assert contrast_pair(ITEM, path) == (whole + " right", whole + " wrong")
    shown = few_shot(ITEM, [(ITEM, True), (ITEM, False)], path)
    assert shown == ("You mark exams.\n\n", text + " right\n\n", text + " wrong\n\n", text)


def test_nobody_knows_it_by_its_name(write):
    before = dict(registry.formats())
    get_format(write(SAID))
    assert "exam" not in FORMATS
    assert dict(registry.formats()) == before
    other = get_format(write({**SAID, "text": "{choice}: this is"}, "other.json"))
    assert other.text == "{choice}: this is"  # two files may share a name, in two runs


def test_every_format_that_ships_can_be_written_down(write):
    for form in FORMATS.values():
        said = {key: getattr(form, key) for key in KEYS}
        assert get_format(write(said)) == form, form.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"txt": "x"}, "key 'txt' is unknown; allowed: name, text, true_word, false_word, third"),
        ({"name": ...}, "key 'name' is missing; needed: name, text"),
        ({"text": ...}, "key 'text' is missing; needed: name, text"),
        ({"text": 3}, "key 'text' is 3 (int); allowed: a text"),
        ({"system": None}, "key 'system' is None (NoneType); allowed: a text"),
        ({"third_word": ["x"]}, "(list); allowed: a text"),
        ({"name": "my own"}, "key 'name' is 'my own'; allowed: letters, digits and . _ - + /"),
        ({"name": ""}, "key 'name' is ''; allowed: letters"),
        ({"target": " "}, "key 'target' is empty; allowed: label, or the name of another"),
        ({"text": "Q: question, A: choice. It is"}, "has the fields (); allowed: question, choice"),
        ({"text": "{claim} is"}, "has the fields ('claim',); allowed: question, choice, choice_2"),
        ({"text": "{question} is"}, "of which choice is required; write {question}, {choice}"),
        ({"text": "{choice is"}, "key 'text': expected '}' before end of string; write {question}"),
        ({"text": "{choice}} is"}, "key 'text': Single '}' encountered in format string"),
        ({"text": "{choice!r} is"}, "the field 'choice' is shown as it is; leave out what follows"),
        ({"text": "{choice:.3} is"}, "the field 'choice' is shown as it is; leave out what follo"),
        ({"text": "{choice.id} is"}, "has the fields ('choice.id',)"),
        ({"text": " {choice} is"}, "the text starts with space"),
        ({"system": "Of {question}:"}, "key 'system' has {question}, but items are shown in 'tex"),
        ({"true_word": " {choice}"}, "key 'true_word' has {choice}, but items are shown in 'text'"),
        ({"system": "\ud83d"}, "key 'system' holds half a character"),
        ({"system": " \n"}, "key 'system' is white space; leave it out"),
        ({"true_word": ""}, "key 'true_word' is ''; allowed: a word"),
        ({"third_word": " "}, "key 'third_word' is ' '; allowed: a word"),
        ({"text": "{choice} is "}, "'text' ends in white space and 'true_word' (' right') begins"),
        ({"text": "{choice} is\n"}, 'put the closing """ right after it)'),
        ({"false_word": "wrong"}, "key 'false_word' is 'wrong' and 'text' ends in ' answer is'"),
        ({"text": "{choice} is right"}, "key 'text' ends in the verdict 'right'; it must end just"),
        ({"text": "{choice} is wrong "}, "'text' ends in white space"),
        ({"false_word": " Right"}, "two of the verdicts ' right', ' Right' are the same word"),
        ({"third_word": " wrong"}, "are the same word; tell them apart"),
        ({"false_word": " right, no"}, "is the beginning of the other, so whatever follows"),
        ({"false_word": " right"}, "both verdicts are ' right'"),
    ],
)
def test_what_no_prompt_can_be_made_of_is_refused_by_file_and_key(write, changes, message):
    said = {key: value for key, value in {**SAID, **changes}.items() if value is not ...}
    path = write(said)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        get_format(path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("name = 'a'\nname = 'b'", "a.toml", "is no TOML: Cannot overwrite a value"),
        ("name: a", "a.toml", "is no TOML: "),
        ("{'name': 1}", "a.json", "is no JSON: "),
        ('{"name": "a", "name": "b"}', "a.json", "is no JSON: the key 'name' is there twice"),
        ('["a"]', "a.json", "holds a list; allowed: an object with the keys name, text"),
        ("[format]\nname = 'a'", "a.toml", "key 'format' is unknown; allowed: name, text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(write, text, name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        get_format(write(text, name))


def test_no_file_a_folder_and_bytes_are_refused(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    for name in ("nothing.toml", "folder.toml"):
        with pytest.raises(ValueError, match=rf"{name}': there is no such file"):
            get_format(str(tmp_path / name))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        get_format(str(tmp_path / "bytes.json"))


def test_the_name_of_a_known_format_is_taken_unless_it_is_that_format(write):
    claim = BASE_FORMATS["claim"]
    said = {"name": "claim", "text": claim.text, "third_word": claim.third_word}
    assert get_format(write(said)) == claim
    with pytest.raises(ValueError, match=r"mine\.json': the name 'claim' is another format's"):
        get_format(write({**said, "text": claim.text + " clearly"}))
    with pytest.raises(ValueError, match="the name 'liar/truth' is another format's"):
        get_format(write({**said, "name": "liar/truth"}))


def test_a_text_without_spaces_between_words_may_end_in_a_letter(write):
    form = get_format(write({**SAID, "text": "{choice}这个说法是", "true_word": "真"}))
    assert contrast_pair(ITEM, form)[0].endswith("这个说法是真")


def test_a_format_by_reference_is_checked_in_the_same_way_and_then_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_own_formats", {})
    path = tmp_path / "own.py"
    path.write_text(
        "from jelicit.data import PromptFormat\n"
        "SPACED = PromptFormat(name='spaced', text='{choice} is ')\n"
    )
    with pytest.raises(ValueError, match=r"own\.py:SPACED': key 'text' ends in white space"):
        get_format(f"{path}:SPACED")
    assert "spaced" not in FORMATS


def test_what_a_file_may_say_is_what_a_format_has():
    assert REQUIRED == ("name", "text")
    assert set(KEYS) == set(PromptFormat.__dataclass_fields__)
