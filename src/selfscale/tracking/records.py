"""What a record on disk says of its MLflow run: names, words, parameters, points, files.

A record is the folder of a training, minimization or baseline, finished or in progress, or the JSON of an
ablation. Beside it may lie the clock of its execution, with what varies from one to the next.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from selfscale import files, schemas
from selfscale.decisions import Filter, in_words
from selfscale.errors import counted
from selfscale.tracking import points
from selfscale.tracking.points import Clock, Picture, Point, RunData

NAME_LENGTH = 120
NETWORK = "network.png"


class Record:
    """A training's record, and what all records have in common.

    `content` is the digest of a finished one, else empty. Without a `clock`, runs have no duration.
    """

    kind, verb = "training", "train"  # the run's tag, and the command that makes it
    decisions: Sequence[Mapping[str, Any]] = ()  # of a minimization
    result_file = "training.json"  # only a finished record has it
    schema: type = schemas.Trained  # of that file

    def __init__(self, path: Path, about: Mapping[str, Any], content: str, clock: Clock | None) -> None:
        self.path, self.about, self.content, self.clock = path, about, content, clock
        self.key, self.reason = (clock.key, clock.reason) if clock else ("", "")
        ended = clock.status if clock and clock.status in ("FAILED", "KILLED") else "RUNNING"
        self.status = "FINISHED" if content else ended
        self.start = clock.started if clock else None
        self.end = clock.last if clock else None
        self.tags = {key: str(about[key]) for key in ("task", "strategy", "seed") if key in about}
        self.tags["kind"] = self.kind
        changed = points.changed(about.get("settings", {}))
        parts = (about.get("strategy", self.kind), f"seed {about['seed']}", *map(" ".join, changed.items()))
        self.name = textwrap.shorten(" - ".join(parts), NAME_LENGTH, placeholder=" ...")
        told = {key: about[key] for key in ("strategy", "seed") if key in about}
        told["changed"] = ", ".join(parts[2:])
        self.params = points.flatten(about.get("settings", {}), ".") | told

    def chart(self, charted: set[int]) -> list[Point]:
        """The points by decision, but for the decisions `charted`; the `score` is each one's last."""
        return []

    def parts(self, done: set[str]) -> Iterator[RunData]:
        """The runs of decisions or tests below it, but for those `done` (see `runs.part`)."""
        return iter(())

    def pictures(self) -> Iterator[Picture]:
        return iter(())

    def final_points(self) -> list[Point]:
        """What it came to."""
        system = points.of_system(self.clock.system) if self.clock else []
        return points.of_session(self.session) + points.of_result(self.result) + system

    def artifacts(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if path.is_file() and path.name[0] != ".")

    def facts(self) -> dict[str, str]:
        """Tags of what it came to."""
        return {}

    def note(self, run_id: str) -> str:
        """What it came to, in Markdown."""
        return f"{self.result['ended']} after {counted(self.session['steps'], 'step')}"

    @property
    def command(self) -> str:
        return f"{self.verb} {self.tags['task']}"

    @cached_property
    def result(self) -> dict[str, Any]:
        return files.read_json(self.path / self.result_file, self.command, self.schema)

    @cached_property
    def session(self) -> dict[str, Any]:
        rows = files.read_csv(self.path / "curve.csv", self.command)
        losses, scores = ([(int(row["step"]), row[name]) for row in rows] for name in ("loss", "score"))
        return {"losses": losses, "scores": scores, "steps": losses[-1][0] if losses else 0}

    def timed(self, key: object) -> Mapping[str, Any]:
        """What the clock has of a decision or a test."""
        return self.clock.decisions.get(str(key), {}) if self.clock else {}

    def span(self, key: object) -> tuple[float | None, float | None]:
        """Start and end of a decision or a test."""
        timed = self.timed(key)
        at = timed.get("at", self.end if self.content else None)
        return (None if at is None else at - timed.get("seconds", 0.0)), at


class Baseline(Record):
    kind, verb, result_file, schema = "baseline", "baseline", "result.json", schemas.BaselineResult

    def note(self, run_id: str) -> str:
        steps, kept = self.result["training_steps"], self.result["kept"]
        return f"{counted(steps, 'step')}; the {kept} network is better on validation."


class Minimization(Record):
    kind, verb, result_file, schema = "minimization", "minimize", "result.json", schemas.Result

    def chart(self, charted: set[int]) -> list[Point]:
        found = []
        if "initial" in self.about and 0 not in charted:
            found += points.in_charts(self.about["initial"], 0, self.start)
        for decision in self.decisions:
            if (number := decision["number"]) not in charted:
                found += points.in_charts(decision, number, self.timed(number).get("at"))
        return found

    def parts(self, done: set[str]) -> Iterator[RunData]:
        return (self._decision(found) for found in self.decisions if str(found["number"]) not in done)

    def _decision(self, decision: Mapping[str, Any]) -> RunData:
        number, session = decision["number"], decision["session"]
        filters = [Filter(*filter) for filter in decision["filters"]]
        tried = decision.get("tried") or in_words(decision["alteration"], filters)
        timed = self.timed(number)
        verdict = "accepted" if decision["accepted"] else "reverted"
        tags = {"decision": str(number), "verdict": verdict}
        shared = tags | {key: self.tags[key] for key in ("task", "strategy", "seed")}
        params = {
            **{key: decision.get(key) for key in ("alteration", "selection_score", "started_from", "reason")},
            "tried": tried,
            "layer": ", ".join(str(filter.layer) for filter in filters),
            "filter": ", ".join(str(filter.index) for filter in filters),
        }
        trained = RunData(
            f"session {number}",
            tags | {"kind": "session"},
            *self.span(number),
            params=shared | {"steps": session["steps"], "ended": session["ended"]},
            points=points.of_session(session) + points.of_system(timed.get("system", ())),
            files=list(self.path.glob(f"sessions/{number:03}.npz")),
        )
        what = textwrap.shorten(f"{number} {decision['alteration']} {tried}", NAME_LENGTH, placeholder=" ...")
        return RunData(
            f"{what} - {verdict}",
            tags | {"kind": "decision"},
            *self.span(number),
            params=shared | params,
            points=points.of_decision(decision, timed.get("seconds")),
            children=[trained],
        )

    def pictures(self) -> Iterator[Picture]:
        for number in (0, *(decision["number"] for decision in self.decisions)):
            for file in sorted(self.path.glob(f"pictures/{number:03}/*.png")):
                at = self.timed(number).get("at", self.start)
                yield Picture(file, f"network on image {file.stem}", number, at)

    def final_points(self) -> list[Point]:
        return points.of_result(self.result, max((found["number"] for found in self.decisions), default=0))

    def facts(self) -> dict[str, str]:
        return points.facts(self.result)

    def note(self, run_id: str) -> str:
        # MLflow shows no picture from a data URI.
        picture = f"![The network that was found](get-artifact?path={NETWORK}&run_uuid={run_id})"
        shown = [picture] if (self.path / NETWORK).exists() else []
        return "\n\n".join([points.found(self.result), *shown, points.summary(self.result)])


class Ablation(Record):
    """The tests of a network's filters: a JSON file, with a picture beside it."""

    kind, verb, result_file = "worth", "worth", ""

    def __init__(self, path: Path, about: Mapping[str, Any], content: str, clock: Clock | None) -> None:
        super().__init__(path, about, content, clock)
        self.params = {key: about[key] for key in ("session_steps", "task", "seed", "loss")}

    def parts(self, done: set[str]) -> Iterator[RunData]:
        for number, test in enumerate(self.about["tests"], 1):
            layer, index = test["filter"]
            tags = {"test": test["test"], "layer": str(layer), "filter": str(index)}
            if " ".join(tags.values()) in done:
                continue
            params = tags | {key: self.tags[key] for key in ("task", "seed")}
            params["ended"] = test["session"]["ended"]
            if successor := test["successor"]:
                params["successor"] = str(Filter(*successor["filter"]))
            measured = points.of_test(test, self.timed(number).get("seconds"))
            name, kind = f"{test['test']} {Filter(layer, index)}", {"kind": "worth_test"}
            yield RunData(name, tags | kind, *self.span(number), params=params, points=measured)

    def final_points(self) -> list[Point]:
        return points.of_test(self.about["baseline"], self.timed(0).get("seconds"))

    def artifacts(self) -> list[Path]:
        return [path for path in (self.path, self.path.with_suffix(".png")) if path.exists()]

    def note(self, run_id: str) -> str:
        return points.ablation_summary(self.about)


def read(path: Path, clock: Path | None, *, writing: bool = False) -> Record | None:
    """What there is of a record; None if it has no `run.json` or, in progress, no clock.

    A clock that is not that of a finished record is left out: DVC may have restored another. But if the
    clock's execution is `writing` beside this, what is there is half of its record, or a former one: None.

    Raises:
        UserError: one of its files is damaged.
    """
    source = path if path.suffix == ".json" else path / "run.json"
    if not source.exists():
        return None
    about = files.read_json(source, "minimize", schemas.Ablation if source is path else schemas.Run)
    kinds: dict[str, type[Record]] = {each.kind: each for each in (Record, Baseline, Minimization)}
    kind = Ablation if source is path else kinds[about["kind"]]
    # Before the clock, which a job writes first: so it has the times of all these.
    made = path / "decisions.json"
    decisions = files.read_json(made, "minimize", list[schemas.Decision]) if made.exists() else ()
    content = files.content(path) if (source.with_name(kind.result_file or path.name)).exists() else ""
    timed = Clock(**files.read_json(clock, "minimize", Clock)) if clock and clock.exists() else None
    if content and timed and timed.content != content:
        if writing and timed.status == "RUNNING":
            return None
        timed = None
    if not (content or timed):
        return None
    record = kind(path, about, content, timed)
    record.decisions = decisions
    if content:  # whole, before anything of it is shown
        for picture in (source.with_suffix(".png"), *path.rglob("*.png")):
            if picture.exists():
                files.read_png(picture, record.command)
        if kind in (Record, Baseline):
            _ = record.session
    return record
