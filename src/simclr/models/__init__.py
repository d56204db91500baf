"""Encoders. A family of them is a module of this package, by its name:

    class Params: ...                                       # a dataclass: its section `models.<name>` of params.yaml

    def build(parameters: Params, resolution: int) -> Encoder: ...
    class Encoder(...): ...                                 # in its file too, derived from `features.encoder.Encoder`

    def check(parameters: Params, resolution: int, origin: str) -> None: ...    # optional

    ONE_RESOLUTION = True   # where it takes images of `resolution` alone: it is not for views of several sizes

`build` draws the weights of an encoder for images of `resolution` pixels from torch's global generator. `check` raises
a UserError where a value does not go with another or with the resolution (`params.refusal`), before any stage runs. An
encoder's attributes stand in `features/encoder.py`; its `architecture` holds the resolution where it decides shapes.
"""

FUNCTIONS = ("build",)
"""A module has at least one of them: see `options.module`."""
