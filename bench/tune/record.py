"""The record of a search: an Optuna study in a journal file, which a cut leaves whole."""

import logging
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bench.tune.moves import Candidate, State

LOG = logging.getLogger(__name__)
# Finished candidates that the pruner wants to have seen before it stops one.
PRUNER_STARTS = 4
SAMPLER_STARTS = 4
FACTS = "facts"


class Record:
    """What a search tried, kept in one file.

    key: names everything but the budget that the search depends on; a search with another key starts anew.
    """

    def __init__(self, path: Path, key: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
        self.study = optuna.create_study(
            storage=storage,
            study_name=key,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNER_STARTS, n_min_trials=2),
        )

    def ask(self, params: dict[str, Any] | None, seed: int) -> optuna.Trial:
        """Return a new trial, with these parameters or, for None, with those that the sampler suggests.

        seed: of the sampler, which starts from it anew each time, so that a cut changes nothing.
        """
        self.study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=SAMPLER_STARTS, multivariate=False, seed=seed % 2**32
        )
        if params:
            self.study.enqueue_trial(params)
        return self.study.ask()

    def cut_trial(self) -> optuna.Trial | None:
        """Return the trial that an earlier process was at when it was cut, if it knew its settings already.

        One that did not is closed as failed.
        """
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "settings" in known(frozen):
                return optuna.Trial(self.study, frozen._trial_id)
            self.study.tell(frozen.number, state=TrialState.FAIL)
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.tell(frozen.number, state=TrialState.FAIL)
        return None

    def note(self, trial: optuna.Trial, **facts: Any) -> None:
        """Add to what is known of a trial: at once, as each note is a write to the disk."""
        trial.set_user_attr(FACTS, {**known(trial), **facts})

    def tell(self, trial: optuna.Trial, state: State, measure: float | None, **facts: Any) -> None:
        """Close a trial with what became of it."""
        self.note(trial, state=state, **facts)
        if state in ("finished", "cut"):
            self.study.tell(trial, measure)
        else:
            self.study.tell(trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def candidates(self) -> list[Candidate]:
        """Return everything that was tried, in order."""
        return [_candidate(frozen) for frozen in self.study.get_trials(deepcopy=False) if _begun(frozen)]

    def facts(self, number: int) -> dict[str, Any]:
        """Return what else is known of a candidate, by its number."""
        return known(self.study.get_trials(deepcopy=False)[number])

    def judged_so_far(self, number: int) -> set[int]:
        """Return at which milestones a candidate was judged already, before a cut."""
        return set(self.study.get_trials(deepcopy=False)[number].intermediate_values)


def known(trial: FrozenTrial | optuna.Trial) -> dict[str, Any]:
    """Return what was noted of a trial."""
    return trial.user_attrs.get(FACTS, {})


def _begun(frozen: FrozenTrial) -> bool:
    """Whether it got as far as having settings; one cut before cost nothing."""
    return "kind" in known(frozen)


def _candidate(frozen: FrozenTrial) -> Candidate:
    facts = known(frozen)
    return Candidate(
        number=frozen.number,
        kind=facts["kind"],
        state=facts.get("state", "running" if frozen.state == TrialState.RUNNING else "failed"),
        params=dict(frozen.params),
        settings=facts.get("settings", {}),
        seconds=facts.get("seconds", 0.0),
        measure=frozen.value if frozen.state == TrialState.COMPLETE else None,
        epochs=facts.get("epochs"),
        cost=facts.get("cost"),
        meets=facts.get("meets", False),
        promise=facts.get("promise", 0.0),
        reason=facts.get("reason", ""),
    )
