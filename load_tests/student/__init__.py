"""Teacher, student and quantized teacher on the same engine."""
