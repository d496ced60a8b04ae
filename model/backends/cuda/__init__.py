"""Generation on a GPU: the network's arithmetic in Triton, its steps in graphs."""
