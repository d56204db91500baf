"""Declarative SimCLR experiments: the library behind the stages of dvc.yaml."""

from simclr import processor

processor.hold()
