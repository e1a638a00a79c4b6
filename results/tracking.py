"""Keeps records in MLflow, one run per trial, and restores them from there; the one place that imports it.

A run carries its whole record as tags `record.000`, `record.001`, ...: tags travel with the run from any
server in one search, where artifacts may lie on a disk that only the server sees. The records in the store
are the truth: a lost database is refilled by logging them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from results import database as databases
from results.addresses import shown_address, without_passwords
from results.logged_runs import LoggedRun, OtherTables, read_runs
from results.new_runs import CONTEXT, DatabaseWriter, NewRun
from results.record import Record
from results.shown_boards import ShownBoard
from results.shown_runs import PARENT, legal, listed_as, shown, shown_run, suite_tag, suites_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_EXPERIMENT = "dfq-harness"
_BATCH = 100
"""Most params or tags that MLflow takes in one call."""
_PAGE = 1000
_IDENTIFYING = ("trial", "listed_as", "content", "superseded")
"""Tags that say whose run it is, and whether it counts."""
_BOARD = ("board", "content")
"""Tags of a leaderboard's run."""
_FEW = 20
"""As many records are looked for one by one on a server, where reading all of its runs may take longer."""


class TrackingError(Exception):
    """The tracking database or server cannot be used: one sentence says where, why and what to do."""


class Tracker:
    """Writes and reads one MLflow experiment; for the driver alone, workers never track.

    `uri` is `sqlite:///FILE` or the address of a server. Nothing is opened before the first call. A database
    that is damaged or half-made is refused; with `on_set_aside` it is renamed and a new one made instead, and
    `on_set_aside` is told so in a sentence.
    """

    def __init__(self, uri: str, on_set_aside: Callable[[str], None] | None = None) -> None:
        self._database = _database_file(uri)
        self.uri = uri if self._database is None else databases.database_uri(self._database)
        self.shown_uri = shown_address(self.uri)
        """The address without a password, for everything that is shown or kept."""
        self._on_set_aside = on_set_aside
        self._is_whole = False
        """Whether the database was looked at, and made where it was missing."""
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._searches: dict[str, str] = {}
        """Study -> id of its run."""

    def log(self, records: Iterable[Record], suite: str) -> int:
        """Log each record as one finished run under a suite's name; returns how many runs were written.

        A trial logged with the same content is left as it is. Other content makes a new run, and the old one
        is marked `superseded`; but a failure never replaces a result. A trial that suites list under another
        method name, track or budget has a run for each. What is there is asked for once, and MLflow is loaded
        only where a database has to be made, or where its tables or a server leave no other way. Raises
        TrackingError.
        """
        records = list(records)
        with self._held():
            logged: dict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
            for run in self._runs_of(records):
                logged[run.tags["trial"], run.tags["listed_as"]].append(run)
            with self._writing() as writer:
                return sum(
                    _log_one(writer, logged[record.trial, listed_as(record)], record, suite)
                    for record in records
                )

    def log_board(self, board: ShownBoard) -> bool:
        """Log a suite's leaderboard as a run with its files; whether one was written: it is, when it changed.

        Raises TrackingError.
        """
        with self._held():
            logged = {(run.tags.get("board"), run.tags.get("content")) for run in self._runs(_BOARD)}
            if (board.suite, board.content) in logged:
                return False
            with self._writing() as writer:
                run_id = writer.write(board.run())
                for name, text in board.files.items():
                    writer.attach(run_id, name, text)
            return True

    def load(self, suite: str) -> list[Record]:
        """The records of a suite, one per listed trial, ordered by trial. Raises TrackingError."""
        with self._held():
            runs = self._runs((*_IDENTIFYING, "record.*"), suite_tag(suite))
            return [self._restored(run) for run in _current(runs)]

    def reach(self) -> None:
        """Ask MLflow whether it can use what lies at the address. Raises TrackingError."""
        with self._session():
            pass

    def open_search(self, study: str, facts: Mapping[str, object]) -> str:
        """Id of a search's parent run, made or found again by the study's name. Raises TrackingError."""
        if study not in self._searches:
            with self._session() as client:
                found = self._search(client, f"tags.study = '{study}'")
                tags = {"study": study, **{name: shown(value) for name, value in facts.items()}}
                run = found[0] if found else client.create_run(self._experiment, run_name=study, tags=tags)
                self._searches[study] = _id_of(run)
        return self._searches[study]

    def logged_tries(self, parent: str) -> set[int]:
        """Numbers of the tries that are logged whole under a search's run. Raises TrackingError."""
        with self._session() as client:
            nested = self._search(client, f"tags.`{PARENT}` = '{parent}'")
        tries = [run.data.tags["try"].partition(".")[0] for run in nested if "content" in run.data.tags]
        torn = [run.data.tags["try"].partition(".")[0] for run in nested if "content" not in run.data.tags]
        return set(map(int, tries)) - set(map(int, torn))

    def log_try(self, parent: str, number: int, record: Record) -> None:
        """One try of a search as a run nested under its parent, once. Raises TrackingError.

        It belongs to no suite: a leaderboard never shows what a search scored.
        """
        with self._session() as client:
            filter_string = f"tags.`{PARENT}` = '{parent}' and tags.try = '{number}.{record.seed}'"
            if any("content" in run.data.tags for run in self._search(client, filter_string)):
                return
            text = json.dumps(record.to_json(), sort_keys=True)
            content = hashlib.sha256(text.encode()).hexdigest()
            nested = {PARENT: parent, "try": f"{number}.{record.seed}"}
            with self._writing() as writer:
                writer.write(shown_run(record, text, content, (), nested))

    def close_search(self, parent: str, values: Mapping[str, float], folder: Path) -> None:
        """Log a search's best values and the files of its folder to the parent run. Raises TrackingError."""
        with self._session() as client:
            for name, value in values.items():
                client.log_metric(parent, legal(name), value)
            for file in sorted(folder.iterdir()):
                client.log_artifact(parent, str(file))
            client.set_terminated(parent, "FINISHED")

    def log_verdict(self, study: str, metrics: Mapping[str, float], sentence: str, settings: Path) -> None:
        """Log what the final comparison said of a search's settings to its run. Raises TrackingError."""
        parent = self.open_search(study, {})
        with self._session() as client:
            for name, value in metrics.items():
                client.log_metric(parent, legal(name), value)
            client.set_tag(parent, "verdict", shown(sentence))
            client.log_artifact(parent, str(settings))

    def _runs_of(self, records: Sequence[Record]) -> list[LoggedRun]:
        """The logged runs of these records' trials, perhaps among others, with the tags that tell of them."""
        names = (*_IDENTIFYING, "status", "suite.*")
        if self._database is not None or len(records) > _FEW:
            return [run for run in self._runs(names) if {"trial", "listed_as"} <= run.tags.keys()]
        wanted = {(record.trial, listed_as(record)) for record in records}
        filters = [f"tags.trial = '{trial}' and tags.listed_as = '{listed}'" for trial, listed in wanted]
        return [_plain(run) for one in filters for run in self._search(self._opened()[0], one)]

    def _runs(self, names: Sequence[str], tagged: str | None = None) -> list[LoggedRun]:
        """The runs that are there, or those with the tag `tagged`, with the tags of these names at least."""
        if self._database is not None:
            with contextlib.suppress(OtherTables):  # MLflow knows them, or says what is wrong
                return read_runs(self._database, _EXPERIMENT, names, tagged)
        filter_string = "" if tagged is None else f"tags.`{tagged}` = 'true'"
        return [_plain(run) for run in self._search(self._opened()[0], filter_string)]

    def _search(self, client: MlflowClient, filter_string: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = client.search_runs([self._experiment], filter_string, max_results=_PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _restored(self, run: LoggedRun) -> Record:
        text = "".join(run.tags[key] for key in sorted(run.tags) if key.startswith("record."))
        if hashlib.sha256(text.encode()).hexdigest() != run.tags["content"]:
            raise TrackingError(
                f"run {run.run_id} in {self.shown_uri} was altered: delete it and log the suite again"
            )
        try:
            return Record.from_json(json.loads(text))
        except (TypeError, ValueError) as error:
            raise TrackingError(
                f"run {run.run_id} in {self.shown_uri} holds no record of this version: {error}"
            ) from None

    @contextlib.contextmanager
    def _session(self) -> Iterator[MlflowClient]:
        """The opened client, as `_held`."""
        with self._held():
            yield self._opened()[0]

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """The database, whole and under its lock; whatever MLflow and SQLite raise becomes a TrackingError.

        A traceback does not show the error it stands for: that may hold the address with its password.
        """
        try:
            lock = contextlib.nullcontext() if self._database is None else databases.locked(self._database)
            with lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow and SQLAlchemy warn about each other
                if self._database is not None and not self._is_whole:
                    self._make_whole(self._database)
                    self._is_whole = True
                yield
        except TrackingError:
            raise
        except Exception as error:  # requests, SQLAlchemy and MLflow raise unrelated kinds
            raise TrackingError(self._explained(error)) from None

    def _opened(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id, asked for when first needed; inside `_held` alone."""
        if self._client is None:
            self._client, self._experiment = _opened(self.uri, self._database)
        return self._client, self._experiment

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_Writer]:
        """What writes runs; whatever it collected is written in the end."""
        writer: _Writer | None = None
        if self._database is not None:
            with contextlib.suppress(OtherTables):
                writer = DatabaseWriter(self._database, _EXPERIMENT)
        writer = writer or _ClientWriter(self._opened)
        yield writer
        writer.flush()

    def _make_whole(self, database: Path) -> None:
        """Create the database where there is none that can be used; MLflow would fill it step by step."""
        if databases.is_created(database):
            fault = databases.fault_of(database)
            if not fault:
                return
            if self._on_set_aside is None:
                raise TrackingError(_unusable(database, fault))
            kept = databases.set_aside(database)
            self._on_set_aside(
                f"the tracking database {database} could not be used ({fault}): it is kept as {kept.name}, "
                "and a new one is filled from the store's records, suite by suite, when they are run or shown"
            )
        databases.create_whole(database, lambda uri: _opened(uri, database))

    def _explained(self, error: Exception) -> str:
        said = without_passwords(str(error).partition("[SQL:")[0], self.uri)
        cause = " ".join(said.split())[:300] or type(error).__name__
        database = self._database
        if isinstance(error, ModuleNotFoundError):
            return f"nothing was tracked, since {error.name} is not installed: with it the same command does"
        if database is None:
            return f"the tracking server at {self.shown_uri} cannot be used ({cause}): check --tracking-uri"
        if isinstance(error, OSError) and error.strerror:
            return f"the tracking database {database} cannot be written ({error.strerror})"
        if "locked" in cause:
            return f"the tracking database {database} is in use elsewhere ({cause}): try again later"
        if "disk is full" in cause:
            return f"the tracking database {database} cannot be written (the disk is full): make room"
        if "out-of-date database schema" in cause or "Can't locate revision" in cause:
            return (
                f"the tracking database {database} was made by another version of MLflow ({cause[:160]}): it "
                "is left as it is; use that version, or move the file away, and it is refilled from the "
                "store's records"
            )
        return _unusable(database, cause)


def _unusable(database: Path, cause: str) -> str:
    return (
        f"the tracking database {database} cannot be used ({cause}): move it away, "
        "and it is refilled from the store's records"
    )


def _opened(uri: str, database: Path | None) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; creates the tables and the experiment where they are missing.

    `database` is the file of a local address, or the one whose place it will take.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # Two retries take seconds; MLflow's seven keep a user with a mistyped address waiting for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A connection that outlived its call would go on with a file that was renamed or replaced since.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    from mlflow import MlflowClient

    # MLflow logs the traceback of what it also raises; the user gets our sentence instead.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is not None:
        return client, found.experiment_id
    artifacts = None if database is None else (database.parent / "mlflow-artifacts").as_uri()
    # Else MLflow's page takes it for one of generative models, and opens it without the runs.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client, client.create_experiment(_EXPERIMENT, artifacts, kind)


class _Writer(Protocol):
    """Writes runs, at once or with `flush`."""

    def write(self, run: NewRun) -> str:
        """The run's id."""
        ...

    def attach(self, run_id: str, name: str, text: str) -> None:
        """Lay a text file beside a run."""
        ...

    def tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag."""
        ...

    def flush(self) -> None:
        """Write what was collected."""
        ...


class _ClientWriter:
    """Writes through MLflow's client, opened when something has to be written."""

    def __init__(self, opened: Callable[[], tuple[MlflowClient, str]]) -> None:
        self._opened = opened

    def write(self, run: NewRun) -> str:
        """Write the run; its `content` tag comes last, so a run without one was torn by a kill."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        client, experiment = self._opened()
        metrics = [Metric(name, value, run.end, 0) for name, value in run.metrics.items()]
        params = [Param(name, value) for name, value in run.params.items()]
        others = [(key, value) for key, value in run.tags.items() if key != "content"]
        run_id = _id_of(client.create_run(experiment, run.start, dict(others[:_BATCH]), run.name))
        tags = [RunTag(*tag) for tag in [*others[_BATCH:], ("content", run.tags["content"])]]
        # One call per finished trial wherever it all fits; a call writes params, then metrics, then tags.
        for start in range(0, max(len(params), len(tags)), _BATCH):
            batch = slice(start, start + _BATCH)
            client.log_batch(run_id, metrics=() if start else metrics, params=params[batch], tags=tags[batch])
        if run.data is not None:
            data = run.data
            dataset = Dataset(data.name, data.digest, "harness", data.source, profile=data.profile)
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(CONTEXT, data.split)])])
        client.set_terminated(run_id, run.status, run.end)
        return run_id

    def attach(self, run_id: str, name: str, text: str) -> None:
        """Lay a text file beside a run."""
        self._opened()[0].log_text(run_id, text, name)

    def tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag."""
        self._opened()[0].set_tag(run_id, key, value)

    def flush(self) -> None:
        """Everything is written already."""


def _log_one(writer: _Writer, earlier: list[LoggedRun], record: Record, suite: str) -> bool:
    """Whether a run was written for the record; the earlier runs of its trial are brought up to date."""
    text = json.dumps(record.to_json(), sort_keys=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    suites = suites_of(key for run in earlier for key in run.tags) | {suite}
    kept = next((run for run in _current(earlier) if _keeps(run, record, content)), None)
    if kept is None:
        run_id = writer.write(shown_run(record, text, content, suites))
        tags = {"trial": record.trial, "listed_as": listed_as(record), "content": content}
        tags |= {"status": record.status, **{suite_tag(name): "true" for name in suites}}
        now = LoggedRun(run_id, max([0, *(run.start_time + 1 for run in earlier)]), tags)
    else:
        run_id, now = kept.run_id, None
        for key in sorted({suite_tag(name) for name in suites} - set(kept.tags)):
            _tag(writer, kept, key, "true")
    for run in earlier:
        if run.run_id != run_id and "superseded" not in run.tags:
            _tag(writer, run, "superseded", run_id)
    earlier += [now] if now else []
    return now is not None


def _tag(writer: _Writer, run: LoggedRun, key: str, value: str) -> None:
    writer.tag(run.run_id, key, value)
    run.tags[key] = value


def _id_of(run: Run) -> str:
    """MLflow's id of a run."""
    return str(run.info.run_id)


def _plain(run: Run) -> LoggedRun:
    """What records need of a run of MLflow's."""
    return LoggedRun(run.info.run_id, run.info.start_time, dict(run.data.tags))


def _keeps(run: LoggedRun, record: Record, content: str) -> bool:
    """Whether a logged run stays the trial's answer when `record` comes in."""
    if run.tags["content"] == content:
        return True
    return record.status != "ok" and run.tags.get("status") == "ok"


def _current(runs: Sequence[LoggedRun]) -> list[LoggedRun]:
    """The newest whole, not superseded run of each listed trial, ordered by trial."""
    newest: dict[tuple[str, str], LoggedRun] = {}
    for run in sorted(runs, key=lambda run: run.start_time):
        if "content" in run.tags and "superseded" not in run.tags:
            newest[run.tags["trial"], run.tags["listed_as"]] = run
    return [newest[listed] for listed in sorted(newest)]


def _database_file(uri: str) -> Path | None:
    """Absolute path of a sqlite database, or None for a server; other kinds raise TrackingError."""
    database = databases.database_file(uri)
    if database is None and not uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"'{shown_address(uri)}' is no tracking address: give sqlite:///FILE or http://HOST:PORT"
        )
    return database
