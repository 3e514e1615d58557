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

from pydantic import TypeAdapter, ValidationError

from selfscale.config import unknown
from selfscale.errors import UserError
from selfscale.files import content

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

    def own_code(self, name: str, where: str) -> str:
        """`code_of` a function that is named by its import path; empty for a registered one."""
        return code_of(self.resolve(name, where)) if ":" in name else ""

    def resolve(self, name: str, where: str) -> Function:
        """The function of that name, or the one at an import path `module:function`.

        `where` is the setting's key. Raises UserError if there is no such function.
        """
        if ":" in name:
            return typing.cast(Function, _imported(name, where))
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


def code_of(function: Callable[..., Any]) -> str:
    """A hash of the modules in the folder where the function is defined; empty if it has no source."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # written in C
        source = None
    return content(Path(source).parent, "*.py") if source else ""


def check_arguments(
    where: str, function: Callable[..., Any], arguments: Mapping[str, Any], given: int
) -> dict[str, Any]:
    """The keyword arguments as the types that the signature of `function` asks for.

    `given` is the number of leading parameters that the program itself passes. Values are checked
    as JSON is: a list may become a tuple, but a string never becomes a number. Raises UserError,
    with `where` as the setting's key, for an unknown, missing or mistyped argument.
    """
    called = getattr(function, "__name__", where)
    try:
        parameters = list(inspect.signature(function).parameters.values())[given:]
    except ValueError as error:  # some functions that are written in C
        raise UserError(f"{where}: {called} does not tell its arguments; wrap it in a function") from error
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in arguments:
        if name not in named and not takes_any:
            raise UserError(
                unknown(where, name, named)
                if named
                else f"{where}: '{name}' is unknown; {called} takes no arguments"
            )
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise UserError(f"{where}: '{name}' is missing; {called} cannot do without it")
    return {
        name: _checked(f"{where}.{name}", function, named[name], value) if name in named else value
        for name, value in arguments.items()
    }


def _checked(where: str, function: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> Any:
    if parameter.annotation is parameter.empty:
        return value
    try:
        return TypeAdapter(annotation_of(function, parameter)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {problem[0].lower()}{problem[1:]}, not {value!r}") from error
    except (TypeError, NameError) as error:  # a value that JSON lacks (a date); a type never imported
        raise UserError(f"{where}: {value!r} cannot be checked: {error}") from error


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """One parameter's type; the others may name types that are imported for type checkers only."""
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    function = inspect.unwrap(getattr(function, "func", function))  # also behind functools.partial
    scope = getattr(function, "__globals__", {})
    return typing.get_type_hints(alone, globalns=scope, include_extras=True)[parameter.name]


def _imported(path: str, where: str) -> Callable[..., Any]:
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
    except Exception as error:  # the user's own code, which may raise anything when it is imported
        raise UserError(f"{where}: importing '{name}' failed: {type(error).__name__}: {error}") from error
