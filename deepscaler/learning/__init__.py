"""From a data set to a trained bundle and its live forecasts.

Modules that need torch import it themselves.
"""
