"""The parts of a pruning method and the engine that runs them; imports no other folder."""
