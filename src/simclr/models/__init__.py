"""Encoders. A family of them is a module of this package, by its name:

    class Params: ...                                       # a dataclass: its section `models.<name>` of params.yaml

    def build(parameters: Params, resolution: int) -> Encoder: ...
    class Encoder(...): ...                                 # in its file too, derived from `features.encoder.Encoder`

`build` draws the weights of an encoder for images of `resolution` pixels from torch's global generator.
"""
