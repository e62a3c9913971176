"""One TOML file to typed, frozen settings. Whatever is not known is refused; values may differ by run range."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jobs.cluster_settings import ClusterSettings
from pipeline.authority import Rules
from pipeline.mistakes import ANY, Known, SettingsError, in_words, unknown
from pipeline.quantities import Runs
from pipeline.sections import (
    CanarySection,
    CertifySection,
    ClosureSection,
    ConditionsSection,
    DatasetSection,
    ExperimentSection,
    ExpressSection,
    HandshakeSection,
    Override,
    PromptSection,
    Section,
    ShadowSection,
    SplittingSection,
    StorageSection,
    Table,
)
from pipeline.toml_text import toml_text

if TYPE_CHECKING:
    from pipeline.experiments.interface import Experiment

__all__ = [
    "Settings",
    "SettingsError",
    "apply_calibration_settings",
    "check_settings",
    "load_settings",
    "make_experiment",
    "settings_from",
]


class Settings(Section):
    """All settings of a Tier-0. `model_dump()` is plain JSON, and `settings_from` reads it back."""

    model_config = ConfigDict(populate_by_name=True)

    experiment: ExperimentSection
    storage: StorageSection = StorageSection()
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    express: ExpressSection = ExpressSection()
    splitting: SplittingSection = SplittingSection()
    calibration: dict[str, Table] = Field(default_factory=dict)
    """kind to settings of its calibration"""
    gates: dict[str, tuple[Table, ...]] = Field(default_factory=dict)
    """kind to the gates its payloads must pass"""
    handshake: HandshakeSection = HandshakeSection()
    canary: CanarySection = CanarySection()
    datasets: dict[str, DatasetSection] = Field(default_factory=dict)
    """name to a primary dataset; without any, a run is one"""
    shadow: dict[str, ShadowSection] = Field(default_factory=dict)
    """name to a candidate"""
    conditions: ConditionsSection = ConditionsSection()
    certify: CertifySection = CertifySection()
    closure: ClosureSection = ClosureSection()
    prompt: PromptSection = PromptSection()
    authority: Rules = Field(default_factory=Rules)
    eras: dict[str, str] = Field(default_factory=dict)
    """name to run range"""
    overrides: Annotated[tuple[Override, ...], Field(alias="for")] = ()
    """the tables `[[for]]`"""

    def for_run(self, run: int) -> Settings:
        """The settings of one run: without tables `[[for]]`, their values filled in."""
        plain = self.model_dump(exclude={"overrides"})
        for override in self.overrides:
            if self._runs(override).has(run):
                plain = _merged(plain, override.changes())
        return _validated(plain)

    def as_text(self) -> str:
        """All values in force, as TOML that can be read again."""
        plain = self.model_dump(exclude={"overrides"})
        overrides = [override.model_dump(include={"runs", "era"}) | override.changes() for override in self.overrides]
        return toml_text({name: table for name, table in plain.items() if table} | {"for": overrides})

    def _runs(self, override: Override) -> Runs:
        return Runs.parse(_range_text(override, self.eras))


def load_settings(path: Path | str) -> Settings:
    """Read a settings file. Raises SettingsError naming all that is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        plain = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError([f"cannot be read: {problem}"], str(path)) from None
    except tomllib.TOMLDecodeError as problem:
        raise SettingsError([f"is not TOML: {problem}"], str(path)) from None
    if "overrides" in plain:
        raise SettingsError(["unknown setting `overrides`: did you mean `for`?"], str(path))
    return settings_from(plain, str(path), Path(path).absolute().parent)


def settings_from(plain: Mapping[str, Any], source: str = "", folder: Path | None = None) -> Settings:
    """Settings from a mapping shaped as the TOML file, whose paths count from `folder`. Raises SettingsError."""
    mistakes: list[str] = []
    try:
        settings = _validated(plain)
    except ValidationError as problem:
        mistakes = in_words(problem, _known(Settings))
    mistakes += _wrong_overrides(plain)
    if mistakes:
        from pipeline.salvage import further_mistakes  # reads the experiment, which good settings need not here

        raise SettingsError([*mistakes, *(further_mistakes(plain) if source else ())], source)
    return settings if folder is None else _from_folder(settings, folder)


def make_experiment(settings: Settings) -> Experiment:
    """The experiment of the settings, under its own settings. Raises UnknownExperiment and SettingsError."""
    from pipeline.experiments.registry import find_experiment

    kind = find_experiment(settings.experiment.name)
    try:
        return kind(settings.experiment.settings)
    except ValidationError as problem:
        known = dict.fromkeys(kind.settings_model.model_fields)
        raise SettingsError(in_words(problem, known, "experiment.settings.")) from None


Kind = TypeVar("Kind")


def apply_calibration_settings(calibrations: Sequence[Kind], tables: Mapping[str, Table]) -> tuple[Kind, ...]:
    """Calibrations (frozen dataclasses with a `kind`) under the tables `[calibration.KIND]`. Raises SettingsError for
    kinds and fields they have not, for values of the wrong type, and for intervals that there is no rule for."""
    kinds = [str(getattr(calibration, "kind", "")) for calibration in calibrations]
    mistakes = [unknown(kind, kinds, "calibration.") for kind in tables if kind not in kinds]
    changed: list[Kind] = []
    for kind, calibration in zip(kinds, calibrations, strict=True):
        values, wrong = _field_values(calibration, tables.get(kind, {}), f"calibration.{kind}.")
        mistakes.extend(wrong)
        try:
            changed.append(dataclasses.replace(calibration, **values))  # type: ignore[type-var]
            _try_rule(changed[-1])
        except (ValueError, NotImplementedError) as problem:
            mistakes.append(f"`calibration.{kind}`: {problem}")
    if mistakes:
        raise SettingsError(mistakes)
    return tuple(changed)


def _try_rule(calibration: Any) -> None:
    """Cut nothing into intervals: raises NotImplementedError where there is no rule for the granularity, and ValueError
    where the rule fails over a span without events; else either would show when a run is taken already."""
    if getattr(calibration, "granularity", "run") == "run" or not hasattr(calibration, "cut"):
        return
    try:
        calibration.cut(calibration.empty(), True)
    except NotImplementedError:
        raise
    except Exception as problem:  # a rule may be anybody's
        raise ValueError(f"`cut` fails where there are no events: {type(problem).__name__}: {problem}") from problem


def check_settings(
    settings: Settings,
    calibrations: Sequence[Any],
    kinds: Iterable[str],
    gate: Callable[[Table], object],
    others: Iterable[str] = (),
) -> None:
    """Hold the tables of calibrations, gates and required kinds to an experiment, for all runs.

    `kinds` are all kinds of conditions it knows; `gate` makes a gate of a table and raises ValueError; `others` are
    mistakes that were found elsewhere. Raises SettingsError naming all that is wrong.
    """
    known = sorted(kinds)
    mistakes: list[str] = []
    parts: list[tuple[str, Settings | Override]] = [("", settings)]
    parts += [(f"for[{place}].", override) for place, override in enumerate(settings.overrides)]
    for prefix, part in parts:
        try:
            # Over those of all runs: what each has alone may go together with nothing of the other.
            apply_calibration_settings(calibrations, _merged(settings.calibration, part.calibration))
        except SettingsError as problem:
            new = [mistake for mistake in problem.mistakes if mistake not in mistakes]
            mistakes.extend(mistake.replace("`calibration", f"`{prefix}calibration", 1) for mistake in new)
        mistakes.extend(_wrong_gates(part.gates, known, gate, f"{prefix}gates"))
        handshake = part.handshake if isinstance(part.handshake, Mapping) else part.handshake.model_dump()
        for name in ("required", "feeds_express"):
            mistakes += [
                f"`{prefix}handshake.{name}`: there is no kind {kind!r}; there are {', '.join(known)}"
                for kind in handshake.get(name) or ()
                if kind not in known
            ]
    mistakes.extend(others)
    if mistakes:
        raise SettingsError(mistakes)


def _wrong_gates(
    gates: Mapping[str, Sequence[Table]], known: Sequence[str], gate: Callable[[Table], object], prefix: str
) -> Iterator[str]:
    for kind, tables in gates.items():
        if kind not in known:
            yield unknown(kind, known, f"{prefix}.")
        for place, table in enumerate(tables):
            try:
                gate(table)
            except ValueError as problem:
                yield f"`{prefix}.{kind}[{place}]`: {problem}"


def _field_values(calibration: Any, table: Table, prefix: str) -> tuple[Table, list[str]]:
    hints = get_type_hints(type(calibration))
    fields = [field.name for field in dataclasses.fields(calibration) if field.init]
    values: Table = {}
    mistakes: list[str] = []
    for name, value in table.items():
        if name not in fields:
            mistakes.append(unknown(name, fields, prefix))
            continue
        try:
            # As JSON, for there a list may be a tuple and a text a member of an enumeration, but no text a number.
            exact = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
            adapter = TypeAdapter(hints[name], config=exact)
            values[name] = adapter.validate_json(json.dumps(value, default=str))
        except ValidationError as problem:
            mistakes.extend(in_words(problem, {}, prefix + name))
    return values, mistakes


def _validated(plain: Mapping[str, Any]) -> Settings:
    # As JSON: strict, and yet a list may be a tuple.
    return Settings.model_validate_json(json.dumps(plain, default=str))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """Tables are merged key by key; anything else of `above` replaces what is below."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(old or {}, value) if both else value
    return merged


def _wrong_overrides(plain: Mapping[str, Any]) -> list[str]:
    """What is wrong with the tables `[[for]]` of a mapping, beyond their shape."""
    found: dict[int, Runs] = {}
    mistakes: list[str] = []
    tables = plain.get("for", plain.get("overrides", ()))
    eras = plain.get("eras", {})
    for place, table in enumerate(tables if isinstance(tables, list | tuple) else ()):
        try:
            override = Override.model_validate_json(json.dumps(table, default=str))
        except ValidationError:
            continue  # said already, with the mistakes of everything else
        prefix = f"for[{place}]"
        try:
            found[place] = Runs.parse(_range_text(override, eras if isinstance(eras, Mapping) else {}))
        except ValueError as problem:
            mistakes.append(f"`{prefix}`: {problem}")
        try:
            _validated({"experiment": {"name": "any"}, **override.changes()})
        except ValidationError as wrong:
            mistakes.extend(in_words(wrong, _known(Settings), f"{prefix}."))
    return mistakes + [
        f"`for[{second}]` and `for[{first}]` have runs in common: one run, one table"
        for second in found
        for first in found
        if first < second and found[first].overlaps(found[second])
    ]


def _range_text(override: Override, eras: Mapping[str, Any]) -> str:
    if (override.runs is None) == (override.era is None):
        raise ValueError("say for which `runs`, or for which `era`")
    if override.runs is not None:
        return override.runs
    if override.era is None or override.era not in eras:
        raise ValueError(f"the era {override.era!r} is not among [eras]: {', '.join(eras) or 'there are none'}")
    return str(eras[override.era])


def _from_folder(settings: Settings, folder: Path) -> Settings:
    """The same with paths that do not depend on where the program is started."""
    storage, mask = settings.storage, settings.certify.mask
    local = storage.database is not None and "://" not in storage.database
    database = str(folder / storage.database) if local and storage.database else storage.database
    placed = StorageSection(area=str(folder / storage.area), database=database)
    certify = CertifySection(mask=str(folder / mask) if mask else None)
    return settings.model_copy(update={"storage": placed, "certify": certify})


def _known(section: Any) -> Known:
    """All names that can be set, table by table."""
    if dataclasses.is_dataclass(section):
        return {field.name: None for field in dataclasses.fields(section)}
    names: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        table = dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))
        names[name] = _known(kind) if table else None
    if section is Settings:
        names["for"] = {**_known(Override)}
        del names["overrides"]
        names["shadow"] = {ANY: _known(ShadowSection)}
        names["datasets"] = {ANY: {**_known(DatasetSection), "canary": _known(CanarySection)}}
    return names
