"""Parts of scripts/review-comment, which needs DVC and the standard library alone."""
