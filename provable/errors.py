"""Why compression refused to work.

    ProvableError
    ├── InputError                the caller's input is at fault (exit code 3)
    │   ├── GroupingError         no channel of the network can leave
    │   ├── SelectionError        the channels to keep do not fit the network's groups
    │   ├── StateError            a state_dict does not fit the network
    │   ├── BudgetError           no selection meets the budget
    │   ├── CalibrationError      the calibration inputs cannot be used
    │   ├── TrainingError         a method that compresses while training cannot do what it was asked
    │   │   ├── ScheduleError     its schedule never reaches the target, or has not yet
    │   │   ├── TargetError       no structure of the network allows the target
    │   │   ├── CollapseError     filters that should have become identical have not
    │   │   └── SyntheticError    synthetic inputs of another range or shape than the network's
    │   └── OutputError           the output directory cannot be written
    └── SurgeryError              the shrunken network is not the masked original: nothing may be kept of it

Errors of reading networks and domains are those of `verify.errors`.
"""


class ProvableError(Exception):
    """Root of every error this package raises on purpose."""


class InputError(ProvableError):
    """The input is at fault: the message says what, where, and what to do."""


class GroupingError(InputError):
    """No channel of the network can leave, or an op has no channel rule; the message names the ops."""


class SelectionError(InputError):
    """The channels to keep name an unknown group, repeat or miss a slot, or empty a group."""


class StateError(InputError):
    """A state_dict lacks a parameter, has another shape, or ties parameters that must shrink differently."""


class BudgetError(InputError):
    """No selection meets the budget."""


class CalibrationError(InputError):
    """The calibration inputs are empty, misshapen or not finite."""


class TrainingError(InputError):
    """Parameters, options or a closure that a training method cannot serve."""


class ScheduleError(TrainingError):
    """A schedule that never reaches its target, or that is asked for a result before it has."""


class TargetError(TrainingError):
    """No structure of the network allows the target."""


class CollapseError(TrainingError):
    """Filters of one cluster are not identical; the message names the largest deviation and where it is."""


class SyntheticError(TrainingError):
    """Synthetic inputs have a range or a shape that is not that of the network's inputs."""


class OutputError(InputError):
    """The output directory exists or cannot be written."""


class SurgeryError(ProvableError):
    """The shrunken network differs from the masked original."""
