"""Which model packages a station has, and how one of them becomes the inspector that judges."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from board.config import LineConfig
from board.disk import Disk
from board.engines.chain import EngineChain, connect_remote, open_engine, open_own
from board.engines.fpga import Logic
from board.engines.fpga_pynq import find_logic
from board.engines.settings import EngineName, EngineSettings
from board.log import say
from board.models.change import Models, OpenInspector, require_taken, require_threshold
from board.models.choice import Chosen, recall_models, resume_trial
from board.models.inspector import Inspector
from board.models.lessons import Lessons, School
from board.models.pull import pull_package
from board.seams import Engine, Files
from protocol.errors import BeltsightError, EngineError, InputError, ManifestError
from protocol.manifest import Package, load_package
from protocol.signing import TrustedKeys


def choose_package(config: LineConfig, trusted: TrustedKeys | None) -> tuple[LineConfig, Package, Chosen]:
    """The model that was last commanded, where that is remembered and still in order; else the configured one.

    With the configuration that fits it, and what was chosen. Raises: ManifestError for the configured one; InputError
    for a threshold that is not for it.
    """
    remembered = config.model_change.remembered
    chosen = recall_models(remembered) if remembered else None
    if remembered and chosen:
        chosen = resume_trial(remembered, chosen, Disk())
    if chosen and chosen.model != config.model:
        try:
            package = load_package(find_package(config, chosen.model), trusted)
            require_taken(chosen.model, package.manifest, config.model_change, chosen.unfit)
            return replace(config, threshold=None), package, chosen
        except ManifestError as error:
            say(f"{error}; going on with {config.model}", level="WARNING")
    package = load_package(config.models_dir / config.model, trusted)
    require_taken(config.model, package.manifest, config.model_change, chosen.unfit if chosen else ())
    if config.threshold is not None:
        require_threshold(package.manifest, config.threshold)
    if chosen and chosen.model == config.model:
        return config, package, chosen
    return config, package, replace(chosen, model=config.model, trial_starts=0) if chosen else Chosen(config.model)


def find_package(config: LineConfig, model_id: str) -> Path:
    """Where a model lies, or would lie: among those that were installed, else among those that were fetched."""
    installed, fetched = config.models_dir / model_id, config.model_change.fetched
    return installed if fetched is None or installed.is_dir() else fetched / model_id


def open_models(
    config: LineConfig,
    package: Package,
    trusted: TrustedKeys | None,
    chosen: Chosen | None = None,
    logic: Logic | None = None,
) -> Models:
    """The model at work, and the way to others. Raises: EngineError if no engine runs it."""
    logic = logic or find_logic(config.engines.fpga)
    open_other = find_opener(config, package, trusted, logic)
    first = open_inspector(package, config.engines, logic, config.challenge.least_share)
    chosen = chosen or Chosen(config.model)
    models = Models(first, config.threshold, config.model_change, open_other, chosen.before, unfit=chosen.unfit)
    if chosen.trial_starts:
        _go_on_with_trial(models, chosen, open_other)
    return models


def open_lessons(
    config: LineConfig, models: Models, trusted: TrustedKeys | None, logic: Logic | None = None
) -> Lessons:
    """The way to models that the station teaches itself, beside those that it has."""
    logic = logic or find_logic(config.engines.fpga)

    def open_features(files: Files) -> Engine:
        troubles = []
        for name in config.engines.order:
            if name != "remote":
                try:
                    return open_own(name, files, config.engines, logic)
                except BeltsightError as error:
                    troubles.append(f"{name}: {error}")
        raise EngineError(f"no engine gives the backbone's features: {'; '.join(troubles)}")

    school = School(
        backbones=config.engines.backbones,
        find_package=lambda model_id: find_package(config, model_id),
        open_features=open_features,
        open_inspector=find_opener(config, models.current.package, trusted, logic),
        needs_signatures=trusted is not None,
    )
    return Lessons(school, models)


def find_opener(config: LineConfig, package: Package, trusted: TrustedKeys | None, logic: Logic) -> OpenInspector:
    """Of other models, for frames of the size that this package takes."""
    frame_px = package.manifest.preprocess.frame_px

    def open_other(model_id: str, url: str) -> Inspector:
        folder = find_package(config, model_id)
        if url and not folder.is_dir():
            if trusted is None or config.model_change.fetched is None:
                raise InputError("this station fetches no models: set trusted_keys and [model_change] fetched")
            folder = pull_package(url, model_id, config.model_change.fetched, trusted)
        other = load_package(folder, trusted)
        expected = other.manifest.preprocess.frame_px
        if expected != frame_px:
            raise InputError(f"{model_id} takes frames of {expected}, this line's are {frame_px}")
        return open_inspector(other, config.engines, logic, config.challenge.least_share)

    return open_other


def _go_on_with_trial(models: Models, chosen: Chosen, open_other: OpenInspector) -> None:
    """Where the model before cannot be opened any more, the one on trial has nothing to make way for."""
    try:
        previous = open_other(chosen.before, "")
    except BeltsightError as error:
        say(f"{chosen.model} was on trial, and goes on without: {error}", level="WARNING")
        return
    models.stand_by(previous, chosen.trial_starts)


def open_inspector(
    package: Package, settings: EngineSettings, logic: Logic, least_share: float | None = None
) -> Inspector:
    """Raises: EngineError if no engine passes its self-test; InputError for a server's keys or endpoint, or for
    known-bad parts that do not fit the package.
    """
    with contextlib.ExitStack() as opened:
        remote = connect_remote(package, settings)
        if remote:
            opened.callback(remote.close)

        def open_one(name: EngineName) -> Engine:
            return open_engine(name, package, settings, remote=remote, logic=logic)

        engines = EngineChain(settings, package.load_golden(), open_one)
        opened.callback(engines.close)
        inspector = Inspector(package, engines, remote, least_share)
        opened.pop_all()
    return inspector
