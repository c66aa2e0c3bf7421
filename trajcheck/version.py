"""The version of trajcheck."""

__version__ = "0.1.0"
