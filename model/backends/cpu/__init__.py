"""Generation on a CPU: the network in int8, compiled by Numba, its rows divided among threads."""
