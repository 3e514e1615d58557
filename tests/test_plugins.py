from __future__ import annotations

import datetime
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from selfscale.errors import UserError
from selfscale.plugins import Registry, check_arguments


def blur(
    image: object,
    sigma: Annotated[float, Field(gt=0)] = 1.0,
    mode: Literal["same", "valid"] = "same",
    window: tuple[int, int] = (3, 3),
) -> None: ...


def strength(image: object, amount: float, unchecked=None) -> None: ...


def plain(image: object) -> None: ...


def anything(image: object, **rest: object) -> None: ...


def check(function: Callable[..., Any], **arguments: object) -> dict[str, Any]:
    return check_arguments("tasks.t.arguments", function, arguments, given=1)


@pytest.fixture
def registry() -> Registry[Callable[..., Any]]:
    registry: Registry[Callable[..., Any]] = Registry("operator")
    registry.register(blur)
    return registry


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_resolves_registered_name(registry: Registry[Callable[..., Any]]) -> None:
    assert registry.resolve("blur", "tasks.t.operator") is blur
    assert registry.names == ["blur"]


def test_unknown_name_suggests_the_nearest(registry: Registry[Callable[..., Any]]) -> None:
    with pytest.raises(UserError) as error:
        registry.resolve("blurr", "tasks.t.operator")
    assert str(error.value) == (
        "tasks.t.operator: 'blurr' is unknown; did you mean 'blur'? valid: blur, or an import path "
        "'module:function'"
    )


def test_a_name_is_given_once(registry: Registry[Callable[..., Any]]) -> None:
    with pytest.raises(ValueError, match="registered twice"):
        registry.register(blur)


def test_imports_from_the_current_folder(registry: Registry[Callable[..., Any]], here: Path) -> None:
    (here / "own_operators_a.py").write_text("def emboss(image): return image\nlimit = 3\n")
    assert registry.resolve("own_operators_a:emboss", "operator")(5) == 5
    with pytest.raises(UserError, match=r"^operator: 'embos' is unknown; did you mean 'emboss'\?"):
        registry.resolve("own_operators_a:embos", "operator")
    with pytest.raises(UserError, match="'own_operators_a:limit' is not a function but of type int"):
        registry.resolve("own_operators_a:limit", "operator")


def test_own_module_does_not_hide_an_installed_one(
    registry: Registry[Callable[..., Any]], here: Path
) -> None:
    (here / "colorsys.py").write_text("raise RuntimeError('hidden')\n")
    sys.modules.pop("colorsys", None)
    assert registry.resolve("colorsys:rgb_to_hsv", "operator")(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("own_absent:f", "", "there is no module 'own_absent'"),
        ("own_b:f", "import own_absent_dependency", "No module named 'own_absent_dependency'; install it"),
        ("own_c:f", "1 / 0", "importing 'own_c' failed: ZeroDivisionError: division by zero"),
        ("own_d:f", "def f(:", "importing 'own_d' failed: SyntaxError"),
        (".own_e:f", "", "is not an import path"),
        ("own_e:", "", "is not an import path"),
    ],
)
def test_import_problems_are_one_line(
    registry: Registry[Callable[..., Any]], here: Path, path: str, source: str, message: str
) -> None:
    if source:
        (here / f"{path.split(':')[0]}.py").write_text(source)
    with pytest.raises(UserError) as error:
        registry.resolve(path, "tasks.t.operator")
    assert str(error.value).startswith("tasks.t.operator: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_arguments_become_the_types_of_the_signature() -> None:
    checked = check(blur, sigma=2, window=[5, 7])
    assert checked == {"sigma": 2.0, "window": (5, 7)}
    assert isinstance(checked["sigma"], float)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (blur, {"sigm": 1}, "'sigm' is unknown; did you mean 'sigma'? valid: mode, sigma, window"),
        (blur, {"image": 1}, "'image' is unknown; did you mean 'sigma'? valid: mode, sigma, window"),
        (plain, {"sigma": 1}, "'sigma' is unknown; plain takes no arguments"),
        (strength, {}, "'amount' is missing; strength cannot do without it"),
    ],
)
def test_wrong_names(function: Callable[..., Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(function, **arguments)
    assert str(error.value) == f"tasks.t.arguments: {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": "1.0"}, "sigma: input should be a valid number, not '1.0'"),
        ({"sigma": True}, "sigma: input should be a valid number, not True"),
        ({"sigma": 0}, "sigma: input should be greater than 0, not 0"),
        ({"sigma": float("nan")}, "sigma: input should be greater than 0, not nan"),
        ({"mode": "full"}, "mode: input should be 'same' or 'valid', not 'full'"),
        ({"window": [1]}, "window: field required, not [1]"),
        ({"window": {1, 2}}, "window: input should be a valid array, not {1, 2}"),
    ],
)
def test_wrong_types(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(blur, **arguments)
    assert str(error.value).startswith(f"tasks.t.arguments.{message}")


def test_what_the_signature_leaves_open_is_not_checked() -> None:
    assert check(anything, other="x") == {"other": "x"}
    assert check(strength, amount=1.5, unchecked="y") == {"amount": 1.5, "unchecked": "y"}


def test_parameters_named_as_a_models_own_attributes() -> None:
    def odd(image: object, schema: int, _copy: int = 1, model_config: str = "") -> None: ...

    assert check(odd, schema=1, _copy=2, model_config="a") == {"schema": 1, "_copy": 2, "model_config": "a"}


def test_a_type_that_is_never_imported() -> None:
    def hinted(image: object, known: int = 1, other: Absent = None) -> None: ...  # noqa: F821

    assert check(hinted, known=2) == {"known": 2}
    with pytest.raises(UserError, match="arguments: hinted cannot be checked: name 'Absent' is not defined"):
        check(hinted, other=3)


def test_dates_which_json_lacks() -> None:
    def dated(image: object, since: datetime.date, unchecked=None) -> None: ...

    day = datetime.date(2026, 1, 31)
    assert check(dated, since=day, unchecked=day) == {"since": day, "unchecked": day}
    with pytest.raises(UserError, match=r"since: input should be a valid date.*, not 'x'"):
        check(dated, since="x")


def test_partial_functions_and_functions_in_c() -> None:
    assert check(functools.partial(blur, mode="valid"), sigma=2) == {"sigma": 2.0}
    with pytest.raises(UserError, match=r"^tasks\.t\.arguments: 'x' is unknown"):
        check(functools.partial(plain), x=1)
    with pytest.raises(UserError, match="min does not tell its arguments; wrap it in a function"):
        check(min)
