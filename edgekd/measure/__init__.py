"""Numbers that can be trusted: latency, accuracy, parity, and the machine they were taken on."""
