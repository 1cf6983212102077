"""The ``advantages`` section of the settings: an estimator by its type, and its parameters.

There is no list of estimators here: the type is looked up in :data:`hiper.advantages.ESTIMATORS`, or imported if it is
"module:Class". Pydantic checks the parameters against the fields of the estimator's class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    PydanticUserError,
    SerializationInfo,
    TypeAdapter,
)

from hiper.advantages import HAE, Estimator, find_estimator
from hiper.errors import UserError


def parameters_of(name: str) -> list[str]:
    """Return the names of the parameters of the estimator of that type.

    Raises:
        UserError: There is no such estimator.
    """
    return [field.name for field in dataclasses.fields(find_estimator(name))]


def _read(section: Any) -> Estimator:
    """Make the estimator of a section, or check that one can be saved by its type."""
    if isinstance(section, Estimator):
        if find_estimator(section.type) is not type(section):
            raise UserError(f"'{section.type}' is another class than {type(section)}: it could not be loaded again")
        return section
    if not isinstance(section, Mapping):
        raise UserError(f"a section is needed, as in advantages='{{type: {HAE.type}}}'")
    parameters = dict(section)
    name = str(parameters.pop("type", HAE.type))
    # The name is a key of what pydantic checks, so that it is part of the place of an error.
    return _adapter(find_estimator(name)).validate_python({name: parameters})[name]


@cache
def _adapter(kind: type[Estimator]) -> TypeAdapter[dict[str, Estimator]]:
    """Return the check of parameters, given below the estimator's name. Unknown ones are refused."""
    try:
        return TypeAdapter(dict[str, kind], config=ConfigDict(extra="forbid"))  # type: ignore[valid-type]
    except PydanticUserError as error:
        raise UserError(f"estimator '{kind.__name__}' has a parameter whose type cannot be checked: {error}") from error


def _written(estimator: Estimator, info: SerializationInfo) -> dict[str, Any]:
    """Return the section: the type first, then every parameter."""
    name = estimator.type
    mode: Literal["json", "python"] = "json" if info.mode_is_json() else "python"
    parameters = _adapter(type(estimator)).dump_python({name: estimator}, mode=mode)[name]
    return {"type": name, **parameters}


AdvantageConfig: TypeAlias = Annotated[Estimator, PlainValidator(_read), PlainSerializer(_written)]
"""An estimator, chosen by ``type``. The other keys are its parameters, whose defaults are in its class."""
