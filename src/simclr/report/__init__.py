"""Everything that a person reads or looks at: tables and pictures for Git and DVC, curves for TensorBoard."""
