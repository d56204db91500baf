"""Losses of pretraining. A loss is a module of this package, by its name:

    class Params: ...       # a dataclass: its section `losses.<name>` of params.yaml

    def loss(z: Tensor, batch: Batch, parameters: Params, session: Session) -> Tensor: ...

    def scalars(z: Tensor, batch: Batch, parameters: Params, session: Session) -> dict[str, Tensor]: ...   # optional

A loss that can also compare z with keys has the last argument `keys: Keys | None = None`, of `scalars` too (see
`distributed.similarity`); methods with `USES_KEYS` take no other.

`loss` returns the mean over this rank's rows of z (V n, d), the projections of the V >= 2 views of `batch`, as a scalar
in float32 (float64 if z is). The rows of all ranks are compared; the mean of the ranks' gradients is the gradient of
one process on the global batch. `scalars` are metrics for TensorBoard, over all ranks.
`NEEDS_LABELS = True` in the module: it is not for the split unlabelled, nor for images without labels.
"""

FUNCTIONS = ("loss",)
"""A module has at least one of them: see `options.module`."""
