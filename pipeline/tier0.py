"""`Tier0`: what a notebook or a script holds. Small; it delegates."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import DBAPIError

from jobs.cluster import ClusterSettings, describe, open_cluster
from jobs.inspection import numerical_class, verify
from jobs.lease import drop_lease, kept_alive, take_lease
from jobs.runner import Options, Runner
from pipeline import catalog
from pipeline.areas import take_for
from pipeline.booking import book_branch
from pipeline.conditions_editor import ConditionsEditor
from pipeline.database import Database
from pipeline.events import VanishedFile, stamp_of
from pipeline.experiments.interface import Experiment
from pipeline.experiments.simulated import Order, simulation_of
from pipeline.holds import refuse_while_stopped
from pipeline.in_charge import rules_text, take_charge
from pipeline.ingest import ingest, path_name
from pipeline.leftovers import clear_leftovers
from pipeline.looking import only_looked_at
from pipeline.operations import Operator
from pipeline.orders import list_orders
from pipeline.pass_rows import order_of
from pipeline.plan import Plan, plan
from pipeline.preparation import open_spans, prepare
from pipeline.processing import nothing
from pipeline.progress import show
from pipeline.results import Results
from pipeline.service import Service
from pipeline.settings import Settings, load_settings, settings_from
from pipeline.shadow import run_shadows
from pipeline.simulation import simulate
from pipeline.site import stopped_by_site
from pipeline.spread import OnWorkers
from pipeline.summary import Summary, explain, summarize
from pipeline.warm import WarmWorkers, warm_up
from pipeline.way import News
from pipeline.world import World, open_world, places_of, set_up

if TYPE_CHECKING:
    from distributed import Client


def checked(settings: Path | str | Mapping[str, Any]) -> str:
    """`Tier0.check` of settings, by looking only: no folder is made, no database made or changed."""
    with only_looked_at(places_of(_settings(settings)).database, time.time()) as database:
        return Tier0(settings, database=database).check()


class NoFiles(ValueError):
    """A pattern given matches no file, or of the files given none is there."""


Begun = Callable[["Client"], None]


class Tier0:
    """A Tier-0 under some settings: a TOML file, or the same as a mapping.

    Cheap to make: the cluster starts with the first run, and ends with `close` or at the end of a `with` block.

    An `experiment` of your own can be given as an object instead of by name. The clock and the probe (called at
    every point where a kill is worth a test) are there for tests. With a `database` to read, nothing is made: see
    `checked`.
    """

    def __init__(
        self,
        settings: Path | str | Mapping[str, Any],
        experiment: Experiment | None = None,
        *,
        clock: Callable[[], float] = time.time,
        probe: Callable[[str], None] = nothing,
        database: Database | None = None,
    ) -> None:
        self.settings: Settings = _settings(settings)
        with stopped_by_site():
            self._world: World = open_world(self.settings, experiment, clock, probe, database)
        self._stack = ExitStack()
        self.mismatches: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the cluster go."""
        self._stack.close()
        self.__dict__.pop("client", None)

    @cached_property
    def client(self) -> Client:
        """The Dask client; the cluster starts when it is first asked for."""
        client = self._stack.enter_context(open_cluster(self._cluster()))
        with suppress(OSError):  # a worker that dies as it is told; those that come are told as they start
            client.register_plugin(WarmWorkers())
        warm_up()
        self.mismatches = tuple(map(str, verify(client, self._cluster())))
        return client

    @property
    def dashboard(self) -> str:
        """The address of the Dask dashboard."""
        return str(self.client.dashboard_link)

    @property
    def conditions(self) -> ConditionsEditor:
        """Look at the conditions, bring payloads in, take copies out."""
        return ConditionsEditor(self._world, lambda: self.client)

    @property
    def results(self) -> Results:
        """The good-run list of certified runs, and the files that prompt has written."""
        return Results(self._world)

    @property
    def operator(self) -> Operator:
        """Keep runs from prompt, let them go, and waive what a rule stops them for."""
        return Operator(self._world)

    def run(self, *files: Path | str, wait: bool = False, progress: bool = True, begun: Begun | None = None) -> Summary:
        """Take the runs in these files (names or patterns) as far as they can go; what is done is not done again.

        With `wait`, stay until the deadlines of waiting runs have passed; `begun` is called once the cluster is there.
        Before that, NoFiles, SecondDriver while another one works on the same database, NotAllowed for who may not run
        the service, and Stopped while a person has stopped all submitting. Raises SiteStopped when nothing can run (a
        full disk); nothing is lost then.
        """
        began, paths = time.monotonic(), self._given(files)
        with self._at_work(begun) as epoch:
            world = self._world = set_up(self._world).under(epoch)
            runs = self._take_in(paths)
            with show(progress, world.experiment.unit_name) as listen:
                self._work_off(runs, epoch, listen, wait)
            clear_leftovers(world, runs)
            return summarize(world, runs, time.monotonic() - began, paths)

    def simulate(
        self,
        folder: Path | str,
        runs: Sequence[int],
        order: Order | None = None,
        *,
        progress: bool = True,
        begun: Begun | None = None,
    ) -> list[Path]:
        """Have the experiment play its detector over some runs; gives the event files, for `run`.

        They lie in `folder` as its data acquisition would write them, the truth in a folder `truth` beside them. What
        is made and still there is not made again. Raises NotSimulated where the experiment has no simulation.
        """
        simulation = simulation_of(self._world.experiment, order or Order())
        with self._at_work(begun) as epoch:
            runner = self._runner(epoch)
            try:
                with show(progress, self._world.experiment.unit_name) as listen:
                    return simulate(self._world, runner, simulation, runs, Path(folder).absolute(), listen)
            finally:
                runner.close()

    def plan(self, *files: Path | str) -> Plan:
        """What `run` would do with these files, and why. Does nothing."""
        return plan(self._world, self._given(files), describe(self._cluster()))

    def status(self) -> Summary:
        """Where every run stands."""
        return summarize(self._world)

    def why(self, run: int) -> str:
        """Why a run stands where it stands. Raises LookupError for a run that was never seen."""
        return explain(self._world, run)

    def check(self) -> str:
        """The settings in force as text, with the order of calibrations, the kinds that have no payload to start from,
        and who may do what."""
        lacking = self.conditions.lacking()
        words = [f"promoted: {promotion}" for promotion in self._world.promoted]
        order = order_of(self._world.experiment.calibrations())
        words += [f"calibrations in their order: {order}"] if order else []
        words += [f"no payload to start from: {kind} (tier0 conditions upload {kind} ...)" for kind in lacking]
        with self._world.database.read() as connection:
            who = rules_text(connection, self.settings.authority, self._world.author)
        return "\n".join([self._world.settings.as_text(), *words, who])

    def _cluster(self) -> ClusterSettings:
        """The cluster as set; what batch jobs must share lies in the area, unless the settings say otherwise."""
        cluster = self.settings.cluster
        folder = cluster.shared_directory or str(self._world.area / "cluster")
        return replace(cluster, shared_directory=folder) if cluster.batch else cluster

    @contextmanager
    def _at_work(self, begun: Begun | None) -> Iterator[int]:
        """The epoch of the one driver, and its cluster; whoever is refused has not waited for a cluster to start."""
        with stopped_by_site(), _lease(self._world) as epoch:
            client = self.client
            if begun is not None:
                begun(client)
            yield epoch

    def _given(self, files: Sequence[Path | str]) -> list[Path]:
        """The files that names and patterns stand for. Raises NoFiles also where none is there, nor gave events once.

        One that is missing beside others stops only itself: that is told with the runs.
        """
        paths = _found(files)
        if paths and all(map(_is_missing, paths)):
            with self._world.database.read() as connection:
                if not any(catalog.ever_held_events(connection, str(path)) for path in paths):
                    missing = f"{paths[0]} is" if len(paths) == 1 else f"{paths[0]} and all other files named are"
                    raise NoFiles(f"{missing} not there: look at the names; nothing is begun")
        return paths

    def _take_in(self, paths: Sequence[Path]) -> list[int]:
        world = self._world
        ingest(world.database.begin, world.experiment, paths, world.now(), OnWorkers(self.client))
        with world.database.read() as connection:
            given = catalog.runs_in(connection, [str(path) for path in paths])
        return sorted({*given, *open_spans(world)}) if given else given

    def _work_off(self, runs: Sequence[int], epoch: int, listen: Callable[[News], None], wait: bool) -> None:
        world = self._world
        ways, chains = prepare(world, runs, numerical_class(self.client))
        runner = self._runner(epoch)
        try:
            Service(world, runner, ways, chains, listen).work_off(wait)
            run_shadows(world, runner, ways)
        finally:
            runner.close()

    def _runner(self, epoch: int) -> Runner:
        world = self._world
        return Runner(
            self.client,
            world.database.begin,
            epoch,
            lambda connection, job, node, receipt: book_branch(connection, job, node, receipt, world.now()),
            Options(reserve=self.settings.cluster.reserve),
            probe=world.probe,
        )


@contextmanager
def _lease(world: World) -> Iterator[int]:
    """The epoch of the one driver of a database. Raises SecondDriver, OtherExperiment, NotAllowed and Stopped."""
    database = world.database
    with database.begin() as connection:
        epoch = take_lease(connection)
        take_for(connection, world.experiment.name, world.settings.storage, world.now())
        take_charge(connection, world.author, world.settings.authority, world.now())
        refuse_while_stopped(list_orders(connection))
    try:
        with kept_alive(database.begin, epoch):
            yield epoch
    finally:
        # On a full disk this fails too, and must not hide why; the lease of a process that is gone is taken over.
        with suppress(DBAPIError), database.begin() as connection:
            drop_lease(connection, epoch)


def _settings(given: Path | str | Mapping[str, Any]) -> Settings:
    return settings_from(given) if isinstance(given, Mapping) else load_settings(Path(given))


def _found(files: Sequence[Path | str]) -> list[Path]:
    """The files that names and patterns stand for, each once. Raises NoFiles for a pattern that matches nothing.

    A plain name is taken as it is: whether it can be read is said where it is registered.
    """
    paths: dict[Path, None] = {}
    for name in map(str, files):
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        if not matches:
            raise NoFiles(f"no file matches {name!r}")
        paths.update((Path(path_name(match)), None) for match in matches)
    return list(paths)


def _is_missing(path: Path) -> bool:
    try:
        stamp_of(path)
    except VanishedFile:
        return True
    except OSError:
        return False  # why it cannot be read is said where it is registered
    return False
