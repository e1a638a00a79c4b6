"""Command-line options as dataclasses: a verb names them, and gets one instance of each.

    @with_options(Rows, Places, required=("suite",))
    def plan(rows: Rows, places: Places) -> None: ...

Every field made by `harness.planning.request.option` is an option; the class attribute `panel` is the heading
above them in `--help`. The same fields turn a request back into the words of a command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from harness.cli.completion import completer
from harness.cli.hints import shell_words
from harness.planning.request import Request
from results.addresses import shown_address


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of an options dataclass as a parameter of a command."""

    field: dataclasses.Field[Any]
    kind: type
    default: Any
    help: str
    required: bool = False

    @property
    def name(self) -> str:
        """Name of the parameter, unique among the dataclasses of a verb."""
        return f"{self.kind.__name__}_{self.field.name}".lower()

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags as declared, or made of the field's name."""
        name = self.field.name.replace("_", "-")
        return self.field.metadata["flags"] or (f"--{name}",)

    @property
    def repeated(self) -> bool:
        """Whether the field is a tuple, so that the option may be given several times."""
        return isinstance(self.field.default, tuple)

    @property
    def parameter(self) -> inspect.Parameter:
        """The parameter that Typer reads."""
        info = typer.Option(
            *self.flags,
            help=self.help,
            min=self.field.metadata["low"],
            metavar=self.field.metadata["metavar"] or self._metavar,
            rich_help_panel=getattr(self.kind, "panel", None),
            autocompletion=completer(self.field.name),
        )
        annotation = list[str] if self.repeated else typing.get_type_hints(self.kind)[self.field.name]
        default = list(self.default) if self.repeated else self.default
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.required else default,
            annotation=Annotated[annotation, info],
        )

    @property
    def _metavar(self) -> str:
        """What `--help` shows in the place of a value: nothing beside a switch."""
        if isinstance(self.field.default, bool):
            return ""
        number = isinstance(self.field.default, int) or self.field.metadata["low"] is not None
        return "N" if number else "TEXT"

    def value(self, typed: Any) -> Any:
        """What the field holds for what was typed; comma-separated words become a tuple."""
        if not self.repeated:
            return typed
        return tuple(_words(typed) if self.field.metadata["commas"] else typed)

    def words(self, value: Any) -> list[str]:
        """The option as one types it to get this value; the password of an address is left out."""
        flag, _, negative = self.flags[0].partition("/")
        if isinstance(value, bool):
            return [flag if value else negative]
        if not self.repeated:
            return [flag, shown_address(value) if isinstance(value, str) and "://" in value else str(value)]
        texts = [",".join(value)] if self.field.metadata["commas"] else value
        return [word for text in texts for word in (flag, text)]


Verb = Callable[..., None]


def with_options(
    *kinds: type,
    only: Collection[str] = (),
    without: Collection[str] = (),
    required: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    helps: Mapping[str, str] | None = None,
) -> Callable[[Verb], Verb]:
    """Make a Typer command of a verb that takes one instance of each dataclass, in this order.

    `only` or `without` choose among the fields, the others keep their defaults; `required` ones have to be
    given; `defaults` and `helps` replace what a field declares. Further parameters of the verb are Typer's.
    """
    defaults, helps = defaults or {}, helps or {}
    declared = {option.field.name: option for kind in kinds for option in options_of(kind)}
    unknown = {*only, *without, *required, *defaults, *helps} - set(declared)
    if unknown:
        raise TypeError(f"no such option field: {', '.join(sorted(unknown))}")
    chosen = [
        dataclasses.replace(
            option,
            default=defaults.get(name, option.default),
            help=helps.get(name, option.help),
            required=name in required,
        )
        for name, option in declared.items()
        if name not in without and (not only or name in only)
    ]
    return lambda verb: _command(verb, kinds, chosen)


def _command(verb: Verb, kinds: Sequence[type], options: Sequence[Option]) -> Verb:
    """The verb as a function whose parameters are the options, followed by the verb's own."""

    def command(**typed: Any) -> None:
        values: dict[type, dict[str, Any]] = {kind: {} for kind in kinds}
        for option in options:
            values[option.kind][option.field.name] = option.value(typed.pop(option.name))
        verb(*(kind(**values[kind]) for kind in kinds), **typed)

    own = list(inspect.signature(verb, eval_str=True).parameters.values())[len(kinds) :]
    parameters = [option.parameter for option in options]
    parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def options_of(kind: type) -> Iterator[Option]:
    """The options that a dataclass declares; fields that are not made by `option` are left out."""
    for field in dataclasses.fields(kind):
        if "flags" in field.metadata:
            yield Option(field, kind, field.default, field.metadata["help"])


def typed_again(part: object) -> list[str]:
    """The words that give this instance of an options dataclass: every option that is not at its default."""
    given = ((option, getattr(part, option.field.name)) for option in options_of(type(part)))
    return [word for option, value in given if value != option.default for word in option.words(value)]


def narrowing(request: Request, *more: object) -> str:
    """The options that choose a request's rows and places, and those of `more`, quoted for a shell."""
    parts: tuple[object, ...] = (request.rows, request.places, *more)
    return shell_words(word for part in parts for word in typed_again(part))


def _words(texts: Collection[str]) -> list[str]:
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]
