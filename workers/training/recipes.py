"""What can be trained: recipes by name, and a run of one as hyperparameters ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from atelier.contract.errors import InvalidRequest, UnknownName
from workers.training.demo import recipe as demo
from workers.training.demo.state import Clock

Train = Callable[[Any, Path, Path, Clock], bool]
"""(options, folder of the model, folder of the state, clock) -> whether it is done; False: time ran out."""


@dataclass(frozen=True)
class Recipe:
    """A way to train: the model of its hyperparameters, which has a field `minutes`, and what trains."""

    options: type[BaseModel]
    train: Train


RECIPES: Mapping[str, Recipe] = {"demo": Recipe(demo.DemoOptions, demo.run)}


@dataclass(frozen=True)
class Run:
    """A recipe with its options."""

    recipe: str
    options: Any
    train: Train

    def into(self, model: Path, state: Path, clock: Clock) -> bool:
        """Train. Files of the model go to `model`; what a later run goes on from is in `state`."""
        return self.train(self.options, model, state, clock)

    @property
    def minutes(self) -> float:
        """How long the run may take."""
        return float(self.options.minutes)


def parse(hyperparameters: Mapping[str, Any], recipes: Mapping[str, Recipe] = RECIPES) -> Run:
    """The run that `hyperparameters` ask for: `recipe` names it, the others are its options, as numbers or
    as text. Raises UnknownName and InvalidRequest, naming what is wrong.
    """
    given = {name: value for name, value in hyperparameters.items() if name != "recipe"}
    named = hyperparameters.get("recipe")
    if not isinstance(named, str):
        raise InvalidRequest(
            f"The hyperparameter `recipe` is missing: it says what to train. There are: {', '.join(recipes)}."
        )
    if named not in recipes:
        raise UnknownName.of("recipe", named, recipes)
    try:
        options = recipes[named].options.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidRequest(f"Hyperparameters of the recipe {named!r} cannot be used. {faults}.") from error
    return Run(named, options, recipes[named].train)
