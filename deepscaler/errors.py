"""The one error family.

DeepScalerError
├── SettingsError   a YAML file, a --set or a flag
├── MetricsError    Prometheus or another source of measurements
├── DataError       a CSV, a data set, too little of it
├── BundleError     a trained bundle that is missing or doesn't fit
└── ClusterError    the orchestrator: unknown service, refused write

A message says what, where, what was expected, what was found and what to do. Scripts catch only this family:
one line on stderr, exit 1. Anything else is a bug and keeps its traceback.
"""


class DeepScalerError(Exception):
    """Base of every error a user can mend."""


class SettingsError(DeepScalerError):
    """A setting is unknown, of the wrong type or out of range."""


class MetricsError(DeepScalerError):
    """Measurements couldn't be had."""


class DataError(DeepScalerError):
    """A data file is missing, broken or too short."""


class BundleError(DeepScalerError):
    """A trained bundle is missing or doesn't fit the application."""


class ClusterError(DeepScalerError):
    """The cluster refused something or doesn't know it."""
