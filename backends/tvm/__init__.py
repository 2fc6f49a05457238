"""TVM: Relax programs compiled for this machine, for others, and for GPUs."""
