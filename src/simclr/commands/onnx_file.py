"""The content of a file of ONNX."""

import torch

from simclr.commands.image_encoder import ImageEncoder


def onnx_bytes(network: ImageEncoder) -> bytes:
    """`network` in the format of ONNX, without what tells of the machine; needs the packages onnx and onnxscript."""
    example = torch.zeros(2, 3, 20, 24, dtype=torch.uint8)  # sizes of 1 and equal ones would be taken for fixed
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["h"],
        dynamic_shapes={"images": {0: "N", 2: "H", 3: "W"}},
    )
    assert program is not None  # it is, where no file is named
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of the source, with their paths
    content: bytes = program.model_proto.SerializeToString(deterministic=True)
    return content
