"""Hardware in the loop: plant models, simulated PLCs on the real protocols, and the rig."""
