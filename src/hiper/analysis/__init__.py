"""What comes of runs: reports, credit, comparisons, proofs."""
