"""Generation on a GPU: the network and the drawing of characters in Triton, each step captured as a CUDA graph."""
