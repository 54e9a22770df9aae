"""What a model is worth next to its teacher: accuracy, calibration, speed; and the gate."""
