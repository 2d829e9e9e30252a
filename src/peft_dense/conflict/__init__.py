"""Whether tasks' gradients agree on what they share: VMT-Adapter, section 4.3.

``layers`` finds what tasks share, ``gradients`` measures one training step, ``recorder`` collects a
training run, and ``picture`` draws the histogram of figure 4.
"""

from peft_dense.conflict.gradients import Conflict, conflict
from peft_dense.conflict.layers import shared_layers
from peft_dense.conflict.recorder import ConflictRecorder

__all__ = ["Conflict", "ConflictRecorder", "conflict", "shared_layers"]
