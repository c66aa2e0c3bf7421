"""The exception family.

    TrajcheckError                 anything that trajcheck has to tell its user        exit code
    ├── UsageError                 options that contradict each other or make no sense       2
    ├── BadInputError              a run, a reference or an objective that cannot be used    3
    │   ├── RunError               no such run, an empty one, steps that do not fit together
    │   │   ├── StepFileError      a step file that is truncated, malformed or incomplete
    │   │   │   └── UnevenStepError   a step that some ranks made, and others did not
    │   │   └── NotFiniteError     NaN or Inf where a number was recorded
    │   ├── InvalidReferenceError   an unknown reference, or one of another model
    │   └── ObjectiveError         a loss program that cannot be loaded or evaluated
    ├── IntegrationError           a flow that could not be followed to its end               4
    ├── RunnerError                workers that cannot be had, or a cluster that is gone      4
    ├── OutputError                a report or a record that could not be written             5
    └── RecorderError              a training loop that cannot be recorded                    2
        └── HeldRunError           a run that another recorder is recording

Exit code 0 is success, 4 "finished, but something explicitly asked for could not be computed", and 1 is left to bugs.
Every message says what was found (path, step, tensor), what was expected, and what to do.
"""

from __future__ import annotations

from trajcheck.readable import plain


class TrajcheckError(Exception):
    """Base of all errors that trajcheck raises on purpose. The message may quote names and texts that stand in files of
    anybody: it is one line without anything that acts on a terminal or a log, of a bounded length."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(plain(message))


class UsageError(TrajcheckError):
    """Options that contradict each other or cannot be read."""

    exit_code = 2


class BadInputError(TrajcheckError):
    """Something that the user pointed at cannot be used."""

    exit_code = 3


class RunError(BadInputError):
    """A run that does not exist, is empty, or whose steps do not fit together."""


class StepFileError(RunError):
    """A step file that is truncated, malformed or incomplete."""


class UnevenStepError(StepFileError):
    """A step that some ranks made and at which others had ended."""


class NotFiniteError(RunError):
    """NaN or Inf in the middle of a run."""


class InvalidReferenceError(BadInputError):
    """A reference that is unknown, or belongs to another model."""


class ObjectiveError(BadInputError):
    """A loss program that cannot be loaded, does not fit the run, or fails when it is evaluated."""


class IntegrationError(TrajcheckError):
    """A flow that could not be followed to the last time."""

    exit_code = 4


class RunnerError(TrajcheckError):
    """Workers that cannot be started, or a cluster that cannot be reached any more."""

    exit_code = 4


class OutputError(TrajcheckError):
    """A report or a record that could not be written."""

    exit_code = 5


class RecorderError(TrajcheckError):
    """A training loop that the Recorder cannot record."""

    exit_code = 2


class HeldRunError(RecorderError):
    """A run that another recorder has, which the message names."""
