"""Functions chosen by name in the settings: registered ones, and the user's own by import path."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, Field, ValidationError, create_model

from selfscale.errors import UserError, reason, shown, unknown

Function = TypeVar("Function", bound=Callable[..., Any])


class Registry(Generic[Function]):
    """The functions of one kind, by name.

    Example::

        OPERATORS: Registry[Callable[..., Any]] = Registry("operator")

        @OPERATORS.register
        def sobel(image): ...

        OPERATORS.resolve("sobel", where="tasks.edges.operator")
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._functions: dict[str, Function] = {}

    def register(self, function: Function) -> Function:
        """Make `function` known by its own name; a name is given once."""
        name = function.__name__
        if name in self._functions:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._functions[name] = function
        return function

    @property
    def names(self) -> list[str]:
        return sorted(self._functions)

    def resolve(self, name: str, where: str) -> Function:
        """The function of that name, or the one at an import path `module:function`.

        `where` is the setting's key. Raises UserError if there is no such function.
        """
        if ":" in name:
            return typing.cast(Function, imported(name, where))
        if name not in self._functions:
            raise UserError(f"{unknown(where, name, self.names)}, or an import path 'module:function'")
        return self._functions[name]

    def bind(self, name: str, arguments: Mapping[str, Any], where: str) -> Callable[..., Any]:
        """The function of that name or import path with keyword arguments, checked; see `resolve`.

        `where` is the key of the section with `select` and `arguments`. The program passes one more
        argument, the first. Raises UserError if it takes no such arguments.
        """
        function = self.resolve(name, f"{where}.select")
        return partial(function, **check_arguments(f"{where}.arguments", function, arguments, given=1))


def check_arguments(
    where: str, function: Callable[..., Any], arguments: Mapping[str, Any], given: int
) -> dict[str, Any]:
    """The keyword arguments as the types that the signature of `function` asks for.

    Values are checked as JSON is: a list may become a tuple, but a string never becomes a number.

    Args:
        where: the setting's key, for messages.
        given: how many leading parameters the program itself passes.

    Raises:
        UserError: an argument is unknown, missing or mistyped.
    """
    called = getattr(function, "__name__", where)
    try:
        parameters = list(inspect.signature(function).parameters.values())[given:]
    except ValueError as error:  # some functions that are written in C
        raise UserError(f"{where}: {called} does not tell its arguments; wrap it in a function") from error
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    typed = {name for name, p in named.items() if p.annotation is not p.empty and name in arguments}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    config = ConfigDict(strict=True, extra="ignore" if takes_any else "forbid", arbitrary_types_allowed=True)
    try:
        # Prefixed, since a field may not have the name of a model's own attribute.
        fields: dict[str, Any] = {
            f"its_{name}": (
                annotation_of(function, p) if name in typed else Any,
                Field(... if p.default is p.empty else None, alias=name),
            )
            for name, p in named.items()
        }
        model = create_model("Arguments", __config__=config, **fields)
        checked = model.model_validate_json(json.dumps(arguments, default=str))
    except ValidationError as error:
        # A mistyped name also shows as a missing one: name what was written before what was not.
        problem = min(error.errors(), key=lambda problem: problem["loc"][0] in named)
        name, message = str(problem["loc"][0]), problem["msg"].removeprefix("Value error, ")
        if name not in named:
            none = f"{where}: '{name}' is unknown; {called} takes no arguments"
            raise UserError(unknown(where, name, named) if named else none) from error
        if name not in arguments:
            raise UserError(f"{where}: '{name}' is missing; {called} cannot do without it") from error
        raise UserError(
            f"{where}.{name}: {message[0].lower()}{message[1:]}, not {shown(arguments[name])}"
        ) from error
    except Exception as error:  # of a user's own annotations; or a mapping has keys that JSON lacks
        raise UserError(f"{where}: {called} cannot be checked: {reason(error)}") from error
    return {name: getattr(checked, f"its_{name}") if name in typed else arguments[name] for name in arguments}


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """One parameter's type; the others may name types that are imported for type checkers only."""
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    function = inspect.unwrap(getattr(function, "func", function))  # also behind functools.partial
    scope = getattr(function, "__globals__", {})
    return typing.get_type_hints(alone, globalns=scope, include_extras=True)[parameter.name]


def imported(path: str, where: str) -> Callable[..., Any]:
    """The function at an import path `module:function`; UserError if there is none."""
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise UserError(f"{where}: '{path}' is not an import path; write 'module:function'")
    module = _module(module_name, where)
    function = getattr(module, name, None)
    if function is None:
        own = [n for n, f in vars(module).items() if callable(f) and not n.startswith("_")]
        raise UserError(unknown(where, name, own))
    if not callable(function):
        raise UserError(f"{where}: '{path}' is not a function but of type {type(function).__name__}")
    return typing.cast(Callable[..., Any], function)


def _module(name: str, where: str) -> ModuleType:
    # At the end of the path: a user's `random.py` must not take the place of an installed module.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{where}: there is no module '{error.name}', neither in {here} nor installed"
            ) from error
        raise UserError(f"{where}: importing '{name}' failed: {error}; install it") from error
    except (Exception, SystemExit) as error:  # the user's own code, which may do anything when imported
        raise UserError(f"{where}: importing '{name}' failed: {type(error).__name__}: {error}") from error
