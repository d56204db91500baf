"""Declarative SimCLR experiments: the library behind the stages of dvc.yaml."""

from simclr.core import processor

processor.hold()
