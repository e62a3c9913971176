"""REF10, the bundled detector: ten barrel layers of silicon, from raw ADC counts to tracks."""
