"""All errors that a user can mend, in one family.

DeepScalerError
├── SettingsError   a YAML file, a --set or a flag is wrong
├── MetricsError    Prometheus or another source of measurements can't be read
├── DataError       a data file is missing, broken or too short
│   └── WriteError  a file can't be written
├── BundleError     a trained bundle is missing or doesn't fit
└── ClusterError    the orchestrator doesn't know a service or refuses a write

A message says what is wrong and where, what was expected, what was found and what to do. Scripts catch only
this family: they print one line on stderr and exit with 1. Any other error is a bug and keeps its traceback.
Secrets are taken out of every message, and the commands in it name the settings that were given.
"""

from deepscaler.commands import complete
from deepscaler.scrubbing import scrubbed


class DeepScalerError(Exception):
    """Base of every error a user can mend."""

    def __init__(self, message: object = "") -> None:
        super().__init__(scrubbed(complete(str(message))))


class SettingsError(DeepScalerError):
    """A setting is unknown, of the wrong type or out of range."""


class MetricsError(DeepScalerError):
    """Measurements couldn't be read."""


class DataError(DeepScalerError):
    """A data file is missing, broken or too short."""


class WriteError(DataError, OSError):
    """A file can't be written: no right, no room, or a file where a directory is needed."""


class BundleError(DeepScalerError):
    """A trained bundle is missing or doesn't fit the application."""


class ClusterError(DeepScalerError):
    """The cluster refused a request or doesn't know what it asks for."""
