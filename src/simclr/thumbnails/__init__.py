"""Images as small cells and grids of cells, for TensorBoard and for pictures."""
