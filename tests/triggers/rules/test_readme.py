"""The rules' README says what is in force."""

from pathlib import Path

from triggers.rules import functions, grammar
from triggers.rules.place import Place
from triggers.rules.shape import read_shapes
from triggers.yamlfile import Problem, read

README = (Path(grammar.__file__).with_name("README.md")).read_text()


def test_its_example_has_the_shape_of_a_rule_file() -> None:
    example = README.split("```yaml\n")[1].split("```")[0]
    problems: list[Problem] = []
    _, shapes = read_shapes(Place(read(example, "README.md"), (), problems, []))
    assert problems == []
    assert list(shapes) == ["score-new-users"]


def test_it_names_every_key_filter_function_and_missing_verb() -> None:
    words = [f"`{name}(" for name in functions.OURS]
    words += [f"`{event}`" for event in grammar.FILTERS]
    words += [f"`{name}`" for filters in grammar.FILTERS.values() for name in filters if name != "labels"]
    words += [verb.rpartition("=")[2].rpartition(".")[2] for verb in grammar.NOT_BUILT]
    for shape in (grammar.RuleShape, grammar.RunShape, grammar.LimitsShape):
        words += [f"{name}`" for name in shape.model_fields if name not in ("run", "limits")]
    assert [word for word in words if word not in README] == []
