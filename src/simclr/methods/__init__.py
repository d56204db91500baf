"""Methods of learning from views. A method is a module of this package, by its name:

    class Params: ...       # a dataclass: its section `methods.<name>` of params.yaml

    def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> Method: ...

    NEEDS_LABELS = True     # where it does: it is not for the split unlabelled, nor for images without labels
    USES_KEYS = True        # where its loss has to compare with keys instead of with each other: see `losses`

    def refusals(parameters: Params, views: int) -> Iterator[UserError]: ...    # optional: values that do not go with
                                                                                # so many views of an epoch

A method that trains nothing has instead of `build`

    def load(parameters: Params, encoder: Encoder, transform: EvalTransform) -> EvalTransform: ...

which fills the `encoder` and returns the transform of its images.

`build` makes the network around a fresh `encoder` (see `models`), drawing its weights from torch's global generator.
`classes` are those of the labels; `loss` is the option that `pretrain.loss` names, for methods that contrast.
"""

FUNCTIONS = ("build", "load")
"""A module has at least one of them: see `options.module`."""
