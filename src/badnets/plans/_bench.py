"""The bench of one run: which trainings and answers its claims need, which are in the store, and the answers as they come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from badnets.attacks._base import Attack
from badnets.claims._base import Claim, Need, Setting
from badnets.core.config import canonical
from badnets.core.engine import Job, JobResult
from badnets.core.errors import StoreError
from badnets.core.store import Store
from badnets.core.tensors import unpack
from badnets.datasets._base import Dataset, ImageSet
from badnets.measure.outcome import Outcome
from badnets.measure.question import Answer, Question
from badnets.plans._names import WEIGHTS, question_name
from badnets.plans._plan import Plan
from badnets.plans._trial import Order, Trial
from badnets.train.recipe import Recipe

_COST = re.compile(r"cost|.*\.seconds")
"""Arrays of an answer that hold seconds or bytes of memory, which no repetition gives again."""


@dataclass
class Task:
    """One net of the run and the questions that some claim asks of it; the early ones are answered in the job that trains it."""

    trial: Trial
    key: str
    questions: dict[str, Question] = field(default_factory=dict)
    early: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Parts:
    """What a plan came down to on this machine; `choices` say why."""

    data: ImageSet
    other: Dataset
    net: dict[str, Any]
    recipe: Recipe
    device: str
    choices: list[str]


class StoreBench:
    """Answers by need, read from the store or received from workers. Knows what is missing."""

    def __init__(self, plan: Plan, setting: Setting, parts: Parts, store: Store) -> None:
        self.plan, self.setting, self.parts, self.store = plan, setting, parts, store
        self.tasks: dict[tuple[str, int], Task] = {}
        self._answers: dict[tuple[str, str], Answer] = {}

    def want(self, need: Need, *, early: bool = False) -> list[tuple[str, str]]:
        """Note a need; returns its (trial key, question name) pairs, one per seed."""
        pairs = []
        for seed in range(need.first, need.first + need.seeds):
            task = self._task(need.attack, seed)
            name = question_name(need.question)
            task.questions.setdefault(name, need.question)
            if early and not need.question.heavy:
                task.early.add(name)
            pairs.append((task.key, name))
        return pairs

    def _task(self, attack: Attack | None, seed: int) -> Task:
        index = (canonical(attack), seed)
        if index not in self.tasks:
            parts, data = self.parts, {"dataset": self.parts.data.name, "data_sha256": self.parts.data.sha256}
            trial = Trial(**data, net=parts.net, recipe=parts.recipe, attack=attack, seed=seed, device=parts.device)
            self.tasks[index] = Task(trial, trial.key())
        return self.tasks[index]

    def answers(self, need: Need) -> list[Answer]:
        """The answers of a need, one per seed; all must have been received or loaded."""
        return [self._answers[pair] for pair in self.want(need)]

    def outcomes(self, need: Need) -> list[Outcome]:
        """The same as outcomes, where the question is a Probe."""
        return [Outcome.from_arrays(answer) for answer in self.answers(need)]

    def worker_choices(self) -> set[str]:
        """What the workers said they chose, for every net of the run: also for those that an earlier, unfinished run trained."""
        found: set[str] = set()
        for task in self.tasks.values():
            try:
                found.update(self.store.info(task.key)["choices"])
            except StoreError as error:
                if error.code not in ("E-DAMAGED", "E-MISSING"):
                    raise
        return found

    def has(self, need: Need) -> bool:
        """Whether the answers of a need are at hand."""
        return all(pair in self._answers for pair in self.want(need))

    def ready(self, claim: Claim) -> bool:
        """Whether every answer for a claim is at hand."""
        return all(self.has(need) for need in claim.needs(self.setting))

    def load(self) -> None:
        """Take from the store what is there."""
        for task in self.tasks.values():
            for name, question in task.questions.items():
                if (task.key, name) not in self._answers:
                    self._load(task, name, question)

    def _load(self, task: Task, name: str, question: Question) -> None:
        kept = self._kept(task.trial.question_key(question, self._other))
        if kept is not None:
            self._answers[task.key, name] = kept

    def _kept(self, key: str) -> Answer | None:
        """The answer in the store; None where there is none."""
        if not self.store.has(key):
            return None
        try:
            return unpack(self.store.get(key)["answer"])[0]
        except StoreError as error:
            if error.code != "E-DAMAGED":
                raise
            return None  # set aside by the store: missing, so computed again

    @property
    def _other(self) -> str:
        return f"{self.parts.other.kind} {self.parts.other.content}"

    def jobs(self, data_path: str | None) -> list[Job]:
        """What is missing: early questions first, then the other light ones, each in the order in which its net was first wanted; then
        the heavy ones, one a job, question by question.

        A net may have several jobs; the later ones find the weights of the first in the store.
        """
        jobs, heavy = [], {}
        for early in (True, False):
            for task in self.tasks.values():
                left = {name: q for name, q in task.questions.items() if (task.key, name) not in self._answers}
                light = tuple(q for name, q in left.items() if not q.heavy and (name in task.early) == early)
                if light:
                    jobs.append(Job(task.key, self._order(task, light, data_path)))
                if early:
                    for name, question in left.items():
                        if question.heavy:
                            heavy.setdefault(name, []).append(Job(task.key, self._order(task, (question,), data_path)))
        return jobs + [job for name in self._asked(heavy) for job in heavy[name]]

    def stored(self, jobs: Sequence[Job]) -> int:
        """How many nets have no job among these."""
        return len(self.tasks) - len({job.key for job in jobs})

    def _asked(self, names: Iterable[str]) -> list[str]:
        """Names of questions in the order in which claims first asked them."""
        first = {name: i for i, name in reversed(list(enumerate(n for task in self.tasks.values() for n in task.questions)))}
        return sorted(names, key=lambda name: first[name])

    def _order(self, task: Task, questions: tuple[Question, ...], data_path: str | None) -> str:
        parts, root = self.parts, str(self.store.root)
        order = Order(trial=task.trial, dataset=self.plan.dataset, data=data_path, other=parts.other, questions=questions, store=root)
        return canonical(order)

    def receive(self, result: JobResult) -> None:
        """Commit a worker's result to the store and keep its answers."""
        task = next(t for t in self.tasks.values() if t.key == result.key)
        config = task.trial.model_dump(mode="json")
        if WEIGHTS in result.files:
            told = {name: result.info[name] for name in ("losses", "diverged", "choices")}
            self.store.put(task.key, config, {WEIGHTS: result.files[WEIGHTS]}, told)
        for name, question in task.questions.items():
            if name in result.files:
                self._answers[task.key, name] = self._keep(task, question, result.files[name])

    def _keep(self, task: Task, question: Question, content: bytes) -> Answer:
        """Commit an answer. Of two that differ in what was timed alone, as when two runs are at the same work, the first stays."""
        key, found = task.trial.question_key(question, self._other), unpack(content)[0]
        kept = self._kept(key)
        if kept is not None and _differ_in_cost_alone(kept, found):
            return kept
        described = {"trial": task.key, "question": question.model_dump(mode="json")}
        self.store.put(key, described, {"answer": content}, {})
        return found


def _differ_in_cost_alone(one: Answer, other: Answer) -> bool:
    rest = [name for name in one if not _COST.fullmatch(name)]
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in rest)


def early_needs(claims: Sequence[Claim], setting: Setting) -> list[Need]:
    """Needs of the claims that look at nothing but the run's own victims and twins, seed by seed: these are decided first."""
    own = (None, setting.attack)
    needs = [list(claim.needs(setting)) for claim in claims if not claim.obstacle(setting)]
    quick = [need for group in needs for need in group if all(n.attack in own for n in group) and need.first == 0]
    return [n._replace(seeds=seed + 1) for seed in range(setting.seeds) for n in quick if n.seeds > seed]


def later_needs(claims: Sequence[Claim], setting: Setting) -> list[Need]:
    """Needs of all claims; those on the run's own victims and twins up to the common number of seeds first."""
    needs = [need for claim in claims if not claim.obstacle(setting) for need in claim.needs(setting)]
    own = [n for n in needs if n.attack in (None, setting.attack)]
    first = [n._replace(seeds=min(n.seeds, setting.seeds)) for n in own if n.first == 0]
    return [*first, *(n for n in needs if n.attack not in (None, setting.attack)), *own]
