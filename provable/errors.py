"""Why compression refused to work.

    ProvableError
    ├── InputError                the caller's input is at fault (exit code 3)
    │   ├── GroupingError         no channel of the network can leave
    │   ├── SelectionError        the channels to keep do not fit the network's groups
    │   ├── StateError            a state_dict does not fit the network
    │   ├── BudgetError           no selection meets the budget
    │   ├── CalibrationError      the calibration inputs cannot be used
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


class OutputError(InputError):
    """The output directory exists or cannot be written."""


class SurgeryError(ProvableError):
    """The shrunken network differs from the masked original."""
