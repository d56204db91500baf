"""Losses of pretraining. A loss is a module of this package, by its name:

    class Params: ...       # a dataclass: its section `losses.<name>` of params.yaml

    def loss(z: Tensor, views: int, parameters: Params, session: Session) -> Tensor: ...

`loss` returns the mean over this rank's rows of z (V n, d), V >= 2 views, second ones after first ones, as a float32
scalar. The rows of all ranks are compared; the mean of the ranks' gradients is the gradient of one process on the
global batch.
"""
