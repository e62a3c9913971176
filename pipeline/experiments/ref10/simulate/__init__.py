"""REF10 played by the computer: from (seed, run, lumisection, event) to RAW columns and the truth behind them."""
