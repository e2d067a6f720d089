"""The source of a model: any nest of inputs and outputs, names that Python has taken, operators of others."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from esperd.leyline.errors import EsperdError
from esperd.tolaria.exported_graph import ExportedGraph, capture, foreign_libraries, weights
from esperd.tolaria.model_source import model_source


def built(graph: ExportedGraph) -> nn.Module:
    """The model that the source makes, from tensors instead of a file."""
    names = {weight.name: weight.name for weight in weights(graph.program)}
    namespace: dict[str, Any] = {}
    source = model_source(graph, names, about='a "quoted" \\ model\nof two lines', version="0")
    exec(compile(source, "model.py", "exec"), namespace)
    model: nn.Module = namespace["Model"]({weight.name: weight.tensor for weight in weights(graph.program)})
    return model


class Nested(nn.Module):
    """Takes and gives dictionaries, tuples, lists, numbers and None."""

    def __init__(self) -> None:
        super().__init__()
        self.lambda_ = nn.Linear(3, 3)

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        a, (b, scale) = inputs["input"], inputs["pair"]
        return {"sum": self.lambda_(a) + b * scale, "nothing": None, "more": [(a, 3), "word"], "half": float("inf")}


def test_nested_inputs_and_outputs() -> None:
    """Whatever is made of plain containers comes out as it went in."""
    inputs = {"input": torch.randn(4, 3), "pair": (torch.randn(4, 3), 2)}
    model = Nested().eval()
    graph = capture(model, inputs, 4)
    with torch.no_grad():
        expected, found = model(inputs), built(graph)(inputs)
        other = {"input": torch.randn(7, 3), "pair": (torch.randn(7, 3), 2)}
        assert torch.equal(built(graph)(other)["sum"], model(other)["sum"])
    assert graph.is_batch_dynamic
    assert found.keys() == expected.keys()
    assert torch.equal(found["sum"], expected["sum"])
    assert (found["nothing"], found["half"], found["more"][0][1]) == (None, float("inf"), 3)
    assert found["more"][1] == "word"


class Shadowing(nn.Module):
    """Inputs with the names of things that the source uses itself."""

    def forward(self, torch: Tensor) -> Tensor:
        return (torch + 1.0).sum(dim=1)


def test_names_that_python_has_taken() -> None:
    """An input that is called like a module of the source hides nothing."""
    inputs = torch.randn(4, 3)
    graph = capture(Shadowing(), inputs, 4)
    assert torch.equal(built(graph)(inputs), Shadowing()(inputs))


class Counting(nn.Module):
    """Changes a buffer in evaluation."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1.0
        return x + self.count


def test_a_buffer_that_changes_goes_on_changing() -> None:
    """A model that counts its calls counts them from its source too."""
    inputs = torch.randn(4, 3)
    rebuilt = built(capture(Counting().eval(), inputs, 4))
    with torch.no_grad():
        first, second = rebuilt(inputs), rebuilt(inputs)
    torch.testing.assert_close(second - first, torch.ones(4, 3))


class Point(NamedTuple):
    """A container of the user's own."""

    x: Tensor
    y: Tensor


class Pointing(nn.Module):
    """Gives a container that plain source cannot make."""

    def forward(self, x: Tensor) -> Point:
        return Point(x, x + 1.0)


def test_a_container_of_the_users_own_is_refused() -> None:
    """EXPORT_FAILED instead of source that would not run."""
    with pytest.raises(EsperdError, match="Point"):
        built(capture(Pointing(), torch.randn(4, 3), 4))


def test_operators_of_others_are_named() -> None:
    """Whoever loads the model must import their library first; torch's own need nothing."""
    with torch.library._scoped_library("export_test_library", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2.0, "CompositeExplicitAutograd")
        library._register_fake("twice", torch.empty_like)

        class Foreign(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.ops.export_test_library.twice(x)  # type: ignore[no-any-return]

        graph = capture(Foreign(), torch.randn(4, 3), 4)
        assert foreign_libraries(graph.program) == ["export_test_library"]
    assert foreign_libraries(capture(Shadowing(), torch.randn(4, 3), 4).program) == []


def test_the_source_names_no_place(tmp_path: Path) -> None:
    """Nothing of where it was made is in it, and it compiles with every warning an error."""
    graph = capture(Nested().eval(), {"input": torch.randn(4, 3), "pair": (torch.randn(4, 3), 2)}, 4)
    names = {weight.name: weight.name for weight in weights(graph.program)}
    source = model_source(graph, names, about="a model", version="0")
    assert "esperd." not in source
    assert str(Path(__file__).parents[3]) not in source
    compile(source, "model.py", "exec")
