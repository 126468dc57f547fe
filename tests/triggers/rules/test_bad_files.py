"""A rule file with a mistake earns exactly the complaint beside it: `bad/<mistake>.yaml`, `bad/<mistake>.txt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triggers.yamlfile import Problems

BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("mistake", sorted(file.stem for file in BAD.glob("*.yaml")))
def test_a_mistake_earns_its_complaint(mistake: str, load: Callable[..., Any]) -> None:
    file = BAD / f"{mistake}.yaml"
    with pytest.raises(Problems) as caught:
        load(file.read_text(), file=file.name)
    assert str(caught.value) + "\n" == file.with_suffix(".txt").read_text()


def test_every_complaint_has_its_mistake() -> None:
    assert {file.stem for file in BAD.glob("*.txt")} == {file.stem for file in BAD.glob("*.yaml")}
