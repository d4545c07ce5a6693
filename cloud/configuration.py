"""From a file, the environment and flags to settings, and back to text.

Later sources win: defaults, configuration file, environment, flags. Every source is checked, also
where a later one wins: a typing error must not wait for the day on which it begins to count.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud.configuration_text import as_toml, default_text
from cloud.options import ENVIRONMENT_PREFIX, Kind, Option
from cloud.settings import OPTIONS, SECTIONS, ServeSettings
from lambda_split.errors import UsageError

__all__ = ["Configuration", "add_options", "configure"]

_CONFIG_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"
_MAX_FILE_BYTES: Final = 1 << 20
_DEFAULT: Final = "default"
_TOML_TYPES: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array of strings",
}


@dataclass(frozen=True)
class Configuration:
    """Settings, and where they come from.

    Attributes:
        settings: What holds.
        sources: For each option what set it: ``default``, a file and key, a variable or a flag.
    """

    settings: ServeSettings
    sources: Mapping[Option, str]

    def as_toml(self) -> str:
        """A configuration file with the same settings, and where each comes from."""
        return as_toml(
            (option, getattr(getattr(self.settings, option.section), option.attribute), source)
            for option, source in self.sources.items()
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare all options, none with a default: what is None has not been given."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"read settings from this TOML file (or from that in {_CONFIG_VARIABLE}); "
        "environment and flags win over it",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all settings as TOML, each with where it comes from, and end",
    )
    groups = {section: parser.add_argument_group(section) for section in SECTIONS}
    for option in OPTIONS:
        _add_option(groups[option.section], option)


def _add_option(group: argparse._ArgumentGroup, option: Option) -> None:
    kind = option.kind
    told = f"{option.help} (default: {default_text(option)})".replace("%", "%%")
    parse = _argument_type(kind)
    if option.positional is not None:
        name, metavar = option.destination, option.positional
        group.add_argument(name, nargs="?", metavar=metavar, type=parse, help=option.help)
    elif kind.file_types == (bool,):
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=told)
    elif kind.item is not None:
        one = _argument_type(kind.item)
        group.add_argument(option.flag, action="append", type=one, metavar=kind.metavar, help=told)
    else:
        group.add_argument(option.flag, type=parse, metavar=kind.metavar, help=told)


def _argument_type(kind: Kind[Any]) -> Callable[[str], Any]:
    def parse(given: str) -> Any:  # noqa: ANN401 - of that kind
        try:
            return kind.parse(given)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def configure(
    args: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> Configuration:
    """Settings from the flags in ``args``, the environment and the file that they name.

    Args:
        args: Parsed by a parser that has the options.
        environment: Variables; the process's own where None.

    Raises:
        UsageError: a source cannot be read, or has an unknown name or a value of no sense.
    """
    environment = os.environ if environment is None else environment
    given: dict[Option, tuple[Any, str]] = {
        option: (option.default, _DEFAULT) for option in OPTIONS
    }
    file = args.config or environment.get(_CONFIG_VARIABLE)
    if file:
        given |= _from_file(pathlib.Path(file))
    given |= _from_environment(environment)
    given |= _from_flags(args)
    parts = {
        section: settings(
            **{
                option.attribute: value
                for option, (value, _) in given.items()
                if option.section == section
            }
        )
        for section, settings in SECTIONS.items()
    }
    found = Configuration(
        ServeSettings(**parts), {option: source for option, (_, source) in given.items()}
    )
    _check_together(found.settings)
    return found


def _check_together(settings: ServeSettings) -> None:
    network = settings.network
    if (network.tls_cert is None) != (network.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together: give both, or neither")
    replicas = settings.replicas
    if replicas.highest < replicas.min_replicas:
        raise UsageError(
            f"--min-replicas {replicas.min_replicas} is above --max-replicas "
            f"{replicas.max_replicas}"
        )
    if replicas.gateway_only and (replicas.replicas is None or replicas.ray_address is None):
        raise UsageError(
            "--gateway-only needs --replicas ray and the --ray-address of the cluster to join"
        )


def _from_file(file: pathlib.Path) -> dict[Option, tuple[Any, str]]:
    known = {(option.section, option.key): option for option in OPTIONS}
    found: dict[Option, tuple[Any, str]] = {}
    for section, table in _read(file).items():
        if section not in SECTIONS:
            raise UsageError(
                f"{file}: there is no table [{section}], but {_listed(SECTIONS)}".replace("\n", " ")
            )
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {section} must be a table: write [{section}]")
        for key, value in table.items():
            option = known.get((section, key))
            if option is None:
                keys = [each.key for each in OPTIONS if each.section == section]
                raise UsageError(f"{file}: [{section}] has no key {key!r}, but {_listed(keys)}")
            source = f"{file}, [{section}] {key}"
            found[option] = (_parse_toml(option, value, source), source)
    return found


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--config {file}: {reason}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"--config {file}: more than {_MAX_FILE_BYTES} bytes are no configuration")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--config {file} is not TOML: {error}") from error


def _parse_toml(option: Option, value: object, source: str) -> Any:  # noqa: ANN401 - of the kind
    kind = option.kind
    if type(value) not in kind.file_types:  # not isinstance: true is no number
        wanted = " or ".join(_TOML_TYPES[each] for each in kind.file_types)
        raise UsageError(f"{source}: it must be {wanted}")
    if kind.item is None or not isinstance(value, list):
        return _parse(kind, str(value), source)
    if not all(isinstance(each, str) for each in value):
        raise UsageError(f"{source}: it must be {_TOML_TYPES[list]}")
    return tuple(_parse(kind.item, each, source) for each in value)


def _from_environment(environment: Mapping[str, str]) -> dict[Option, tuple[Any, str]]:
    known = {option.variable: option for option in OPTIONS}
    found: dict[Option, tuple[Any, str]] = {}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == _CONFIG_VARIABLE:
            continue
        option = known.get(variable)
        if option is None:
            raise UsageError(f"the environment has {variable}, which is no setting: unset it")
        found[option] = (_parse(option.kind, environment[variable], variable), variable)
    return found


def _parse(kind: Kind[Any], given: str, source: str) -> Any:  # noqa: ANN401 - of that kind
    try:
        return kind.parse(given)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error


def _from_flags(args: argparse.Namespace) -> dict[Option, tuple[Any, str]]:
    found: dict[Option, tuple[Any, str]] = {}
    for option in OPTIONS:
        value = getattr(args, option.destination)
        if value is not None:
            found[option] = (tuple(value) if option.kind.item else value, option.flag)
    return found


def _listed(names: Any) -> str:  # noqa: ANN401 - whatever has names
    return ", ".join(names)
